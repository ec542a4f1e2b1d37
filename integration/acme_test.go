package integration

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// elsewhere is a backend for those who come only to see certificates.
const elsewhere = "[[backend]]\nname = \"elsewhere\"\nimap = \"127.0.0.1:1\"\n"

// orders is a table [acme]; a way to answer challenges is among the lines.
func (a *authority) orders(cache, names string, lines ...string) string {
	return fmt.Sprintf("[acme]\ndirectory = \"https://%s/dir\"\nca = %q\ncache = %q\nnames = [%s]\n%s\n",
		a.at(portACME), a.caFile(), cache, names, strings.Join(lines, "\n"))
}

// The ways to answer challenges, as lines of that table.
func byHTTP(host string) string { return fmt.Sprintf("http = %q", net.JoinHostPort(host, portHTTP)) }
func byTLSALPN(host string) string {
	return fmt.Sprintf("tls_alpn = %q", net.JoinHostPort(host, portTLSALPN))
}

// newCache is a directory for jackdaw to make.
func newCache(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "acme")
}

// shownBy is the certificate that a client sees who trusts these roots alone, and asks for a name; nil if he would not go on.
func (jd *jackdaw) shownBy(roots *x509.CertPool, name string) *x509.Certificate {
	conn, err := tls.Dial("tcp", jd.at(portIMAPS), &tls.Config{ServerName: name, RootCAs: roots})
	if err != nil {
		return nil
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

// certified waits until a client sees a certificate for a name that has been ordered.
func (jd *jackdaw) certified(roots *x509.CertPool, name string) (cert *x509.Certificate) {
	jd.t.Helper()
	eventually(jd.t, "the authority's certificate for "+name, func() bool {
		cert = jd.shownBy(roots, name)
		return cert != nil
	})
	return cert
}

// again ends jackdaw, and starts it with the same configuration.
func (jd *jackdaw) again() {
	jd.t.Helper()
	if err := jd.stop(); err != nil {
		jd.t.Errorf("jackdaw ended badly: %v", err)
	}
	jd.process = startProcess(jd.t, filepath.Join(jd.dir, "log2"), exec.Command(built(jd.t), "serve", "-c", jd.file))
	jd.t.Cleanup(func() { _ = jd.stop() }) // before it is killed; how it ends is looked at where it was started first
	jd.answers(jd.t, "tcp", jd.at(portIMAPS))
}

// TestACME: a name for which there is no file is served, by either challenge; one with a file is left to the file; and who
// starts again needs nobody.
func TestACME(t *testing.T) {
	t.Parallel()
	for about, way := range map[string]func(host string) string{"http": byHTTP, "tls_alpn": byTLSALPN} {
		t.Run(about, func(t *testing.T) {
			t.Parallel()
			host := newHost()
			ca := pebble{}.start(t, host)
			store := startDovecot(t, "store1", passwords, "alice@acme.example")
			jd := startJackdaw(t, store.backend(),
				ca.orders(newCache(t), `"mail.a.example", "mail.acme.example"`, way(host)))
			roots := ca.roots()
			issued := jd.certified(roots, "mail.acme.example")
			if jd.shownBy(jd.ca.Pool(), "mail.a.example") == nil {
				t.Error("the file is not shown")
			}

			ca.kill()
			jd.again()
			d := dialTLS(t, jd.at(portIMAPS), &tls.Config{ServerName: "mail.acme.example", RootCAs: roots})
			d.expect("* OK ")
			d.ask("LOGIN alice " + password)
			if !jd.certified(roots, "mail.acme.example").Equal(issued) {
				t.Error("another certificate is shown")
			}
			if log := jd.Log(); strings.Contains(log, "ordered") {
				t.Error("after the restart something was ordered")
			}
		})
	}
}

// TestACMERenewal: a certificate that will expire soon is replaced, and who is logged in notices nothing.
func TestACMERenewal(t *testing.T) {
	t.Parallel()
	host := newHost()
	ca := pebble{lifetime: 15 * time.Second}.start(t, host)
	store := startDovecot(t, "store1", passwords, "alice@acme.example")
	jd := startJackdaw(t, store.backend(), ca.orders(newCache(t), `"mail.acme.example"`, byHTTP(host)))
	roots := ca.roots()
	first := jd.certified(roots, "mail.acme.example")
	d := dialTLS(t, jd.at(portIMAPS), &tls.Config{ServerName: "mail.acme.example", RootCAs: roots})
	d.expect("* OK ")
	d.ask("LOGIN alice " + password)
	for range 2 {
		eventually(t, "the next certificate", func() bool {
			next := jd.shownBy(roots, "mail.acme.example")
			return next != nil && !next.Equal(first)
		})
		first = jd.certified(roots, "mail.acme.example")
	}
	d.ask("NOOP")
}

// TestACMEFailure: why there is no certificate stands in the log, with the authority's words; who has put it right, and says
// so, need not wait.
func TestACMEFailure(t *testing.T) {
	t.Parallel()
	host, wrong := newHost(), newHost()
	ca := pebble{}.start(t, wrong)
	cache := newCache(t)
	jd := startJackdaw(t, elsewhere, ca.orders(cache, `"mail.acme.example"`, byHTTP(host)))
	jd.logged(t, `"level":"warn"`, `"msg":"certificate not ordered"`, `"name":"mail.acme.example"`, "answering http-01",
		wrong+":"+portHTTP+": connect: connection refused", `"failures":1`, `"next_try":"2`)
	if jd.count("certificate not ordered") != 1 {
		t.Error("it is logged more than once")
	}

	ca.lead("mail.acme.example", host)
	if err := os.Remove(filepath.Join(cache, "failures", "mail.acme.example.json")); err != nil {
		t.Fatal(err)
	}
	jd.signal(syscall.SIGHUP)
	jd.certified(ca.roots(), "mail.acme.example")
}

// TestACMETwoFrontends: of two that share a cache one orders, the authority finds the answer at the other, and both have the
// certificate.
func TestACMETwoFrontends(t *testing.T) {
	t.Parallel()
	for about, way := range map[string]func(host string) string{"http": byHTTP, "tls_alpn": byTLSALPN} {
		t.Run(about, func(t *testing.T) {
			t.Parallel()
			host := newHost()
			ca := pebble{}.start(t, host)
			cache := newCache(t)
			answers := frontend{users: `default_realm = "acme.example"`}.start(t, elsewhere,
				ca.orders(cache, `"mail.{domain}"`, way(host)))
			orders := startJackdaw(t, elsewhere, ca.orders(cache, `"mail.acme.example"`, way(newHost())))
			issued := orders.certified(ca.roots(), "mail.acme.example")
			if !answers.certified(ca.roots(), "mail.acme.example").Equal(issued) {
				t.Error("they show different certificates")
			}
			orders.loggedTimes(t, 1, "certificate ordered")
			if answers.count("certificate ordered") != 0 {
				t.Error("both have ordered it")
			}
		})
	}
}

// TestACMEOnDemand: the first client who asks for a name of a known domain sees another certificate, and the next ones its own.
func TestACMEOnDemand(t *testing.T) {
	t.Parallel()
	host := newHost()
	ca := pebble{}.start(t, host)
	jd := startJackdaw(t, elsewhere, "[[route]]\ndomain = [\"d.example\"]\nto = \"elsewhere\"\n",
		ca.orders(newCache(t), `"mail.{domain}", "imap.{domain}"`, byHTTP(host)))
	roots := ca.roots()
	for _, stranger := range []string{"mail.e.example", "pop.d.example", "d.example"} {
		if cert := jd.shownBy(roots, stranger); cert != nil {
			t.Errorf("%s has a certificate", stranger)
		}
	}
	if cert := jd.shownBy(roots, "mail.d.example"); cert != nil {
		t.Error("there was a certificate before anybody has asked")
	}
	jd.certified(roots, "mail.d.example")
	jd.certified(roots, "imap.d.example")
	jd.loggedTimes(t, 2, "certificate ordered")
	if jd.count("not ordered") > 0 {
		t.Error("one was ordered in vain")
	}
}

// TestACMEOnDemandByDirectory: a directory knows more domains than the configuration, and learns of new ones.
func TestACMEOnDemandByDirectory(t *testing.T) {
	t.Parallel()
	host := newHost()
	ca := pebble{}.start(t, host)
	domains := filepath.Join(t.TempDir(), "domains")
	keep(t, domains, "@d.example elsewhere\n")
	jd := startJackdaw(t, elsewhere, fmt.Sprintf("[directory.domains]\nkind = \"file\"\npath = %q\n", domains),
		ca.orders(newCache(t), `"mail.{domain}"`, byHTTP(host), `lookup = "domains"`))
	roots := ca.roots()
	jd.certified(roots, "mail.d.example")
	if cert := jd.shownBy(roots, "mail.e.example"); cert != nil {
		t.Error("a domain that nobody knows has a certificate")
	}
	keep(t, domains, "@d.example elsewhere\n@e.example elsewhere\n")
	jd.certified(roots, "mail.e.example")
}

// TestACMEBinding: an authority that wants an account bound to one that it knows gets that.
func TestACMEBinding(t *testing.T) {
	t.Parallel()
	host := newHost()
	const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	ca := pebble{bindings: map[string]string{"kid-1": key}}.start(t, host)
	file := filepath.Join(t.TempDir(), "eab.key")
	keep(t, file, key+"\n")
	jd := startJackdaw(t, elsewhere, ca.orders(newCache(t), `"mail.acme.example"`, byHTTP(host),
		`eab_kid = "kid-1"`, fmt.Sprintf("eab_key_file = %q", file)))
	jd.certified(ca.roots(), "mail.acme.example")
}
