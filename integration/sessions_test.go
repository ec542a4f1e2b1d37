package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// adminSocket is where the daemon is asked.
func (jd *jackdaw) adminSocket() string { return filepath.Join(jd.dir, "state", "admin") }

// asksDaemon runs a command that asks the daemon, and returns what it says and its exit status.
func asksDaemon(t testing.TB, socket string, words ...string) (said string, status int) {
	t.Helper()
	out, err := exec.Command(built(t), append(words, "--socket", socket)...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	}
	must(t, err)
	return string(out), 0
}

// obeys wants a command to succeed, and to say all of this.
func obeys(t testing.TB, socket, command string, want ...string) (said string) {
	t.Helper()
	said, status := asksDaemon(t, socket, strings.Fields(command)...)
	if status != 0 {
		t.Errorf("jackdaw %s: exit status %d: %s", command, status, said)
	}
	for _, text := range want {
		if !strings.Contains(said, text) {
			t.Errorf("jackdaw %s says\n%s\nwant %q", command, said, text)
		}
	}
	return said
}

func (jd *jackdaw) says(command string, want ...string) string {
	jd.t.Helper()
	return obeys(jd.t, jd.adminSocket(), command, want...)
}

// TestFoundAndKicked: three commands find a user, explain how he came to where he is, and end his session, and nobody else's.
func TestFoundAndKicked(t *testing.T) {
	t.Parallel()
	store1 := startDovecot(t, "store1", passwords, "alice@a.example").serving("imap")
	store2 := startDovecot(t, "store2", passwords, "bob@b.example").serving("imap")
	jd := startJackdaw(t, twoStores(store1, store2))
	jd.knows(store1, store2)
	alice := jd.login("mail.a.example", "alice")
	bob := jd.login("mail.b.example", "bob")

	jd.says("where alice@a.example", "alice@a.example", "store1", "mail.a.example", "imaps", "relay", "1.3")
	explained, err := exec.Command(built(t), "explain", "-c", jd.file, "--sni", "mail.a.example", "--user", "alice").CombinedOutput()
	must(t, err)
	if !strings.Contains(string(explained), "store1") {
		t.Errorf("explained is\n%s", explained)
	}
	jd.says("kick --user alice@a.example", "1 session ends")
	if last := alice.ended(); last != "* BYE Session ended by the administrator\r\n" {
		t.Errorf("alice hears %q", last)
	}
	bob.ask("NOOP")
	if said, status := asksDaemon(t, jd.adminSocket(), "where", "alice@a.example"); status != 1 || !strings.Contains(said, "no sessions") {
		t.Errorf("alice is still there: %d, %s", status, said)
	}
	jd.says("sessions --totals backend", "store2", "(all)    1")
	jd.says("status", "store1", "imaps: 1 in relay")
}

// TestDrained: a store is drained and taken back while mail comes all the time: its users go to the other one when their sessions
// have ended, and no message is lost.
func TestDrained(t *testing.T) {
	t.Parallel()
	var users []string
	for i := range 4 {
		users = append(users, fmt.Sprintf("user%d@a.example", i))
	}
	one := startDovecot(t, "store1", passwords, users...).serving("imap", "lmtp")
	two := startDovecot(t, "store2", passwords, users...).serving("imap", "lmtp")
	jd := startJackdaw(t, farm(`sticky = "1m"`, one, two))
	jd.knows(one, two)
	dialogs := make(map[string]*dialog)
	there := 0
	for _, user := range users {
		dialogs[user] = jd.login("mail.a.example", user)
		if dialogs[user].memberOf(one, two) == one {
			there++
		}
	}
	if there == 0 || there == len(users) {
		t.Fatalf("%d of %d users are on store1", there, len(users))
	}

	stop, delivered := make(chan struct{}), make(chan [2]int)
	go func() {
		defer close(delivered)
		courier, n, again := jd.courier(t), 0, 0
		for ; ; n++ {
			select {
			case <-stop:
				delivered <- [2]int{n, again}
				return
			case <-time.After(20 * time.Millisecond):
			}
			user := users[n%len(users)]
			for end := time.Now().Add(patience); ; {
				answer := courier.deliver("Under way", "bob@b.example", user)
				if strings.HasPrefix(answer[0], "250 ") {
					break
				}
				if !strings.HasPrefix(answer[0], "4") || time.Now().After(end) { // who brings mail comes again
					t.Errorf("%s: %q", user, answer)
					return
				}
				courier.smtp("RSET")
				again++
			}
		}
	}()

	jd.says("drain store1 --over 1s", fmt.Sprintf("store1 is drained; sessions there: %d", there))
	for _, user := range users {
		if _, status := asksDaemon(t, jd.adminSocket(), "sessions", "--user", user, "--backend", "store1"); status != 0 {
			t.Error("sessions cannot be listed")
		}
	}
	jd.logged(t, "a drained backend has no sessions any more", "store1")
	for _, user := range users {
		again := jd.login("mail.a.example", user)
		if again.memberOf(one, two) != two {
			t.Errorf("%s is still on the drained store", user)
		}
		dialogs[user].conn.Close()
		dialogs[user] = again
	}
	jd.says("status", "up, drained")
	jd.says("undrain store1", "store1 is drained no longer; sessions there: 0")
	jd.says("move "+users[0]+" store1", users[0]+" is on store1 of pool farm")
	if last := dialogs[users[0]].ended(); !strings.Contains(last, "* BYE") {
		t.Errorf("who is moved hears %q", last)
	}
	if jd.login("mail.a.example", users[0]).memberOf(one, two) != one {
		t.Error("who was moved is elsewhere")
	}
	close(stop)
	took := <-delivered
	sent, again, found := took[0], took[1], 0
	for _, user := range users {
		found += one.found(t, user, "INBOX", "Under way") + two.found(t, user, "INBOX", "Under way")
	}
	if found < sent || found > sent+again || sent == 0 { // what was brought again may have been taken before (RFC 5321 section 6.1)
		t.Errorf("%d messages were taken, %d were brought again, %d are there", sent, again, found)
	}
}

