package integration

import (
	"fmt"
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"jackdaw/internal/devca"
)

// dovecot is what a Dovecot can be like. The zero value knows its users by their passwords.
type dovecot struct {
	asks  passdb
	relay *store // what its submission service hands mail to: a login there ends badly without one
	extra string // more configuration
}

// startDovecot runs a Dovecot until the test ends. It has every service in the clear, with STARTTLS, and on sockets in its
// directory, and within TLS where there is a port for that; its certificate is for store.example.
func startDovecot(t testing.TB, name string, asks passdb, users ...string) *store {
	t.Helper()
	return dovecot{asks: asks}.start(t, name, users...)
}

func (v dovecot) start(t testing.TB, name string, users ...string) *store {
	t.Helper()
	needServers(t)
	s := &store{name: name, host: newHost(), proxied: newHost(), user: "{user}", services: []string{"imap", "sieve"}}
	dir := serverDir(t)
	s.dir = dir
	closed, open := new(strings.Builder), new(strings.Builder)
	for _, user := range users {
		fmt.Fprintf(closed, "%s:{PLAIN}%s::::::%s\n", user, password, dovecotQuota(user))
		fmt.Fprintf(open, "%s:::::::nopassword=y\n", user)
	}
	write(t, filepath.Join(dir, "users"), closed.String())
	write(t, filepath.Join(dir, "open"), open.String())
	write(t, filepath.Join(dir, "masters"), fmt.Sprintf("%s:{PLAIN}%s\n", proxyUser, proxyPassword))
	certifyStore(t, dir)
	values := map[string]string{
		"name": name, "dir": dir, "host": s.host, "proxied": s.proxied, "folder": s.folder(),
		"user": servant(t).Username, "group": groupOf(t, servant(t)),
		"relayhost": "127.0.0.1", "relayport": "1",
	}
	if v.relay != nil {
		values["relayhost"], values["relayport"], _ = net.SplitHostPort(v.relay.smtp())
	}
	maps.Copy(values, ports())
	config := filepath.Join(dir, "dovecot.conf")
	write(t, config, expand(dovecotConfig(t, v.asks)+v.extra, values))
	s.launch = func() *process {
		p := startProcess(t, filepath.Join(dir, "log"), asServant(t, exec.Command("dovecot", "-F", "-c", config)))
		p.answers(t, "tcp", s.imap())
		return p
	}
	s.restart()
	return s
}

// dovecotQuota is the rest of a user's line, which makes some mailboxes full. The two versions have their own settings, and
// each ignores the other's.
func dovecotQuota(user string) string {
	if local, _, _ := strings.Cut(user, "@"); local != fullUser {
		return ""
	}
	return "userdb_quota_rule=*:bytes=1 userdb_quota_storage_size=1B"
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
