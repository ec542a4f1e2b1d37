package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// exchange goes through a mechanism of several messages: say answers each challenge. It returns how the server ends it.
func (d *dialog) exchange(mechanism, first string, say func(challenge string) string) string {
	d.t.Helper()
	switch d.protocol {
	case "imap":
		d.send("x AUTHENTICATE " + mechanism + " " + encode(first))
	case "sieve":
		d.send(fmt.Sprintf("AUTHENTICATE %q %q", mechanism, encode(first)))
	default:
		d.send("AUTH " + mechanism + " " + encode(first))
	}
	for {
		line := d.read()
		challenge, ok := d.challenge(line)
		switch {
		case !ok:
			return strings.TrimPrefix(line, "x ")
		case d.protocol == "sieve":
			d.send(fmt.Sprintf("%q", encode(say(challenge))))
		default:
			d.send(encode(say(challenge)))
		}
	}
}

// challenge reads a line as one of SASL's, if it is one.
func (d *dialog) challenge(line string) (challenge string, ok bool) {
	d.t.Helper()
	switch d.protocol {
	case "sieve":
		if ok = strings.HasPrefix(line, `"`) || strings.HasPrefix(line, "{"); ok {
			line = d.stringFrom(line)
		}
	case "submission":
		line, ok = strings.CutPrefix(line, "334 ")
	default:
		line, ok = strings.CutPrefix(line, "+ ")
	}
	if !ok {
		return "", false
	}
	return decode(d.t, line), true
}

// scram logs in without giving the password away, and wants the server to prove that it knows it, too.
func (d *dialog) scram(user, password string) string {
	d.t.Helper()
	client, proved := &scram{user: user, password: password}, false
	end := d.exchange("SCRAM-SHA-256", client.first(), func(challenge string) string {
		if strings.HasPrefix(challenge, "r=") {
			return client.final(d.t, challenge)
		}
		client.verify(d.t, challenge)
		proved = true
		return ""
	})
	if in := strings.HasPrefix(end, letIn[d.protocol]); in != proved {
		d.t.Errorf("%s: the server has proved itself: %v, and ends with %q", d.protocol, proved, end)
	}
	return end
}

// TestScramWithDovecot: where a real Dovecot knows the passwords, SCRAM is with its auth service, and the stores take jackdaw's word.
// When it is down SCRAM is offered no more, and when a store wants the password, it never is.
func TestScramWithDovecot(t *testing.T) {
	t.Parallel()
	const alice = "alice@a.example"
	dovecot := startDovecot(t, "store1", passwords, alice)
	users := startDovecot(t, "users", passwords, alice)
	master := fmt.Sprintf("login = \"master\"\nlogin_user = %q\nlogin_password = %q", proxyUser, proxyPassword)
	auth := fmt.Sprintf("[auth]\nverify = \"dovecot\"\nsocket = %q\ntimeout = \"10s\"\n", askDovecot(t, users).Socket)
	jd := startJackdaw(t, dovecot.backend(dovecot.as("pop3"), dovecot.as("submission"), master), auth)
	jd.knows(dovecot)
	offered := func(want bool) {
		t.Helper()
		eventually(t, fmt.Sprintf("SCRAM is offered: %v", want), func() bool {
			return strings.Contains(jd.imap("mail.a.example").ask("CAPABILITY"), "AUTH=SCRAM-SHA-256") == want
		})
	}
	offered(true)
	for _, service := range []string{"imaps", "pop3", "submission", "sieve"} {
		enter := func(user, secret string, want answers) *dialog {
			d := jd.meet(t, client{}.at(service, "mail.a.example"))
			d.wants(want, d.scram(user, secret))
			return d
		}
		enter(alice, password, letIn)
		enter(alice, "wrong", denied)
		enter("nobody@a.example", password, denied)
		enter("alice", password, denied) // which is not how Dovecot would know her
	}
	users.kill()
	d := jd.imap("mail.a.example")
	if _, status := d.command("LOGIN alice " + password); !strings.HasPrefix(status, unavailable) {
		t.Errorf("without a verifier a login is told %q", status)
	}
	offered(false)
	users.restart()
	offered(true)
	jd.reload(dovecot.backend(), auth)
	offered(false)
}

// TestScramWithDirectory: keys that Dovecot has made let their users log in by SCRAM and by PLAIN, and passwords in the clear do.
func TestScramWithDirectory(t *testing.T) {
	t.Parallel()
	const alice, bob, carol = "alice@a.example", "bob@a.example", "carol@a.example"
	dovecot := startDovecot(t, "store1", passwords, alice, bob, carol)
	accounts := filepath.Join(t.TempDir(), "accounts")
	made := strings.TrimSpace(tool(t, "", "doveadm", "pw", "-s", "SCRAM-SHA-256", "-p", password))
	write(t, accounts, fmt.Sprintf("%s store1 password=%s\n%s store1 password={PLAIN}%s\n%s store1 password={SHA}AAAA only=pop3\n",
		alice, made, bob, password, carol))
	jd := startJackdaw(t, dovecot.backend(dovecot.as("pop3"), dovecot.as("submission"),
		fmt.Sprintf("login = \"master\"\nlogin_user = %q\nlogin_password = %q", proxyUser, proxyPassword)),
		fmt.Sprintf("[auth]\nverify = \"directory\"\nscram = [\"SCRAM-SHA-256\"]\n[directory.accounts]\nkind = \"file\"\npath = %q\n"+
			"[[route]]\nlookup = \"accounts\"\n", accounts))
	jd.knows(dovecot)
	for _, service := range []string{"imaps", "pop3", "submission", "sieve"} {
		for _, tt := range []struct {
			user, secret string
			want         answers
		}{
			{alice, password, letIn}, {alice, "wrong", denied}, {bob, password, letIn}, {bob, "wrong", denied}, {"bob", password, letIn},
			{carol, password, denied}, {"nobody@a.example", password, denied},
		} {
			d := jd.meet(t, client{}.at(service, "mail.a.example"))
			d.wants(tt.want, d.scram(tt.user, tt.secret))
		}
		d := jd.meet(t, client{}.at(service, "mail.a.example"))
		d.wants(denied, d.plain(alice, "wrong"))
		d.wants(letIn, d.plain(alice, password))
	}
	jd.logged(t, "carol@a.example", "no use for this mechanism")
}