// TestBlocked: whom one does not want is out at once and stays out, over a restart, too, until he is let in again.
func TestBlocked(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example", "bob@a.example").serving("imap")
	jd := startJackdaw(t, dovecot.backend())
	jd.knows(dovecot)
	alice, bob := jd.login("mail.a.example", "alice"), jd.login("mail.a.example", "bob")
	jd.says("block alice@a.example --for 1h", "alice@a.example is blocked until", "1 session ends")
	alice.ended()
	bob.ask("NOOP")
	jd.wantsStatus(t, "mail.a.example", "alice", "NO [AUTHENTICATIONFAILED]")
	jd.again()
	jd.wantsStatus(t, "mail.a.example", "alice", "NO [AUTHENTICATIONFAILED]")
	jd.says("block", "alice@a.example")
	jd.says("unblock alice@a.example")
	jd.login("mail.a.example", "alice")

	jd.says("block 127.0.0.0/8")
	d := dial(t, jd.at(portIMAP))
	if last := d.ended(); last != "" {
		t.Errorf("a blocked client hears %q", last)
	}
	jd.says("unblock 127.0.0.0/8")
	jd.login("mail.a.example", "alice")
}

// TestTraced: what is said is in a file that only its owner can read, and no password is.
func TestTraced(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example").serving("imap")
	jd := startJackdaw(t, dovecot.backend())
	jd.knows(dovecot)
	before := jd.login("mail.a.example", "alice")
	file := filepath.Join(t.TempDir(), "trace")
	trace := exec.Command(built(t), "trace", "alice@a.example", "--relay", "--to", file, "--socket", jd.adminSocket())
	must(t, trace.Start())
	jd.logged(t, `"msg":"tracing"`, "alice@a.example")
	eventually(t, "the session from before is traced", func() bool {
		before.ask("NOOP")
		text, _ := os.ReadFile(file)
		return strings.Contains(string(text), " NOOP\n")
	})
	jd.login("mail.a.example", "alice").ask("SELECT INBOX")
	var text []byte
	eventually(t, "all is traced", func() bool {
		text, _ = os.ReadFile(file)
		return strings.Contains(string(text), " S: a2 OK [READ-WRITE]")
	})
	for _, want := range []string{" C: a1 LOGIN (hidden)\n", " P: J3 AUTHENTICATE PLAIN (hidden)\n", " B: * OK [CAPABILITY", " S: a1 OK ", " C: a2 SELECT INBOX\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), password) || strings.Contains(string(text), encode("\x00alice@a.example\x00"+password)) {
		t.Errorf("there is a password in\n%s", text)
	}
	info, err := os.Stat(file)
	must(t, err)
	if info.Mode() != fs.FileMode(0o600) {
		t.Errorf("the file's mode is %v", info.Mode())
	}
	must(t, trace.Process.Signal(os.Interrupt))
	if err := trace.Wait(); err != nil {
		t.Errorf("interrupted, it ends with %v", err)
	}
}

// TestAdminMoves: the order that brings the socket to another place is answered where it was given.
func TestAdminMoves(t *testing.T) {
	t.Parallel()
	d := startDynasty(t)
	before := d.admin
	d.admin += ".new"
	d.write("")
	obeys(t, before, "reload")
	obeys(t, d.admin, "status", "listening")
	if _, err := os.Stat(before); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the former socket has left its file: %v", err)
	}
}

