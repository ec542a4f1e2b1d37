package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// TestPoolMovesOnlyTheDead: when a member dies, who is on the other one notices nothing; when it is back, its users return, and
// again nobody else moves.
func TestPoolMovesOnlyTheDead(t *testing.T) {
	t.Parallel()
	var users []string
	for i := range 4 { // by their names' hash on both members
		users = append(users, fmt.Sprintf("user%d@a.example", i))
	}
	one := startDovecot(t, "store1", passwords, users...).serving("imap")
	two := startDovecot(t, "store2", passwords, users...).serving("imap")
	jd := startJackdaw(t, farm(`sticky = "1s"`, one, two))
	jd.knows(one, two)
	members, dialogs := make(map[string]*store), make(map[string]*dialog)
	for _, user := range users {
		dialogs[user] = jd.login("mail.a.example", user)
		members[user] = dialogs[user].memberOf(one, two)
	}
	one.fail(t)
	moved := 0
	for _, user := range users {
		if members[user] == two {
			continue
		}
		moved++
		dialogs[user].ended()
		eventually(t, user+" is on the other member", func() bool {
			d, status := jd.tries("mail.a.example", user)
			defer d.conn.Close()
			return strings.HasPrefix(status, "OK") && d.memberOf(one, two) == two
		})
	}
	if moved == 0 || moved == len(users) {
		t.Fatalf("%d of %d users were on the member that died", moved, len(users))
	}
	one.restart()
	jd.logged(t, "store is back", `"backend":"store1"`)
	for _, user := range users {
		if members[user] == one {
			eventually(t, user+" is back", func() bool {
				time.Sleep(1100 * time.Millisecond) // each visit holds the place for a second more
				d := jd.login("mail.a.example", user)
				defer d.conn.Close()
				return d.memberOf(one, two) == one
			})
		}
	}
	for user, d := range dialogs {
		if members[user] == two {
			d.ask("NOOP")
		}
	}
}
