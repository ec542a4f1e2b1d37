package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestSilentClients: 2,000 clients of one address that say nothing have what one address may have, and no more; somebody else logs in.
func TestSilentClients(t *testing.T) {
	t.Parallel()
	store := startDovecot(t, "store1", passwords, "alice@a.example")
	jd := frontend{limits: "exempt = []"}.start(t, store.backend())
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(newHost())}}
	const all, may = 2000, 1000
	var turnedAway atomic.Int32
	for range all {
		conn, err := dialer.Dial("tcp", jd.at(portIMAPS))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			_, err := conn.Read(make([]byte, 1))
			if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
				turnedAway.Add(1)
			}
		}()
	}
	jd.login("mail.a.example", "alice@a.example").ask("NOOP")
	eventually(t, "those who are too many are turned away", func() bool { return turnedAway.Load() == all-may })
	jd.logged(t, "limit reached", `"limit":"sessions_per_client"`)
	if n := jd.count("limit reached"); n > 2 {
		t.Errorf("the log says so %d times", n)
	}
}

// TestSessionsPerUser: a user has so many sessions, whatever the services are; one more is refused in the words of its protocol, and
// only after the right password. When one has ended there is room for another.
func TestSessionsPerUser(t *testing.T) {
	t.Parallel()
	store := startDovecot(t, "store1", passwords, "alice@a.example", "bob@a.example").serving("imap", "pop3", "sieve")
	jd := frontend{limits: "sessions_per_user = 2"}.start(t, store.backend())
	first := jd.login("mail.a.example", "alice@a.example")
	jd.login("mail.a.example", "alice@a.example").ask("NOOP")
	tooMany := answers{"imap": "NO [LIMIT] Too many", "pop3": "-ERR [IN-USE] Too many", "sieve": `NO (TRYLATER) "Too many`}
	for _, service := range []string{"imap", "imaps", "pop3", "pop3s", "sieve"} {
		d := jd.meet(t, client{}.at(service, "mail.a.example"))
		d.wants(tooMany, d.plain("alice@a.example", password))
		d = jd.meet(t, client{}.at(service, "mail.a.example"))
		d.wants(denied, d.plain("alice@a.example", "wrong"))
	}
	if folders := jd.folders(t, "mail.a.example", "bob@a.example"); !strings.Contains(folders, "INBOX") {
		t.Errorf("another user has %q", folders)
	}
	first.conn.Close()
	eventually(t, "there is room", func() bool {
		d := jd.meet(t, client{}.at("imaps", "mail.a.example"))
		defer d.conn.Close()
		return strings.HasPrefix(d.plain("alice@a.example", password), letIn["imap"])
	})
}

// TestFailuresPerClient: who guesses passwords is turned away, and his victim is not, who comes from elsewhere.
func TestFailuresPerClient(t *testing.T) {
	t.Parallel()
	store := startDovecot(t, "store1", passwords, "alice@a.example")
	jd := frontend{limits: "exempt = []\nfailures_per_client = \"5/h\""}.start(t, store.backend())
	guesser := client{from: newHost()}.at("imap", "mail.a.example")
	guess := 0
	eventually(t, "the guesser is turned away", func() bool {
		d := jd.knock(t, guesser)
		defer d.conn.Close()
		if strings.HasPrefix(d.read(), "* BYE [UNAVAILABLE] Too many failed logins") {
			return true
		}
		d = jd.meet(t, guesser)
		defer d.conn.Close()
		guess++
		d.plain("alice@a.example", fmt.Sprint("guess", guess))
		return false
	})
	if guess != 6 {
		t.Errorf("%d passwords were tried", guess)
	}
	jd.login("mail.a.example", "alice@a.example").ask("NOOP")
	jd.logged(t, "limit reached", `"limit":"failures_per_client"`)
}

// TestDenyFile: a network that is written into the file is turned away soon, and still is when the file is gone.
func TestDenyFile(t *testing.T) {
	t.Parallel()
	store := startDovecot(t, "store1", passwords, "alice@a.example")
	file := filepath.Join(t.TempDir(), "denied")
	write(t, file, "# nobody\n")
	jd := frontend{limits: fmt.Sprintf("deny_file = %q", file)}.start(t, store.backend())
	spammer := client{from: newHost()}.at("imap", "mail.a.example")
	told := func(beginning string) bool {
		d := jd.knock(t, spammer)
		defer d.conn.Close()
		return strings.HasPrefix(d.read(), beginning)
	}
	if !told("* OK") {
		t.Error("not greeted at first")
	}
	write(t, file, spammer.from+"\n")
	eventually(t, "the spammer is turned away", func() bool { return told("* BYE Connections from your network are refused") })
	jd.login("mail.a.example", "alice@a.example").ask("NOOP")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is noticed that the file is gone", func() bool {
		if !told("* BYE Connections from your network are refused") {
			t.Fatal("the spammer is let in because the file is gone")
		}
		return jd.count("the networks to deny stay as they were") == 1
	})
}