// TestFormerSessions: sessions that a former process has are listed, traced and ended as all others, and who is blocked stays so.
func TestFormerSessions(t *testing.T) {
	t.Parallel()
	d := startDynasty(t)
	former := d.login("mail.a.example", "alice@a.example")
	obeys(t, d.admin, "block bob@a.example")
	d.upgrade()
	d.upgrade()
	latest := d.login("mail.a.example", "alice@a.example")
	obeys(t, d.admin, "sessions --totals process", "(all)    2")
	obeys(t, d.admin, "status", "before", "with 1 sessions", "bob@a.example")
	obeys(t, d.admin, "log debug --for 1m", "logging at level debug")
	file := filepath.Join(t.TempDir(), "trace")
	trace := exec.Command(built(t), "trace", "alice@a.example", "--relay", "--to", file, "--socket", d.admin)
	must(t, trace.Start())
	eventually(t, "the former session is traced", func() bool {
		former.ask("NOOP")
		text, _ := os.ReadFile(file)
		return strings.Contains(string(text), " NOOP\n")
	})
	must(t, trace.Process.Signal(os.Interrupt))
	must(t, trace.Wait())
	obeys(t, d.admin, "kick --user alice@a.example", "2 sessions end")
	for _, session := range []*dialog{former, latest} {
		if last := session.ended(); last != "* BYE Session ended by the administrator\r\n" {
			t.Errorf("the client hears %q", last)
		}
	}
	eventually(t, "none is left", func() bool { return obeys(t, d.admin, "sessions") == "no sessions\n" })

	former = d.login("mail.a.example", "alice@a.example")
	d.upgrade()
	obeys(t, d.admin, "drain store --over 0s", "store is drained; sessions there: 1, which end within 0s")
	if last := former.ended(); !strings.HasPrefix(last, "* BYE ") {
		t.Errorf("a client of the drained store hears %q", last)
	}
	d.wantsStatus(t, "mail.a.example", "alice@a.example", unavailable)
	obeys(t, d.admin, "undrain store")
	d.login("mail.a.example", "alice@a.example")
}

// TestFormerKeptOut: who is blocked is kept out by a former process, too, at which his client was before he was known, until he is let in
// again; and so is everybody of a store that is drained.
func TestFormerKeptOut(t *testing.T) {
	t.Parallel()
	for _, way := range []struct{ out, in, want string }{
		{"block alice@a.example", "unblock alice@a.example", "NO [AUTHENTICATIONFAILED]"},
		{"drain store", "undrain store", "NO [UNAVAILABLE]"},
	} {
		d := startDynasty(t)
		early := []*dialog{d.imap("mail.a.example"), d.imap("mail.a.example")}
		d.upgrade()
		obeys(t, d.admin, way.out)
		if _, status := early[0].command("LOGIN alice@a.example " + password); !strings.HasPrefix(status, way.want) {
			t.Errorf("after %s the client hears %q", way.out, status)
		}
		obeys(t, d.admin, way.in)
		early[1].ask("LOGIN alice@a.example " + password)
		early[1].ask("NOOP")
	}
}

// TestAskedWithCurl: the socket answers whoever may open it, by HTTP and JSON.
func TestAskedWithCurl(t *testing.T) {
	t.Parallel()
	d := startDynasty(t)
	session := d.login("mail.a.example", "alice@a.example")
	curl := func(want string, args ...string) {
		t.Helper()
		out, err := exec.Command("curl", append([]string{"-s", "-w", " %{http_code}", "--unix-socket", d.admin}, args...)...).CombinedOutput()
		if !strings.Contains(string(out), want) {
			t.Errorf("curl %q: %v: %s, want %q", args, err, out, want)
		}
	}
	curl(`"user":"alice@a.example"`, "http://jackdaw/sessions?state=relay")
	curl(`{"sessions":[]}`, "http://jackdaw/sessions?service=sieve")
	curl(`"sessions":{"imaps":{"relay":1}}`, "http://jackdaw/status")
	curl("no condition \"colour\"; there are id, user,", "http://jackdaw/sessions?colour=red")
	curl("say which sessions are to end\n 400", "-X", "POST", "http://jackdaw/kick")
	curl(`no backend "nowhere"; valid: store`+"\n 409", "-X", "POST", "http://jackdaw/drain?backend=nowhere")
	curl(`{"kicked":1}`+"\n 200", "-X", "POST", "http://jackdaw/kick?client=127.0.0.1")
	session.ended()
}
