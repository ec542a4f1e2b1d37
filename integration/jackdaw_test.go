package integration

import (
	"crypto/tls"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"jackdaw/internal/devca"
)

// frontend is what a jackdaw can be like. The zero value knows its clients by their passwords.
type frontend struct {
	v6                         bool      // listens on ::1, too
	socket                     string    // on which it listens for LMTP; "": one that is made for that
	servant                    bool      // it runs as the servant, who may not read everything
	ca                         *devca.CA // has issued its certificates; nil: one that is made for that
	certificates               string    // more places for these, as the configuration has them
	listen, tls, users, limits string    // more lines for these tables
}

// jackdaw is the program under test, between clients and stores.
type jackdaw struct {
	*process
	frontend
	t      testing.TB
	host   string
	ports6 map[string]string // on ::1, by the names of services
	file   string            // its configuration
	dir    string            // the authority is in ca.pem, certificates are in certs
}

// startJackdaw runs jackdaw with what the parts say of routes and backends, until the test ends. It listens for all that
// the backends offer. It has a certificate for each of mail.a.example, mail.b.example and mail.c.example, and ends well.
func startJackdaw(t testing.TB, parts ...string) *jackdaw {
	t.Helper()
	return frontend{}.start(t, parts...)
}

func (f frontend) start(t testing.TB, parts ...string) *jackdaw {
	t.Helper()
	needServers(t)
	program := built(t)
	jd := &jackdaw{frontend: f, t: t, host: newHost(), ports6: make(map[string]string), dir: serverDir(t)}
	jd.file = filepath.Join(jd.dir, "jackdaw.toml")
	if f.ca == nil {
		jd.ca = newCA(t)
	}
	if f.socket == "" {
		jd.socket = newSocket(t)
	}
	for _, dir := range []string{jd.certDir(), filepath.Join(jd.dir, "state")} {
		mustMkdir(t, dir, 0o700)
		give(t, dir)
	}
	write(t, jd.caFile(), string(jd.ca.PEM))
	for _, name := range []string{"mail.a.example", "mail.b.example", "mail.c.example"} {
		jd.certify(name)
	}
	if f.v6 {
		for service := range ports() {
			jd.ports6[service] = newPort6(t)
		}
	}
	jd.configure(parts...)
	jd.process = startProcess(t, filepath.Join(jd.dir, "log"), jd.command(program, "serve", "-c", jd.file))
	for _, service := range servedBy(parts) {
		jd.answers(t, "tcp", jd.at(ports()[service]))
		if jd.v6 {
			jd.answers(t, "tcp", jd.at6(service))
		}
		if service == "lmtp" {
			jd.answers(t, "unix", jd.socket)
		}
	}
	t.Cleanup(func() {
		if err := jd.stop(); err != nil {
			t.Errorf("jackdaw ended badly: %v", err)
		}
	})
	return jd
}

// command is a program that is run as jackdaw is.
func (jd *jackdaw) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	if jd.servant {
		cmd = asServant(jd.t, cmd)
	}
	return cmd
}

// newCA is an authority of the test's own.
func newCA(t testing.TB) *devca.CA {
	t.Helper()
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// newSocket is a path for a socket that everybody can reach.
func newSocket(t testing.TB) string {
	t.Helper()
	return filepath.Join(serverDir(t), "jackdaw")
}

// built is the program under test.
func built(t testing.TB) (path string) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatalf("jackdaw cannot be built: %v", err)
	}
	return path
}

// knows waits until jackdaw has learned what a store can do. Before that it offers every client the least.
func (jd *jackdaw) knows(stores ...*store) {
	jd.t.Helper()
	for _, s := range stores {
		for _, protocol := range s.services {
			jd.logged(jd.t, "learned capabilities", fmt.Sprintf(`"backend":%q`, s.name), fmt.Sprintf(`"protocol":%q`, protocol))
		}
	}
}

func (jd *jackdaw) at(port string) string { return net.JoinHostPort(jd.host, port) }
func (jd *jackdaw) caFile() string        { return filepath.Join(jd.dir, "ca.pem") }
func (jd *jackdaw) certDir() string       { return filepath.Join(jd.dir, "certs") }

// at6 is the address on ::1 where a service is.
func (jd *jackdaw) at6(service string) string { return net.JoinHostPort("::1", jd.ports6[service]) }

// configure writes the configuration: what all tests have in common, and the parts.
func (jd *jackdaw) configure(parts ...string) {
	jd.t.Helper()
	write(jd.t, jd.file, expand(commonConfig, map[string]string{
		"listeners": jd.listeners(parts), "listen": jd.listen, "certificates": jd.certificates, "tls": jd.frontend.tls,
		"users": jd.users, "limits": jd.limits,
	})+strings.Join(parts, "\n"))
}

const commonConfig = `
state = "state"
[listen]
$listeners
$listen

[tls]
certificates = ["certs", $certificates]
default = "mail.a.example"
$tls

[users]
realms = { "mail.{domain}" = "{domain}" }
$users

[limits]
failure_delay = "10ms"
$limits

[admin]
socket = "state/admin"

`

// listeners are those of the table [listen].
func (jd *jackdaw) listeners(parts []string) string {
	var lines strings.Builder
	for _, service := range servedBy(parts) {
		list := []string{jd.at(ports()[service])}
		if jd.v6 {
			list = append(list, jd.at6(service))
		}
		for i, address := range list {
			list[i] = fmt.Sprintf("%q", address)
			if service == "lmtp" {
				list[i] = fmt.Sprintf("{ address = %q, tls = \"starttls\" }", address)
			}
		}
		if service == "lmtp" {
			list = append(list, fmt.Sprintf("{ address = \"unix:%s\", mode = \"0666\" }", jd.socket))
		}
		fmt.Fprintf(&lines, "%s = [%s]\n", service, strings.Join(list, ", "))
	}
	return lines.String()
}

// offer is how a backend offers a service.
var offer = regexp.MustCompile(`(?m)^(imap|pop3|submission|sieve|lmtp) *=`)

// servedBy lists the services that some backend in the parts offers.
func servedBy(parts []string) []string {
	var services []string
	for _, match := range offer.FindAllStringSubmatch(strings.Join(parts, "\n"), -1) {
		service := match[1]
		if slices.Contains(services, service) {
			continue
		}
		services = append(services, service)
		if implicit := service + "s"; ports()[implicit] != "" {
			services = append(services, implicit)
		}
	}
	return services
}

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
		err = leaf.Write(jd.certDir(), name)
	}
	if err != nil {
		jd.t.Fatal(err)
	}
	give(jd.t, filepath.Join(jd.certDir(), name+".key"))
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
	return jd.curlAt(t, "imaps", name, user, path, args...)
}

// curlAt is curl with a URL of any service, within TLS.
func (jd *jackdaw) curlAt(t testing.TB, service, name, user, path string, args ...string) string {
	t.Helper()
	return jd.curlBy(t, service, name, path, append(args, "--user", user+":"+password)...)
}

// curlBy is curlAt for somebody who logs in otherwise.
func (jd *jackdaw) curlBy(t testing.TB, service, name, path string, args ...string) string {
	t.Helper()
	scheme := strings.Replace(service, "submission", "smtp", 1)
	return curl(t, append(args, "--cacert", jd.caFile(), "--ssl-reqd", "--connect-to", "::"+jd.at(ports()[service]),
		scheme+"://"+name+"/"+path)...)
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
