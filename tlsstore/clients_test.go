package tlsstore

import (
	"crypto/tls"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"jackdaw/internal/devca"
)

// authority makes a client's authority and reads it as an operator would have it read.
func authority(t *testing.T) (*devca.CA, *Clients) {
	t.Helper()
	ca, err := devca.New()
	must(t, err)
	return ca, readClients(t, ca.PEM)
}

func readClients(t *testing.T, pem ...[]byte) *Clients {
	t.Helper()
	file := filepath.Join(t.TempDir(), "clients.pem")
	write(t, file, slices.Concat(pem...))
	clients, err := ReadClients(file)
	must(t, err)
	return clients
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
	server = server.Clone()
	var seen *tls.ConnectionState
	server.VerifyConnection = func(state tls.ConnectionState) error { // it is called at resumptions, too
		seen = &state
		return nil
	}
	_, err := handshake(server, client)
	return seen, err
}

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// A client without a certificate is served as before; one with a certificate that no authority of ours has issued, or that is
// out of date, is not.
func TestClientCertificates(t *testing.T) {
	f := newFixture(t, pemFiles("pair", leafFor(t, "a.example")))
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
		{about: "of one of two", clients: readClients(t, other.PEM, ca.PEM), show: &good, verified: true},
	} {
		for _, version := range versions {
			t.Run(tt.about+" "+tls.VersionName(version), func(t *testing.T) {
				c := client("a.example")
				c.MaxVersion = version
				if tt.show != nil {
					showing(c, *tt.show)
				}
				state, err := visit(f.Config(ListenerTLS{Clients: tt.clients}), c)
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
	f := newFixture(t, pemFiles("pair", leafFor(t, "a.example")))
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
		{about: "the same, read again", first: clients, second: readClients(t, ca.PEM), resumes: true, verified: true},
		{about: "the same in another order", first: readClients(t, ca.PEM, otherCA.PEM), second: readClients(t, otherCA.PEM, ca.PEM, ca.PEM), resumes: true, verified: true},
		{about: "one more", first: clients, second: readClients(t, ca.PEM, otherCA.PEM), verified: true},
		{about: "another", first: clients, second: other, refused: true},
		{about: "one less", first: readClients(t, ca.PEM, otherCA.PEM), second: other, refused: true},
		{about: "none any more", first: clients},
		{about: "none before", second: clients, verified: true},
		{about: "none at all", resumes: true},
	} {
		for _, version := range versions {
			t.Run(tt.about+" "+tls.VersionName(version), func(t *testing.T) {
				c := showing(client("a.example"), mine)
				c.ClientSessionCache, c.MaxVersion = new(oneSession), version
				if _, err := visit(f.Config(ListenerTLS{Clients: tt.first}), c); err != nil {
					t.Fatal(err)
				}
				for _, again := range []bool{false, true} {
					state, err := visit(f.Config(ListenerTLS{Clients: tt.second}), c)
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
	f := newFixture(t, pemFiles("pair", leafFor(t, "a.example")))
	ca, clients := authority(t)
	mine := clientOf(t, ca, devca.Options{NotAfter: time.Now().Add(time.Hour)})
	for _, version := range versions {
		c := showing(client("a.example"), mine)
		c.ClientSessionCache, c.MaxVersion = new(oneSession), version
		server := f.Config(ListenerTLS{Clients: clients})
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
			clients, err := ReadClients(file)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), "reading client_ca: "+file+": "+tt.want) {
					t.Errorf("%v, want %q", err, tt.want)
				}
				return
			}
			must(t, err)
			if clients.Count() != tt.count {
				t.Errorf("%d authorities, want %d", clients.Count(), tt.count)
			}
		})
	}
	if _, err := ReadClients("/nonexistent"); err == nil {
		t.Error("no error without a file")
	}
	if clients, err := ReadClients(""); clients != nil || err != nil {
		t.Error("authorities from nowhere", clients, err)
	}
}
