package integration

import (
	"fmt"
	"strings"
	"testing"
)

// TestPolicies: each name has its own terms, whatever other names have: which TLS, which services, and who is asked for a
// certificate and may log in by it.
func TestPolicies(t *testing.T) {
	t.Parallel()
	store := startDovecot(t, "store1", passwords, "alice@b.example")
	people := newIssuers(t)
	jd := frontend{tls: fmt.Sprintf(policies, people.file)}.start(t,
		store.serving("imap", "pop3", "sieve").backend(onWord("authzid")))
	for _, tt := range []struct{ service, name, version, alert string }{
		{"imaps", "mail.a.example", "-tls1_3", ""},
		{"imaps", "mail.a.example", "-tls1_2", protocolVersion},
		{"imaps", "MAIL.A.EXAMPLE", "-tls1_2", protocolVersion},
		{"sieve", "mail.a.example", "-tls1_3", ""},
		{"sieve", "mail.a.example", "-tls1_2", protocolVersion},
		{"imaps", "", "-tls1_3", ""}, // is under the terms of the default
		{"imaps", "", "-tls1_2", protocolVersion},
		{"imaps", "mail.elsewhere.example", "-tls1_2", protocolVersion},
		{"pop3s", "mail.a.example", "-tls1_3", unrecognizedName},
		{"imap", "mail.a.example", "-tls1_3", unrecognizedName},
		{"imaps", "mail.b.example", "-tls1_2", ""},
		{"sieve", "mail.b.example", "-tls1_2", ""},
		{"pop3", "mail.b.example", "-tls1_3", ""},
		{"pop3s", "mail.c.example", "-tls1_2", ""},
		{"imap", "mail.c.example", "-tls1_3", ""},
	} {
		said, err := jd.openssl(t, tt.service, tt.name, "", tt.version)
		if ok := err == nil; ok != (tt.alert == "") || !strings.Contains(said, tt.alert) {
			t.Errorf("%s for %q with %s: openssl ends with %v:\n%s", tt.service, tt.name, tt.version, err, said)
		}
	}
	for _, service := range []string{"imaps", "imap", "pop3", "sieve"} {
		for _, name := range []string{"mail.b.example", "mail.c.example"} {
			c := client{cert: people.cert("alice@b.example")}.at(service, name)
			d, want := jd.meet(t, c), letIn
			if name == "mail.c.example" {
				want = unknownYet
			}
			d.wants(want, d.auth("EXTERNAL", ""))
		}
		jd.turnedAway(t, client{cert: newIssuers(t).cert("alice@b.example")}.at(service, "mail.b.example"))
	}
}

// Alerts as openssl writes them (RFC 8446 section 6).
const (
	protocolVersion  = "alert number 70"
	unrecognizedName = "alert number 112"
)

const policies = `
[[tls.policy]]
sni = "mail.a.example"
min_version = "1.3"
services = ["imaps", "sieve"]
[[tls.policy]]
sni = "mail.b.*"
client_ca = %q
`
