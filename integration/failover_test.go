package integration

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// closes returns a host where a store's ports are open, and whoever comes is sent away without a word.
func closes(t testing.TB, services ...string) string {
	t.Helper()
	host := newHost()
	for _, service := range services {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, ports()[service]))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
	}
	return host
}

// backendBy is backend with several ways to the store.
func (s *store) backendBy(hosts []string, lines ...string) string {
	services := s.services
	for _, service := range services {
		var ways []string
		for _, host := range hosts {
			ways = append(ways, fmt.Sprintf("%q", net.JoinHostPort(host, ports()[service])))
		}
		lines = append(lines, fmt.Sprintf("%s = [%s]", service, strings.Join(ways, ", ")))
	}
	return s.named(s.name).backend(lines...)
}

// visit does with a service what it is for, as alice.
func (jd *jackdaw) visit(t testing.TB, service string) {
	t.Helper()
	d := jd.meet(t, client{}.at(service, "mail.a.example"))
	if service != "lmtp" {
		d.wants(letIn, d.plain("alice", password))
	}
	d.use("By " + service)
	d.conn.Close()
}

// TestFailOver: of several ways to a store the first that leads there is taken, for every service. When it leads there no more,
// the next one is, and no client notices.
func TestFailOver(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example").serving("imap", "pop3", "sieve", "lmtp")
	mta := postfix{sasl: dovecotSASL(dovecot)}.start(t, "mta")
	box, boxTap := dovecot.tapped(t)
	sends, sendsTap := mta.tapped(t)
	down, silent := newHost(), closes(t, "imap", "pop3", "sieve", "lmtp", "submission")
	jd := startJackdaw(t, dovecot.backendBy([]string{down, silent, box.host, dovecot.host}, fmt.Sprintf("submission = [%q, %q, %q, %q]",
		net.JoinHostPort(down, portSubmission), net.JoinHostPort(silent, portSubmission), sends.submission(), mta.submission())))
	for _, ways := range []map[string]*store{{"mail": box, "submission": sends}, {"mail": dovecot, "submission": mta}} {
		for _, service := range append(loginServices, "lmtp") {
			jd.visit(t, service)
			way := ways["mail"]
			if protocol(service) == "submission" {
				way = ways["submission"]
			}
			jd.logged(t, `"session":`, `"service":"`+service+`"`, `"address":"`+way.at(ports()[protocol(service)])+`"`)
		}
		boxTap.close()
		sendsTap.close()
	}
}

// TestSource: jackdaw comes to every store from the addresses that it was given, in turn.
func TestSource(t *testing.T) {
	t.Parallel()
	sources := []string{newHost(), newHost()}
	dovecot := dovecot{extra: crowd}.start(t, "store1", "alice@a.example").serving("imap", "pop3", "sieve", "lmtp")
	mta := postfix{sasl: dovecotSASL(dovecot)}.start(t, "mta")
	jd := startJackdaw(t, dovecot.backend(mta.as("submission"), fmt.Sprintf("source = [%q, %q]", sources[0], sources[1])))
	for range 3 { // in between, jackdaw comes on its own behalf
		for _, service := range []string{"imap", "pop3", "submission", "sieve", "lmtp"} {
			jd.visit(t, service)
		}
	}
	for _, source := range sources {
		for _, service := range []string{"imap", "pop3", "sieve"} {
			dovecot.logged(t, dovecotLogs[service], "user=<alice@a.example>", "rip="+source+",")
		}
		dovecot.logged(t, "lmtp(", "Connect from "+source)
		mta.logged(t, "client=unknown["+source+"]", "sasl_username=alice@a.example")
	}
	for _, s := range []*store{dovecot, mta} {
		if n := s.count("jackdaw-self-test") - s.count("jackdaw-self-test", sources[0]) - s.count("jackdaw-self-test", sources[1]); n > 0 {
			t.Errorf("on its own behalf jackdaw came to %s from elsewhere:\n%s", s.name, s.Log())
		}
	}
}
