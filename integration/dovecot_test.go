package integration

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"jackdaw/internal/devca"
)

// startDovecot runs a Dovecot until the test ends. It takes IMAP and ManageSieve in the clear, with STARTTLS, and on sockets
// in its directory, and IMAP within TLS, too; its certificate is for store.example.
func startDovecot(t testing.TB, name string, asks passdb, users ...string) *store {
	t.Helper()
	needServers(t)
	s := &store{name: name, host: newHost(), user: "{user}"}
	dir := serverDir(t)
	s.dir = dir
	closed, open := new(strings.Builder), new(strings.Builder)
	for _, user := range users {
		fmt.Fprintf(closed, "%s:{PLAIN}%s\n", user, password)
		fmt.Fprintf(open, "%s:::::::nopassword=y\n", user)
	}
	write(t, filepath.Join(dir, "users"), closed.String())
	write(t, filepath.Join(dir, "open"), open.String())
	certifyStore(t, dir)
	config := filepath.Join(dir, "dovecot.conf")
	write(t, config, expand(dovecotConfig(t, asks), map[string]string{
		"dir": dir, "host": s.host, "imap": portIMAP, "imaps": portIMAPS, "sieve": portSieve, "folder": s.folder(),
		"user": servant(t).Username, "group": groupOf(t, servant(t)),
	}))
	s.launch = func() *process {
		p := startProcess(t, filepath.Join(dir, "log"), asServant(t, exec.Command("dovecot", "-F", "-c", config)))
		p.answers(t, "tcp", s.imap())
		p.answers(t, "tcp", s.sieve())
		return p
	}
	s.restart()
	return s
}

// certifyStore makes a certificate for store.example, and an authority of its own for it in ca.pem.
func certifyStore(t testing.TB, dir string) {
	t.Helper()
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(devca.Options{Names: []string{"store.example"}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ca.pem"), string(ca.PEM))
	write(t, filepath.Join(dir, "store.crt"), string(leaf.ChainPEM))
	write(t, filepath.Join(dir, "store.key"), string(leaf.KeyPEM))
}
