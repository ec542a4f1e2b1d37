package main

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/devca"
	"jackdaw/internal/inherit"
)

// host is a directory with a configuration, for daemons in this process.
type host struct {
	*testing.T
	dir string
	ca  *devca.CA
}

// newHost makes one for daemons that leave nothing behind.
func newHost(t *testing.T) host {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	return host{t, t.TempDir(), ca}
}

func (h host) path(name string) string { return filepath.Join(h.dir, name) }

func (h host) write(name string, data []byte) {
	h.Helper()
	if err := os.WriteFile(h.path(name), data, 0o600); err != nil {
		h.Fatal(err)
	}
}

// issue makes a certificate and lays it down for the daemon.
func (h host) issue(name string) {
	h.Helper()
	leaf, err := h.ca.Issue(devca.Options{Names: []string{name}})
	if err == nil {
		err = leaf.Write(h.dir, name)
	}
	if err != nil {
		h.Fatal(err)
	}
}

// begin starts a daemon by the configuration in jackdaw.toml.
func (h host) begin() *daemon {
	h.Helper()
	config, err := configs.Load(h.path("jackdaw.toml"))
	if err != nil {
		h.Fatal(err)
	}
	d := newDaemon(config, inherit.NewSockets())
	d.file, d.log = h.path("jackdaw.toml"), zap.NewNop()
	h.Cleanup(func() { _ = d.close(h.Context()) })
	if err := d.apply(config); err != nil {
		h.Fatal(err)
	}
	return d
}

// greeting connects, and returns the first line that the daemon says.
func (h host) greeting(d *daemon, client *tls.Config) (line string, state tls.ConnectionState, err error) {
	client = client.Clone()
	client.RootCAs = h.ca.Pool()
	conn, err := tls.Dial("tcp", d.server.Addresses()[0].Address.String(), client)
	if err != nil {
		return "", state, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	line, err = bufio.NewReader(conn).ReadString('\n')
	return line, conn.ConnectionState(), err
}

const withPolicies = `
[listen]
imaps = "127.0.0.1:0"
[tls]
certificates = ["."]
client_ca    = "general.pem"
[[tls.policy]]
sni       = "own.example"
client_ca = "own.pem"
[[tls.policy]]
sni       = "none.example"
client_ca = ""
[[backend]]
name = "store1"
imap = { address = "127.0.0.1:9", external_login = "same" }
`

// EXTERNAL is offered on a connection on which a certificate was shown that the authorities of the name vouch for, and no
// other. They are read anew at each reload, though nothing else has changed.
func TestExternalByPolicy(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{"own.example", "none.example", "other.example"} {
		h.issue(name)
	}
	cards := make(map[string]*tls.Config)
	authorities := make(map[string][]byte)
	for _, whose := range []string{"general", "own"} {
		ca, err := devca.New()
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := ca.Issue(devca.Options{Emails: []string{"alice@a.example"}})
		if err != nil {
			t.Fatal(err)
		}
		authorities[whose] = ca.PEM
		h.write(whose+".pem", ca.PEM)
		cards[whose] = &tls.Config{Certificates: []tls.Certificate{leaf.TLS}}
	}
	h.write("jackdaw.toml", []byte(withPolicies))
	d := h.begin()
	offered := func(name string) (whose string) {
		for card, client := range cards {
			client.ServerName = name
			greeting, _, err := h.greeting(d, client)
			switch {
			case strings.Contains(greeting, "AUTH=EXTERNAL"):
				whose += card
			case greeting == "" && (err == nil || !strings.Contains(err.Error(), "unknown certificate authority")):
				t.Errorf("%s with the certificate %s: %v", name, card, err)
			}
		}
		return whose
	}
	check := func(want map[string]string) {
		t.Helper()
		for name, card := range want {
			if got := offered(name); got != card {
				t.Errorf("%s: EXTERNAL is offered to who has the certificate %q, want %q", name, got, card)
			}
		}
	}
	check(map[string]string{"own.example": "own", "none.example": "", "other.example": "general"})
	h.write("own.pem", authorities["general"])
	check(map[string]string{"own.example": "own"})
	_ = d.reload()
	check(map[string]string{"own.example": "general", "none.example": "", "other.example": "general"})
	h.write("own.pem", nil) // no authority: as it was
	_ = d.reload()          // which may fail
	check(map[string]string{"own.example": "general", "none.example": ""})
}

// Two daemons with one file of ticket keys resume each other's sessions. What they cannot read changes nothing.
func TestSharedTickets(t *testing.T) {
	const file = `
		[listen]
		imaps = "127.0.0.1:0"
		[tls]
		certificates = ["."]
		%s
		[[backend]]
		name = "store1"
		imap = "127.0.0.1:9"`
	h := newHost(t)
	h.issue("mail.example")
	with, without := fmt.Sprintf(file, `ticket_keys = "ticket.keys"`), fmt.Sprintf(file, "")
	h.write("ticket.keys", []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))))
	h.write("jackdaw.toml", []byte(with))
	first, second := h.begin(), h.begin()
	resumes := func(first, second *daemon) bool {
		t.Helper()
		client := &tls.Config{ServerName: "mail.example", ClientSessionCache: new(oneSession)}
		if _, _, err := h.greeting(first, client); err != nil {
			t.Fatal(err)
		}
		_, state, err := h.greeting(second, client)
		if err != nil {
			t.Fatal(err)
		}
		return state.DidResume
	}
	if !resumes(first, second) || !resumes(second, first) {
		t.Error("a session is not resumed where the keys are shared")
	}
	h.write("jackdaw.toml", []byte(without))
	_ = second.reload()
	if resumes(first, second) {
		t.Error("a session is resumed by who has keys of its own")
	}
	h.write("jackdaw.toml", []byte(with))
	h.write("ticket.keys", []byte("?"))
	_ = second.reload()
	if second.config.TLS.TicketKeys != "" || resumes(first, second) {
		t.Error("a reload has changed something, though there is no key")
	}
	config, err := configs.Load(h.path("jackdaw.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := newDaemon(config, inherit.NewSockets()).apply(config); err == nil || !strings.Contains(err.Error(), "openssl rand -base64 32") {
		t.Errorf("it begins without keys: %v", err)
	}
	if n := second.counts.Handshakes().Exact; n != 4 {
		t.Errorf("the second daemon has counted %d handshakes, want 4", n)
	}
}

// oneSession is a client's cache that offers its one session to every server, whatever the address.
type oneSession struct{ session *tls.ClientSessionState }

func (c *oneSession) Get(string) (*tls.ClientSessionState, bool)    { return c.session, c.session != nil }
func (c *oneSession) Put(_ string, session *tls.ClientSessionState) { c.session = session }
