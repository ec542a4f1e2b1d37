package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// program is a mail client that has a home of its own, where it keeps its configuration and finds all servers at one host.
type program struct {
	jd   *jackdaw
	from string // the address that it connects from; "": the system chooses
	v6   bool   // it goes to ::1
	env  []string
}

// run runs it to its end, which must be good, and returns what it printed.
func (p program) run(t testing.TB, home, input, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Dir = home
	cmd.Env = append(append(os.Environ(), "HOME="+home), p.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// python runs a program in Python, in which every host has jackdaw's address, and connections come from where they should.
func (p program) python(t testing.TB, home, input, name string, args ...string) string {
	t.Helper()
	host := p.jd.host
	if p.v6 {
		host = "::1"
	}
	keep(t, filepath.Join(home, "sitecustomize.py"), resolver)
	p.env = append(p.env, "PYTHONPATH="+home, "HOST="+host, "SOURCE="+p.from, "CA="+p.jd.caFile())
	return p.run(t, home, input, name, args...)
}

// resolver is read by Python before it runs anything.
const resolver = `
import os, socket
lookup, connect = socket.getaddrinfo, socket.socket.connect
def getaddrinfo(host, *args, **kwargs):
    return lookup(os.environ["HOST"], *args, **kwargs)
def from_source(self, address):
    if os.environ["SOURCE"]:
        self.bind((os.environ["SOURCE"], 0))
    return connect(self, address)
socket.getaddrinfo, socket.socket.connect = getaddrinfo, from_source
`

// fetchmail returns all mail that a user has.
func fetchmail(t testing.TB, jd *jackdaw, service, name, user string) string {
	t.Helper()
	home := t.TempDir()
	tls := "sslproto TLS1.2+"
	if implicit(service) {
		tls = "ssl"
	}
	keep(t, filepath.Join(home, "rc"), expand(fetchmailrc, map[string]string{
		"host": jd.host, "protocol": protocol(service), "port": ports()[service], "user": user, "password": password,
		"tls": tls, "ca": jd.caFile(), "name": name, "home": home,
	}))
	program{jd: jd}.run(t, home, "", "fetchmail", "-f", "rc", "--pidfile", "pid", "--nosyslog", "-v")
	return contents(t, filepath.Join(home, "mail"))
}

const fetchmailrc = `
poll $host protocol $protocol port $port
user "$user" password "$password" $tls sslcertck sslcertfile "$ca" sslcommonname "$name"
keep fetchall mda "cat >>$home/mail"
`

// getmail returns all mail that a user has.
func getmail(t testing.TB, jd *jackdaw, service, name, user string) string {
	t.Helper()
	home := t.TempDir()
	kind := strings.ToUpper(protocol(service))
	if implicit(service) {
		kind += "SSL"
	}
	keep(t, filepath.Join(home, "getmailrc"), expand(getmailrc, map[string]string{
		"kind": kind, "port": ports()[service], "user": user, "password": password, "ca": jd.caFile(), "name": name, "home": home,
	}))
	program{jd: jd}.python(t, home, "", "getmail", "--getmaildir", home)
	return contents(t, filepath.Join(home, "mail"))
}

const getmailrc = `
[retriever]
type = Simple${kind}Retriever
server = $name
port = $port
username = $user
password = $password
ca_certs = $ca
[destination]
type = MDA_external
path = /bin/sh
arguments = ("-c", "cat >>$home/mail")
allow_root_commands = true
[options]
verbose = 2
`

// keep makes a file that is for ourselves alone.
func keep(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func contents(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
