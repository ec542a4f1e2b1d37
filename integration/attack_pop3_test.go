package integration

import (
	"regexp"
	"strings"
	"testing"
)

// TestInjectionByPASS: a store without SASL PLAIN is told name and password as they are, each at the end of a line. What
// comes by AUTH may hold whatever ends one; nginx once wrote it on.
func TestInjectionByPASS(t *testing.T) {
	t.Parallel()
	cyrus := cyrusKind{extra: "pop3_sasl_mech_list: SCRAM-SHA-256\n"}.start(t, "store1", "carol", "dave")
	cyrus.seed(t, "carol")
	box, tap := cyrus.serving("pop3").tapped(t)
	jd := frontend{listen: inClear}.start(t, box.backend())
	type login struct{ authzid, user, password string }
	var all []*dialog
	for _, a := range []login{
		{"", "carol", password + "\r\nDELE 1\r\nQUIT"},
		{"", "carol", password + "\nDELE 1\nQUIT"},
		{"", "carol", password + "\rDELE 1\rQUIT"},
		{"", "carol\r\nPASS " + password + "\r\nDELE 1\r\nQUIT", "x"},
		{"", "carol\nPASS " + password + "\nDELE 1\nQUIT", "x"},
		{"", "carol\u2028PASS " + password, "x"},
		{"", "carol\u0085PASS " + password, "x"},
		{"", "carol PASS", password},
		{"carol\r\nDELE 1", "carol", password},
		{"carol", "dave", password},
	} {
		for _, line := range []string{
			"AUTH PLAIN " + encode(a.authzid+"\x00"+a.user+"\x00"+a.password),
			"AUTH LOGIN\r\n" + encode(a.user) + "\r\n" + encode(a.password),
		} {
			if strings.HasPrefix(line, "AUTH LOGIN") && a.authzid != "" {
				continue
			}
			d := jd.knock(t, client{service: "pop3"})
			d.greeting()
			d.send(line)
			d.send("QUIT")
			all = append(all, d)
		}
	}
	for _, d := range all {
		if said := d.ended(); strings.Contains(said, "Logged in") {
			t.Errorf("somebody hears %q", said)
		}
	}

	d := jd.knock(t, client{service: "pop3"})
	d.greeting()
	d.wants(letIn, d.plain("carol", password))
	d.isAt(cyrus, "carol")
	d.send("QUIT")
	d.ended()
	lines := regexp.MustCompile(`^(CAPA|USER [a-z-]+|PASS [A-Za-z0-9-]+|TOP 1 0|QUIT|)$`)
	for line := range strings.Lines(strings.ReplaceAll(tap.told("pop3"), "\r\n", "\n")) {
		if !lines.MatchString(strings.TrimSuffix(line, "\n")) {
			t.Errorf("the store was told %q", line)
		}
	}
}
