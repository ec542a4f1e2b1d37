package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// farm is a configuration with a pool of these stores, to which everybody goes.
func farm(lines string, stores ...*store) string {
	var parts, names []string
	for _, s := range stores {
		parts, names = append(parts, s.backend()), append(names, fmt.Sprintf("%q", s.name))
	}
	return strings.Join(parts, "\n") + fmt.Sprintf("\n[[pool]]\nname = \"farm\"\nmembers = [%s]\n%s\n[[route]]\nto = \"farm\"\n",
		strings.Join(names, ", "), lines)
}

// memberOf says at which of the stores a client is that is logged in by IMAP, by the folder that is there alone.
func (d *dialog) memberOf(stores ...*store) *store {
	d.t.Helper()
	list := d.ask(`LIST "" "*"`)
	for _, s := range stores {
		if strings.Contains(list, s.folder()) {
			return s
		}
	}
	d.t.Fatalf("at none of the stores: %q", list)
	return nil
}

// TestPool: every service brings a user to the same member; when that dies his session ends, and he comes to the other one and
// stays there; when it is back he returns as soon as he has let go for a while.
func TestPool(t *testing.T) {
	t.Parallel()
	const user = "alice@a.example"
	one := startDovecot(t, "store1", passwords, user).serving("imap", "sieve", "lmtp")
	two := startDovecot(t, "store2", passwords, user).serving("imap", "sieve", "lmtp")
	jd := startJackdaw(t, farm(`sticky = "1s"`, one, two))
	jd.knows(one, two)

	d := jd.login("mail.a.example", user)
	first := d.memberOf(one, two)
	second := map[*store]*store{one: two, two: one}[first]
	before := d.ask("STATUS INBOX (MESSAGES)")
	jd.visit(t, "lmtp")
	if after := d.ask("STATUS INBOX (MESSAGES)"); after == before {
		t.Errorf("what came by LMTP is not at %s: %q", first.name, after)
	}
	s := jd.sieve("mail.a.example")
	s.send(`AUTHENTICATE "PLAIN" "` + encode("\x00"+user+"\x00"+password) + `"`)
	s.until("OK")
	jd.logged(t, `"msg":"login"`, `"service":"sieve"`, fmt.Sprintf(`"backend":%q`, first.name))

	first.fail(t)
	d.ended()
	next := func(want *store, pause time.Duration) *dialog {
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(pause) {
			d := jd.imap("mail.a.example")
			if _, status := d.command("LOGIN " + user + " " + password); strings.HasPrefix(status, "OK") {
				if d.memberOf(one, two) == want {
					return d
				}
			}
			d.conn.Close()
			if time.Now().After(end) {
				t.Fatalf("did not come to %s", want.name)
			}
		}
	}
	d = next(second, 100*time.Millisecond)
	first.restart()
	jd.logged(t, "store is back", fmt.Sprintf(`"backend":%q`, first.name), `"protocol":"imap"`)
	for range 3 {
		again := jd.login("mail.a.example", user)
		if again.memberOf(one, two) != second {
			t.Error("moved while a session is on the other member")
		}
		again.conn.Close()
	}
	d.conn.Close()
	next(first, 1100*time.Millisecond) // each visit holds the place for a second more
}

// TestPoolWaits: with on_failure = "fail" a user waits for his member, and hears that it is not his fault.
func TestPoolWaits(t *testing.T) {
	t.Parallel()
	const user = "alice@a.example"
	one := startDovecot(t, "store1", passwords, user).serving("imap")
	two := startDovecot(t, "store2", passwords, user).serving("imap")
	jd := startJackdaw(t, farm(`on_failure = "fail"`, one, two))
	jd.knows(one, two)
	d := jd.login("mail.a.example", user)
	first := d.memberOf(one, two)
	d.conn.Close()
	first.fail(t)
	for range 2 {
		d := jd.imap("mail.a.example")
		if _, status := d.command("LOGIN " + user + " " + password); !strings.HasPrefix(status, "NO [UNAVAILABLE]") {
			t.Errorf("got %q", status)
		}
		d.conn.Close()
	}
	first.restart()
	jd.logged(t, "store is back", fmt.Sprintf(`"backend":%q`, first.name))
	if d := jd.login("mail.a.example", user); d.memberOf(one, two) != first {
		t.Error("came back to the other member")
	}
}

