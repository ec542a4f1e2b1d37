package integration

import (
	"fmt"
	"strings"
	"testing"
)

// everything is a Dovecot for a.example and a Cyrus for b.example, a Postfix that sends for the users of both and brings them
// their mail, and a jackdaw in front of all three.
type everything struct {
	*jackdaw
	dovecot, cyrus, postfix *store
}

func startEverything(t testing.TB) everything {
	t.Helper()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example", "bob@b.example")
	cyrus := startCyrus(t, "store2", "bob@b.example")
	socket := newSocket(t)
	mta := postfix{sasl: dovecotSASL(dovecot), lmtp: "unix:" + socket}.start(t, "mta")
	dovecot.serving("imap", "pop3", "sieve", "lmtp")
	cyrus.serving("imap", "pop3", "sieve")
	jd := frontend{socket: socket}.start(t,
		dovecot.backend(mta.as("submission")), domainTo("a.example", dovecot),
		cyrus.backend(mta.as("submission"), fmt.Sprintf("lmtp = %q", "unix:"+cyrus.lmtpSocket())), domainTo("b.example", cyrus))
	return everything{jd, dovecot, cyrus, mta}
}

// users of everything, by the names of their servers.
var users = map[string]string{"mail.a.example": "alice@a.example", "mail.b.example": "bob@b.example"}

// TestAllServices: one jackdaw serves two domains by eight services, each with the certificate of the name asked for, and what
// alice sends to bob goes through it three times: out, in, and to whoever reads it.
func TestAllServices(t *testing.T) {
	t.Parallel()
	all := startEverything(t)
	for _, service := range append(loginServices, "lmtp") {
		for name, user := range users {
			t.Run(service+" "+name, func(t *testing.T) {
				t.Parallel()
				all.shows(t, service, name)
				if service == "lmtp" {
					user = ""
				}
				if r := all.probe(t, service, name, user); len(r.Problems) > 0 {
					t.Errorf("jackdaw probe finds %q", r.Problems)
				}
			})
		}
	}
	t.Run("mail", func(t *testing.T) {
		t.Parallel()
		for _, service := range []string{"submission", "submissions"} {
			for name, from := range users {
				subject := service + " " + name
				all.curlAt(t, service, name, from, "", "--mail-from", from, "--mail-rcpt", "alice@a.example",
					"--mail-rcpt", "bob@b.example", "--upload-file", mailFile(t, subject))
			}
		}
		for name, user := range users {
			all.postfix.loggedTimes(t, 4, "to=<"+user+">", "status=sent")
			for _, service := range []string{"pop3", "pop3s"} {
				if list := all.curlAt(t, service, name, user, ""); strings.Count(list, "\n") != 4 {
					t.Errorf("by %s %s has %q", service, user, list)
				}
				if mail := all.curlAt(t, service, name, user, "1"); !strings.Contains(mail, "Subject: submission") {
					t.Errorf("by %s %s has %q", service, user, mail)
				}
			}
			for _, service := range []string{"imap", "imaps"} {
				if mail := all.curlAt(t, service, name, user, "INBOX;MAILINDEX=4"); !strings.Contains(mail, "Subject: submission") {
					t.Errorf("by %s %s has %q", service, user, mail)
				}
			}
		}
	})
}

// shows has openssl find the certificate of a name on the port of a service.
func (jd *jackdaw) shows(t testing.TB, service, name string) {
	t.Helper()
	startTLS := strings.Replace(service, "submission", "smtp", 1)
	if implicit(service) {
		startTLS = ""
	}
	cert := opensslPeer(t, jd.at(ports()[service]), jd.caFile(), name, startTLS)
	if got := cert.DNSNames[0]; got != name {
		t.Errorf("%s, asked for %s, shows the certificate of %s", service, name, got)
	}
}
