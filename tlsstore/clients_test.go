package tlsstore

import (
	"crypto/tls"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

// authority makes a client's authority and reads it as an operator would have it read.
func authority(t *testing.T) (*devca.CA, *Clients) {
	t.Helper()
	ca, err := devca.New()
	must(t, err)
	return ca, vouching(t, ca.PEM)
}

// vouching reads authorities as an operator would have them read.
func vouching(t *testing.T, pem ...[]byte) *Clients {
	t.Helper()
	file := filepath.Join(t.TempDir(), "clients.pem")
	write(t, file, slices.Concat(pem...))
	clients, err := readClients(file)
	must(t, err)
	return clients
}

// newAskingFixture opens a store of one certificate, and asks for those of clients as [tls] says, if asking is its listener.
func newAskingFixture(t *testing.T) fixture {
	t.Helper()
	dir := t.TempDir()
	must(t, leafFor(t, "a.example").Write(dir, "pair"))
	cfg := configs.TLS{Certificates: []string{dir}, Terms: configs.Terms{ClientCA: "clients.pem"}}
	return openFixture(t, dir, cfg, quick)
}

// asking is a listener that these authorities vouch for clients to.
func asking(clients *Clients) ListenerTLS {
	return ListenerTLS{Clients: ClientCAs{"clients.pem": clients}}
}

// showing makes the client show a certificate, whatever the server says of whom it trusts.
func showing(c *tls.Config, leaf devca.Leaf) *tls.Config {
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &leaf.TLS, nil }
	return c
}

// clientOf is a client's certificate of that authority.
func clientOf(t *testing.T, ca *devca.CA, o devca.Options) devca.Leaf {
	t.Helper()
	o.Emails = []string{"alice@a.example"}
	leaf, err := ca.Issue(o)
	must(t, err)
	return leaf
}

