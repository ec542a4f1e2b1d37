package integration

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"jackdaw/internal/devca"
)

// jackdaw is the program under test, between clients and stores.
type jackdaw struct {
	*process
	t    testing.TB
	host string
	file string // its configuration
	ca   *devca.CA
	dir  string // the authority is in ca.pem, certificates are in certs
}

// startJackdaw runs jackdaw with what the parts say of routes and backends, until the test ends. It has a certificate for
// each of mail.a.example, mail.b.example and mail.c.example, and ends well.
func startJackdaw(t testing.TB, parts ...string) *jackdaw {
	t.Helper()
	needServers(t)
	program, err := binary()
	if err != nil {
		t.Fatalf("jackdaw cannot be built: %v", err)
	}
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	jd := &jackdaw{t: t, host: newHost(), ca: ca, dir: t.TempDir()}
	jd.file = filepath.Join(jd.dir, "jackdaw.toml")
	if err := os.Mkdir(filepath.Join(jd.dir, "certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, jd.caFile(), string(ca.PEM))
	for _, name := range []string{"mail.a.example", "mail.b.example", "mail.c.example"} {
		jd.certify(name)
	}
	jd.configure(parts...)
	jd.process = startProcess(t, filepath.Join(jd.dir, "log"), exec.Command(program, "serve", "-c", jd.file))
	for _, port := range []string{portIMAP, portIMAPS, portSieve} {
		jd.answers(t, "tcp", jd.at(port))
	}
	t.Cleanup(func() {
		if err := jd.stop(); err != nil {
			t.Errorf("jackdaw ended badly: %v", err)
		}
	})
	return jd
}

// knows waits until jackdaw has learned what a store can do. Before that it offers every client the least.
func (jd *jackdaw) knows(stores ...*store) {
	jd.t.Helper()
	for _, s := range stores {
		for _, protocol := range []string{"imap", "sieve"} {
			jd.logged(jd.t, "learned capabilities", fmt.Sprintf(`"backend":%q`, s.name), fmt.Sprintf(`"protocol":%q`, protocol))
		}
	}
}

func (jd *jackdaw) at(port string) string { return net.JoinHostPort(jd.host, port) }
func (jd *jackdaw) caFile() string        { return filepath.Join(jd.dir, "ca.pem") }

// configure writes the configuration: what all tests have in common, and the parts.
func (jd *jackdaw) configure(parts ...string) {
	jd.t.Helper()
	write(jd.t, jd.file, expand(commonConfig, map[string]string{
		"imap": jd.at(portIMAP), "imaps": jd.at(portIMAPS), "sieve": jd.at(portSieve),
	})+strings.Join(parts, "\n"))
}

const commonConfig = `
[listen]
imap  = "$imap"
imaps = "$imaps"
sieve = "$sieve"

[tls]
certificates = ["certs"]
default = "mail.a.example"

[users]
realms = { "mail.{domain}" = "{domain}" }

[limits]
failure_delay = "10ms"

`

// reload has a configuration with other parts read.
func (jd *jackdaw) reload(parts ...string) {
	jd.t.Helper()
	jd.configure(parts...)
	jd.signal(syscall.SIGHUP)
}

// certify issues a certificate for a name, and puts it where jackdaw finds it. The second time is a renewal.
func (jd *jackdaw) certify(name string) devca.Leaf {
	jd.t.Helper()
	leaf, err := jd.ca.Issue(devca.Options{Names: []string{name, jd.host}})
	if err == nil {
		err = leaf.Write(filepath.Join(jd.dir, "certs"), name)
	}
	if err != nil {
		jd.t.Fatal(err)
	}
	return leaf
}

// tls is how a client goes there that asks for a name.
func (jd *jackdaw) tls(name string) *tls.Config {
	return &tls.Config{ServerName: name, RootCAs: jd.ca.Pool()}
}

// imap begins a conversation with the port for IMAP within TLS.
func (jd *jackdaw) imap(name string) *dialog {
	jd.t.Helper()
	d := dialTLS(jd.t, jd.at(portIMAPS), jd.tls(name))
	d.expect("* OK ")
	return d
}

// login is imap for somebody who is let in.
func (jd *jackdaw) login(name, user string) *dialog {
	jd.t.Helper()
	d := jd.imap(name)
	d.ask("LOGIN " + user + " " + password)
	return d
}

// sieve begins a conversation with the port for ManageSieve, and begins TLS.
func (jd *jackdaw) sieve(name string) *dialog {
	jd.t.Helper()
	d := dial(jd.t, jd.at(portSieve))
	d.until("OK")
	d.send("STARTTLS")
	d.expect("OK")
	d.handshake(jd.tls(name))
	d.until("OK")
	return d
}

// curl is curl with an IMAP URL at a name of ours, for a user.
func (jd *jackdaw) curl(t testing.TB, name, user, path string, args ...string) string {
	t.Helper()
	return curl(t, append(args, "--cacert", jd.caFile(), "--connect-to", "::"+jd.host+":"+portIMAPS,
		"--user", user+":"+password, "imaps://"+name+"/"+path)...)
}

// folders is what a user has.
func (jd *jackdaw) folders(t testing.TB, name, user string) string {
	t.Helper()
	return jd.curl(t, name, user, "")
}

// twoStores is a configuration with a store for each domain.
func twoStores(a, b *store) string {
	return a.backend() + b.backend() + domainTo("a.example", a) + domainTo("b.example", b)
}

// domainTo is a route.
func domainTo(domain string, s *store) string {
	return fmt.Sprintf("[[route]]\ndomain = [%q]\nto = %q\n", domain, s.name)
}
