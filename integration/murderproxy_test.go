package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// lookup is a configuration in which the Murder places everybody.
func (m *murder) lookup(copy string) string {
	return fmt.Sprintf(`
[directory.murder]
kind = "mupdate"
server = %q
user = %q
password = %q
copy = %q
[[route]]
lookup = "murder"
`, m.at(portMUPDATE), proxyUser, proxyPassword, copy)
}

// TestMurderBehindProxy: in front of a Cyrus Murder, without a frontend of Cyrus's own, users of both stores read, keep their
// scripts and get their mail; one who is moved is followed, and all of it goes on with the master dead.
func TestMurderBehindProxy(t *testing.T) {
	t.Parallel()
	m := startMurder(t)
	one, two := m.stores[0].serving("imap", "sieve", "lmtp"), m.stores[1].serving("imap", "sieve", "lmtp")
	delivers := fmt.Sprintf("login_user = %q\nlogin_password = %q\n", lmtpUser, proxyPassword)
	jd := startJackdaw(t, one.backend(delivers), two.backend(delivers), m.lookup(filepath.Join(t.TempDir(), "murder")))
	jd.knows(one, two)

	// lives uses every service as a user, and wants all of them to be at one store.
	lives := func(user string, at *store) {
		t.Helper()
		d := jd.meet(t, client{}.at("imaps", "mail.a.example"))
		d.wants(letIn, d.plain(user+"@"+cyrusDomain, password))
		before := d.ask("STATUS INBOX (MESSAGES)")
		lmtp := jd.meet(t, client{}.at("lmtp", "mail.a.example"))
		verdicts(t, lmtp.deliver("For "+user, "somebody@elsewhere.example", user+"@"+cyrusDomain), "250 ")
		lmtp.conn.Close()
		eventually(t, "mail for "+user, func() bool { return d.ask("STATUS INBOX (MESSAGES)") != before })
		d.conn.Close()
		s := jd.meet(t, client{}.at("sieve", "mail.a.example"))
		s.wants(letIn, s.plain(user+"@"+cyrusDomain, password))
		s.send(`PUTSCRIPT "mine" "keep;"`)
		s.until("OK")
		s.conn.Close()
		for _, service := range []string{"imaps", "sieve"} {
			jd.logged(t, `"msg":"login"`, fmt.Sprintf(`"service":%q`, service), fmt.Sprintf(`"user":%q`, user+"@"+cyrusDomain), fmt.Sprintf(`"backend":%q`, at.name))
		}
	}
	eventually(t, "the list of the Murder", func() bool {
		d := jd.meet(t, client{}.at("imaps", "mail.a.example"))
		defer d.conn.Close()
		return strings.HasPrefix(d.plain("anna@"+cyrusDomain, password), letIn["imap"])
	})
	lives("anna", one)
	lives("carol", two)

	first, second := m.admin(t, 0), m.admin(t, 1)
	first.ask("SETACL user/anna cyrus lrswipkxtecda")
	first.ask("DELETE user/anna")
	second.ask("CREATE user/anna")
	eventually(t, "anna is followed", func() bool {
		d := jd.meet(t, client{}.at("imaps", "mail.a.example"))
		defer d.conn.Close()
		d.plain("anna@"+cyrusDomain, password)
		return jd.count(`"msg":"login"`, `"user":"anna@cyrus.example"`, `"backend":"store2"`) > 0
	})
	lives("anna", two)
	m.fail(t)
	lives("carol", two)
	lives("anna", two)
}