// visit connects, and returns what the server knows of the client then: nil if there was no connection.
func visit(server, client *tls.Config) (*tls.ConnectionState, error) {
	var seen *tls.ConnectionState
	watched := func(config *tls.Config) *tls.Config {
		config = config.Clone()
		config.VerifyConnection = func(state tls.ConnectionState) error { // it is called at resumptions, too
			seen = &state
			return nil
		}
		return config
	}
	watching := watched(server)
	watching.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		special, err := server.GetConfigForClient(hello)
		if special != nil {
			special = watched(special)
		}
		return special, err
	}
	_, err := handshake(watching, client)
	return seen, err
}

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// A client without a certificate is served as before; one with a certificate that no authority of ours has issued, or that
// is out of date, is not.
func TestClientCertificates(t *testing.T) {
	f := newAskingFixture(t)
	ca, clients := authority(t)
	other, _ := authority(t)
	good, foreign := clientOf(t, ca, devca.Options{}), clientOf(t, other, devca.Options{})
	old := clientOf(t, ca, devca.Options{NotAfter: time.Now().Add(-time.Hour)})
	for _, tt := range []struct {
		about    string
		clients  *Clients
		show     *devca.Leaf
		refused  string
		verified bool
	}{
		{about: "nothing shown", clients: clients},
		{about: "a good one", clients: clients, show: &good, verified: true},
		{about: "not asked for", show: &good},
		{about: "of a stranger", clients: clients, show: &foreign, refused: "unknown certificate authority"},
		{about: "out of date", clients: clients, show: &old, refused: "expired certificate"},
		{about: "of one of two", clients: vouching(t, other.PEM, ca.PEM), show: &good, verified: true},
	} {
		for _, version := range versions {
			t.Run(tt.about+" "+tls.VersionName(version), func(t *testing.T) {
				c := client("a.example")
				c.MaxVersion = version
				if tt.show != nil {
					showing(c, *tt.show)
				}
				state, err := visit(f.Config(asking(tt.clients)), c)
				if tt.refused != "" {
					if err == nil || !strings.Contains(err.Error(), tt.refused) {
						t.Errorf("%v, want the alert %q", err, tt.refused)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if verified := len(state.VerifiedChains) > 0; verified != tt.verified {
					t.Errorf("verified: %v, want %v", verified, tt.verified)
				}
			})
		}
	}
}

// A certificate travels in the session's ticket. It is believed as long as the same authorities vouch for clients, and where
// others do, or some do for the first time, the client is asked anew.
func TestResumptionOfClients(t *testing.T) {
	f := newAskingFixture(t)
	ca, clients := authority(t)
	otherCA, other := authority(t)
	mine := clientOf(t, ca, devca.Options{})
	for _, tt := range []struct {
		about             string
		first, second     *Clients
		resumes, verified bool
		refused           bool
	}{
		{about: "the same", first: clients, second: clients, resumes: true, verified: true},
		{about: "the same, read again", first: clients, second: vouching(t, ca.PEM), resumes: true, verified: true},
		{about: "the same in another order", first: vouching(t, ca.PEM, otherCA.PEM), second: vouching(t, otherCA.PEM, ca.PEM, ca.PEM), resumes: true, verified: true},
		{about: "one more", first: clients, second: vouching(t, ca.PEM, otherCA.PEM), verified: true},
		{about: "another", first: clients, second: other, refused: true},
		{about: "one less", first: vouching(t, ca.PEM, otherCA.PEM), second: other, refused: true},
		{about: "none any more", first: clients},
		{about: "none before", second: clients, verified: true},
		{about: "none at all", resumes: true},
	} {
		for _, version := range versions {
			t.Run(tt.about+" "+tls.VersionName(version), func(t *testing.T) {
				c := showing(client("a.example"), mine)
				c.ClientSessionCache, c.MaxVersion = new(oneSession), version
				if _, err := visit(f.Config(asking(tt.first)), c); err != nil {
					t.Fatal(err)
				}
				for _, again := range []bool{false, true} {
					state, err := visit(f.Config(asking(tt.second)), c)
					if tt.refused {
						if err == nil {
							t.Error("a certificate of nobody's is taken")
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if want := tt.resumes || again; state.DidResume != want {
						t.Errorf("resumed: %v, want %v", state.DidResume, want)
					}
					if verified := len(state.VerifiedChains) > 0; verified != tt.verified {
						t.Errorf("verified: %v, want %v", verified, tt.verified)
					}
				}
			})
		}
	}
}

// A session ends with the certificate that it carries.
func TestResumptionOfExpiredClient(t *testing.T) {
	f := newAskingFixture(t)
	ca, clients := authority(t)
	mine := clientOf(t, ca, devca.Options{NotAfter: time.Now().Add(time.Hour)})
	for _, version := range versions {
		c := showing(client("a.example"), mine)
		c.ClientSessionCache, c.MaxVersion = new(oneSession), version
		server := f.Config(asking(clients))
		if _, err := visit(server, c); err != nil {
			t.Fatal(err)
		}
		server.Time = func() time.Time { return time.Now().Add(2 * time.Hour) }
		if state, err := visit(server, c); err == nil {
			t.Errorf("%s: resumed: %v, with a certificate that has expired", tls.VersionName(version), state.DidResume)
		}
	}
}

// What cannot be read whole lets nobody in.
func TestReadClients(t *testing.T) {
	ca, err := devca.New()
	must(t, err)
	other, err := devca.New()
	must(t, err)
	for _, tt := range []struct {
		about string
		data  []byte
		count int
		want  string
	}{
		{"one", ca.PEM, 1, ""},
		{"two", slices.Concat([]byte("of ours\n"), ca.PEM, other.PEM), 2, ""},
		{"one twice", slices.Concat(ca.PEM, ca.PEM), 1, ""},
		{"nothing", nil, 0, "no certificate in it"},
		{"no PEM", []byte("hello"), 0, "no certificate in it"},
		{"a key", leafFor(t, "a.example").KeyPEM, 0, "no certificate in it"},
		{"cut off", slices.Concat(ca.PEM, other.PEM[:200]), 0, "a PEM block is damaged or cut off"},
		{"no certificate in the block", slices.Concat(ca.PEM, block("CERTIFICATE", []byte("x"))), 0, "parsing a certificate"},
	} {
		t.Run(tt.about, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "clients.pem")
			write(t, file, tt.data)
			all, err := ReadClients(configs.TLS{Terms: configs.Terms{ClientCA: file}})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), "reading client_ca: "+file+": "+tt.want) {
					t.Errorf("%v, want %q", err, tt.want)
				}
				return
			}
			must(t, err)
			if all[file].Count() != tt.count {
				t.Errorf("%d authorities, want %d", all[file].Count(), tt.count)
			}
		})
	}
	if _, err := ReadClients(configs.TLS{Terms: configs.Terms{ClientCA: "/nonexistent"}}); err == nil {
		t.Error("no error without a file")
	}
}

// Policies have files of their own, or that of [tls], or none.
func TestReadClientsOfPolicies(t *testing.T) {
	first, err := devca.New()
	must(t, err)
	second, err := devca.New()
	must(t, err)
	dir := t.TempDir()
	both, one := filepath.Join(dir, "both.pem"), filepath.Join(dir, "one.pem")
	write(t, both, slices.Concat(first.PEM, second.PEM))
	write(t, one, first.PEM)
	cfg := configs.TLS{Terms: configs.Terms{ClientCA: both}}
	for _, file := range []string{one, "", both, one} {
		cfg.Policies = append(cfg.Policies, configs.TLSPolicy{Terms: configs.Terms{ClientCA: file}})
	}
	all, err := ReadClients(cfg)
	must(t, err)
	if len(all) != 2 || all[both].Count() != 2 || all[one].Count() != 1 {
		t.Errorf("read: %v", all)
	}
	write(t, one, nil)
	if _, err := ReadClients(cfg); err == nil || !strings.Contains(err.Error(), one) {
		t.Errorf("%v, though a policy's file is empty", err)
	}
}
