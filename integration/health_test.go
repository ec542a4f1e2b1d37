package integration

import (
	"path/filepath"
	"strings"
	"testing"
)

// tries logs in by IMAP, and returns what jackdaw says.
func (jd *jackdaw) tries(name, user string) (d *dialog, status string) {
	d = jd.imap(name)
	_, status = d.command("LOGIN " + user + " " + password)
	return d, status
}

// wantsStatus checks what a login is told, and hangs up.
func (jd *jackdaw) wantsStatus(t testing.TB, name, user, want string) {
	t.Helper()
	d, status := jd.tries(name, user)
	d.conn.Close()
	if !strings.HasPrefix(status, want) {
		t.Errorf("%s is told %q, want %q", user, status, want)
	}
}

// TestDeadStore: of several ways one that is dead is left out, and a store that is dead as a whole answers at once, until it is back.
func TestDeadStore(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example").serving("imap")
	tapped, tap := dovecot.tapped(t)
	jd := startJackdaw(t, dovecot.backendBy([]string{tapped.host, dovecot.host}, `health = "1s"`))
	jd.knows(dovecot)
	tap.close()
	jd.logged(t, "way to the store is down", tapped.at(portIMAP))
	jd.login("mail.a.example", "alice").conn.Close()

	dovecot.fail(t)
	jd.logged(t, "store cannot be used", tapped.at(portIMAP), dovecot.at(portIMAP))
	jd.wantsStatus(t, "mail.a.example", "alice", unavailable)
	jd.logged(t, "login failed", "store is down: connecting to ")
	dovecot.restart()
	jd.logged(t, "store is back")
	jd.login("mail.a.example", "alice").conn.Close()
}

// TestMaxSessions: a store gets no more sessions than it may have, and one more as soon as one has ended.
func TestMaxSessions(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example").serving("imap", "lmtp")
	jd := startJackdaw(t, dovecot.backend("max_sessions = 2", "max_logins = 1"))
	first := jd.login("mail.a.example", "alice")
	jd.login("mail.a.example", "alice")
	jd.wantsStatus(t, "mail.a.example", "alice", unavailable)
	jd.logged(t, "login failed", "all the sessions that it may have: 2")
	jd.visit(t, "lmtp")
	first.conn.Close()
	eventually(t, "there is room again", func() bool {
		d, status := jd.tries("mail.a.example", "alice")
		d.conn.Close()
		return strings.HasPrefix(status, "OK")
	})
}

// TestRestartRemembers: a drained store stays drained, and a store that is not there promises what it could do in the last run.
func TestRestartRemembers(t *testing.T) {
	t.Parallel()
	store1 := startDovecot(t, "store1", passwords, "alice@a.example").serving("imap", "lmtp")
	store2 := startDovecot(t, "store2", passwords, "bob@b.example").serving("imap", "lmtp")
	jd := startJackdaw(t, twoStores(store1, store2))
	jd.knows(store1, store2)
	before := jd.imap("mail.a.example").ask("CAPABILITY")
	store1.fail(t)
	store2.fail(t)
	write(t, filepath.Join(jd.dir, "state", "drained.json"), `["store1"]`)
	jd.again()
	if after := jd.imap("mail.a.example").ask("CAPABILITY"); after != before {
		t.Errorf("promised is %q, and was %q", after, before)
	}
	jd.logged(t, "backend is drained", "store1")
	store1.restart()
	store2.restart()
	jd.knows(store1, store2)
	jd.wantsStatus(t, "mail.a.example", "alice@a.example", unavailable)
	jd.logged(t, "login failed", "store1: backend is drained")
	eventually(t, "bob is in", func() bool {
		d, status := jd.tries("mail.b.example", "bob@b.example")
		d.conn.Close()
		return strings.HasPrefix(status, "OK")
	})
}
