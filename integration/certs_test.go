package integration

import (
	"crypto/x509"
	"strings"
	"testing"
)

// TestCertificateByName: openssl sees the certificate of the name that it asks for, on the port for TLS and after STARTTLS.
func TestCertificateByName(t *testing.T) {
	t.Parallel()
	store := startDovecot(t, "store1", passwords)
	jd := startJackdaw(t, store.backend())
	for _, port := range []struct{ number, startTLS string }{
		{portIMAPS, ""},
		{portIMAP, "imap"},
		{portSieve, "sieve"},
	} {
		for _, name := range []string{"mail.a.example", "MAIL.B.EXAMPLE"} {
			cert := opensslPeer(t, jd.at(port.number), jd.caFile(), name, port.startTLS)
			if got, want := cert.DNSNames[0], strings.ToLower(name); got != want {
				t.Errorf("port %s, asked for %s, shows the certificate of %s", port.number, name, got)
			}
		}
	}
}

// TestRenewal: a renewed certificate is shown to whoever comes next, and who is there already notices nothing.
func TestRenewal(t *testing.T) {
	t.Parallel()
	store := startDovecot(t, "store1", passwords, "alice@a.example")
	jd := startJackdaw(t, store.backend())

	before := jd.login("mail.a.example", "alice")
	before.ask("SELECT INBOX")
	before.send("i IDLE")
	before.expect("+ ")

	renewed := jd.certify("mail.a.example").TLS.Leaf
	eventually(t, "the renewed certificate is shown", func() bool {
		return shown(jd).Equal(renewed)
	})

	jd.login("mail.a.example", "alice").ask("APPEND INBOX {9+}\r\nHello: a\n")
	before.until("* 1 EXISTS")
	before.send("DONE")
	before.until("i OK")
	before.ask("FETCH 1 BODY[]")
}

// shown is the certificate that jackdaw shows now.
func shown(jd *jackdaw) *x509.Certificate {
	return opensslPeer(jd.t, jd.at(portIMAPS), jd.caFile(), "mail.a.example", "")
}