// TestPoolDelivers: mail for the users of a member that has just died goes to the other one at once, for who brings it need not come
// again.
func TestPoolDelivers(t *testing.T) {
	t.Parallel()
	const user = "alice@a.example"
	one := startDovecot(t, "store1", passwords, user).serving("imap", "lmtp")
	two := startDovecot(t, "store2", passwords, user).serving("imap", "lmtp")
	jd := startJackdaw(t, farm(`sticky = "1m"`, one, two))
	jd.knows(one, two)
	d := jd.login("mail.a.example", user)
	first := d.memberOf(one, two)
	second := map[*store]*store{one: two, two: one}[first]
	d.conn.Close()
	courier := jd.courier(t)
	for _, s := range []*store{first, second} {
		if s == second {
			first.fail(t)
		}
		if got := courier.deliver("To "+s.name, "bob@b.example", user); len(got) != 1 || !strings.HasPrefix(got[0], "250") {
			t.Fatalf("%s: %q", s.name, got)
		}
		jd.logged(t, `"msg":"delivery"`, fmt.Sprintf(`"backend":%q`, s.name), user)
	}
	if d = jd.login("mail.a.example", user); d.memberOf(one, two) != second {
		t.Error("the user is elsewhere than the mail")
	}
	d.ask("SELECT INBOX")
	if got := d.ask("FETCH 1:* BODY.PEEK[HEADER]"); !strings.Contains(got, "To "+second.name) || strings.Contains(got, "To "+first.name) {
		t.Errorf("at %s: %q", second.name, got)
	}
}

// TestPoolDeliversApart: users whose member dies may belong to several others. Of one message those get it at once who belong where
// its first recipient does, the others when it comes again, and nobody gets it twice or elsewhere.
func TestPoolDeliversApart(t *testing.T) {
	t.Parallel()
	var users []string
	for i := range 24 {
		users = append(users, fmt.Sprintf("user%d@a.example", i))
	}
	var stores []*store
	for _, name := range []string{"store1", "store2", "store3"} {
		stores = append(stores, startDovecot(t, name, passwords, users...).serving("imap", "lmtp"))
	}
	jd := startJackdaw(t, farm(`sticky = "1m"`, stores...))
	jd.knows(stores...)
	at := func(user string) *store {
		d := jd.login("mail.a.example", user)
		defer d.conn.Close()
		return d.memberOf(stores...)
	}
	first := at(users[0])
	var mates []string
	for _, user := range users {
		if at(user) == first {
			mates = append(mates, user)
		}
	}
	first.fail(t)
	courier := jd.courier(t)
	courier.write("MAIL FROM:<bob@b.example>\r\nRCPT TO:<" + strings.Join(mates, ">\r\nRCPT TO:<") + ">\r\n") // all at once
	courier.expect("250 ")
	var late []string
	for _, user := range mates {
		switch answer := courier.reply(); {
		case strings.HasPrefix(answer, "451 4.4.1"):
			late = append(late, user)
		case !strings.HasPrefix(answer, "250 "):
			t.Errorf("%s: %q", user, answer)
		}
	}
	verdicts := []string{courier.data("For all")}
	for range len(mates) - len(late) - 1 {
		verdicts = append(verdicts, courier.reply())
	}
	for _, verdict := range verdicts {
		if !strings.HasPrefix(verdict, "250 ") {
			t.Errorf("the message: %q", verdict)
		}
	}
	if len(late) == len(mates) {
		t.Fatalf("of %q none got the message", mates)
	}
	if len(late) > 0 { // the store was not found dead before all recipients were known
		for i, answer := range courier.deliver("For all", "bob@b.example", late...) {
			if !strings.HasPrefix(answer, "250 ") {
				t.Errorf("%s, again: %q", late[i], answer)
			}
		}
	}
	for _, user := range mates {
		home := at(user)
		for _, s := range stores {
			want := 0
			if s == home {
				want = 1
			}
			if s != first && s.found(t, user, "INBOX", "For all") != want {
				t.Errorf("%s has not %d messages at %s", user, want, s.name)
			}
		}
	}
}
