package tlsstore

import (
	"bytes"
	"crypto/tls"
	"path/filepath"
	"strings"
	"testing"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

const (
	tls12 = configs.TLSVersion(tls.VersionTLS12)
	tls13 = configs.TLSVersion(tls.VersionTLS13)
)

// newPolicyFixture opens a store with an ECDSA certificate for each of these names.
func newPolicyFixture(t *testing.T, cfg configs.TLS, names ...string) fixture {
	t.Helper()
	dir := t.TempDir()
	for _, name := range names {
		must(t, leafFor(t, name).Write(dir, strings.ReplaceAll(name, "*", "wildcard")))
	}
	cfg.Certificates = []string{dir}
	return openFixture(t, dir, cfg, quick)
}

// mustRefuse fails unless the client is told that alert.
func mustRefuse(t *testing.T, server, client *tls.Config, alert string) {
	t.Helper()
	if _, err := handshake(server, client); err == nil || !strings.Contains(err.Error(), alert) {
		t.Errorf("%s from %q: %v, want the alert %q", tls.VersionName(client.MaxVersion), client.ServerName, err, alert)
	}
}

// The terms are those of the name whose certificate is shown. Neither a name in capitals, nor one that is made up, nor none
// at all leads around them, or to weaker ones.
func TestPolicyOfName(t *testing.T) {
	f := newPolicyFixture(t, configs.TLS{
		Default: pointer("strict.example"),
		Terms:   configs.Terms{MinVersion: tls12},
		Policies: []configs.TLSPolicy{
			{SNI: []string{"strict.example"}, Terms: configs.Terms{MinVersion: tls13}},
			{SNI: []string{"*.weak.example"}, Terms: configs.Terms{MinVersion: tls12}},
			{SNI: []string{"*.wild.example"}, Terms: configs.Terms{MinVersion: tls13}},
		},
	}, "strict.example", "mail.weak.example", "*.wild.example", "plain.example")
	for _, tt := range []struct {
		sni  string
		want uint16
	}{
		{"strict.example", tls.VersionTLS13},
		{"STRICT.Example", tls.VersionTLS13},
		{"mail.weak.example", tls.VersionTLS12},
		{"any.wild.example", tls.VersionTLS13},
		{"plain.example", tls.VersionTLS12},
		{"", tls.VersionTLS13}, // the default's
		{"unknown.example", tls.VersionTLS13},
		{"unknown.weak.example", tls.VersionTLS13},
		{"a.b.wild.example", tls.VersionTLS13},
		{"mail.weak.example/", tls.VersionTLS13},
	} {
		for _, version := range versions {
			c := client(tt.sni)
			c.MaxVersion = version
			server := f.Config(ListenerTLS{})
			if version < tt.want {
				mustRefuse(t, server, c, "protocol version")
			} else if _, err := handshake(server, c); err != nil {
				t.Errorf("%s from %q: %v", tls.VersionName(version), tt.sni, err)
			}
		}
	}
}

// The other way round: where the default is under weaker terms than others, a name that nobody has cannot be more than the
// default.
func TestPolicyOfDefault(t *testing.T) {
	f := newPolicyFixture(t, configs.TLS{
		Terms: configs.Terms{MinVersion: tls13},
		Policies: []configs.TLSPolicy{
			{SNI: []string{"old.example"}, Terms: configs.Terms{MinVersion: tls12}},
			{SNI: []string{"*"}, Terms: configs.Terms{MinVersion: tls13}},
		},
	}, "old.example", "new.example")
	onOld, onNew := ListenerTLS{Default: pointer("old.example")}, ListenerTLS{Default: pointer("new.example")}
	for _, sni := range []string{"", "unknown.example"} {
		c := client(sni)
		c.MaxVersion = tls.VersionTLS12
		if _, err := handshake(f.Config(onOld), c); err != nil {
			t.Errorf("%q: %v", sni, err)
		}
		if name, ok := f.Match(sni); ok {
			t.Errorf("%q is served as %q", sni, name)
		}
		mustRefuse(t, f.Config(onNew), c, "protocol version")
	}
}

// Who vouches for clients is asked for by name, and on listeners without authorities of nobody.
func TestPolicyClients(t *testing.T) {
	f := newPolicyFixture(t, configs.TLS{
		Default: pointer("own.example"),
		Terms:   configs.Terms{ClientCA: "general.pem"},
		Policies: []configs.TLSPolicy{
			{SNI: []string{"own.example"}, Terms: configs.Terms{ClientCA: "own.pem"}},
			{SNI: []string{"none.example"}},
		},
	}, "own.example", "none.example", "other.example")
	generalCA, general := authority(t)
	ownCA, own := authority(t)
	l := ListenerTLS{Clients: ClientCAs{"general.pem": general, "own.pem": own}}
	cards := map[string]devca.Leaf{
		"general": clientOf(t, generalCA, devca.Options{}),
		"own":     clientOf(t, ownCA, devca.Options{}),
	}
	for _, tt := range []struct{ sni, verified, refused string }{
		{"own.example", "own", "general"},
		{"OWN.example", "own", "general"},
		{"", "own", "general"},
		{"unknown.example", "own", "general"},
		{"other.example", "general", "own"},
		{"none.example", "", ""},
	} {
		for whose, card := range cards {
			for _, version := range versions {
				c := showing(client(tt.sni), card)
				c.MaxVersion = version
				if tt.refused == whose {
					mustRefuse(t, f.Config(l), c, "unknown certificate authority")
					continue
				}
				state, err := visit(f.Config(l), c)
				if err != nil {
					t.Errorf("%q with the certificate %s: %v", tt.sni, whose, err)
				} else if verified := len(state.VerifiedChains) > 0; verified != (tt.verified == whose) {
					t.Errorf("%q with the certificate %s: verified: %v", tt.sni, whose, verified)
				}
				l := ListenerTLS{Service: configs.LMTP}
				if state, err := visit(f.Config(l), c); err != nil || len(state.PeerCertificates) > 0 {
					t.Errorf("%q is asked for a certificate where nobody is, or not served: %v", tt.sni, err)
				}
			}
		}
	}
}

// A name that is not served for a service is refused there as one without a certificate is, whatever ticket a client has of
// it.
func TestPolicyServices(t *testing.T) {
	f := newPolicyFixture(t, configs.TLS{
		Default:  pointer("mail.example"),
		Policies: []configs.TLSPolicy{{SNI: []string{"mail.example"}, Services: []configs.Service{configs.IMAPS, configs.Sieve}}},
	}, "mail.example", "other.example")
	served, refused := f.Config(ListenerTLS{Service: configs.IMAPS}), f.Config(ListenerTLS{Service: configs.POP3S})
	for _, version := range versions {
		for _, sni := range []string{"mail.example", "Mail.example", "", "unknown.example"} {
			c, cache := client(sni), new(oneSession)
			c.ClientSessionCache, c.MaxVersion = cache, version
			mustRefuse(t, refused, c, "unrecognized name")
			if _, err := handshake(served, c); err != nil {
				t.Errorf("%q: %v", sni, err)
			}
			kept := cache.session
			mustRefuse(t, refused, c, "unrecognized name")
			cache.session = kept // the client gives up a session that leads to a refusal
			if state, err := handshake(served, c); err != nil || !state.DidResume {
				t.Errorf("%q: resumed: %v, %v", sni, state.DidResume, err)
			}
		}
		c := client("other.example")
		c.MaxVersion = version
		if _, err := handshake(refused, c); err != nil {
			t.Error(err)
		}
	}
	for sni, name := range map[string]string{"mail.example": "mail.example", "": ""} {
		c := f.Explain(sni, ListenerTLS{Service: configs.POP3S})
		if c.How != Refused || c.Name != name || len(c.Certificates) > 0 {
			t.Errorf("%q: %+v", sni, c)
		}
	}
}

// A client must offer the service's protocol, if any, whatever the policy.
func TestPolicyALPN(t *testing.T) {
	f := newPolicyFixture(t, configs.TLS{
		Policies: []configs.TLSPolicy{{SNI: []string{"special.example"}, Terms: configs.Terms{MinVersion: tls13}}},
	}, "special.example", "plain.example")
	for _, sni := range []string{"special.example", "plain.example"} {
		c := client(sni)
		c.NextProtos = []string{"http/1.1"}
		mustRefuse(t, f.Config(ListenerTLS{Service: configs.IMAPS}), c, "no application protocol")
		c.NextProtos = append(c.NextProtos, "imap")
		state, err := handshake(f.Config(ListenerTLS{Service: configs.IMAPS}), c)
		if err != nil || state.NegotiatedProtocol != "imap" {
			t.Errorf("%q: agreed on %q, %v", sni, state.NegotiatedProtocol, err)
		}
	}
}

// The preferred type of key is shown to who supports both; the other one to who does not, and where it alone has the very
// name.
func TestPolicyKeyType(t *testing.T) {
	dir := t.TempDir()
	for file, o := range map[string]devca.Options{
		"both-ecdsa":  {Names: []string{"both.example", "plain.example"}},
		"both-rsa":    {Names: []string{"both.example", "plain.example"}, RSA: true},
		"exact-ecdsa": {Names: []string{"mail.wild.example"}},
		"wild-ecdsa":  {Names: []string{"*.wild.example"}},
		"wild-rsa":    {Names: []string{"*.wild.example"}, RSA: true},
	} {
		must(t, issue(t, o).Write(dir, file))
	}
	f := openFixture(t, dir, configs.TLS{
		Certificates: []string{dir},
		Terms:        configs.Terms{KeyType: configs.KeyTypeRSA},
		Policies:     []configs.TLSPolicy{{SNI: []string{"plain.example"}, Terms: configs.Terms{KeyType: configs.KeyTypeECDSA}}},
	}, quick)
	onlyECDSA := []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	for _, tt := range []struct {
		sni    string
		suites []uint16
		order  string // of the candidates
		shown  string
	}{
		{"both.example", nil, "both-rsa both-ecdsa", "both-rsa"},
		{"both.example", onlyECDSA, "both-rsa both-ecdsa", "both-ecdsa"},
		{"plain.example", nil, "both-ecdsa both-rsa", "both-ecdsa"},
		{"mail.wild.example", nil, "exact-ecdsa wild-rsa wild-ecdsa", "exact-ecdsa"},
		{"other.wild.example", nil, "wild-rsa wild-ecdsa", "wild-rsa"},
	} {
		explained := f.Explain(tt.sni, ListenerTLS{})
		var order []string
		for _, c := range explained.Certificates {
			order = append(order, strings.TrimSuffix(filepath.Base(c.ChainFile), ".crt"))
		}
		if got := strings.Join(order, " "); got != tt.order {
			t.Errorf("%s: candidates %q, want %q", tt.sni, got, tt.order)
		}
		c := client(tt.sni)
		if c.CipherSuites = tt.suites; tt.suites != nil {
			c.MaxVersion = tls.VersionTLS12
		}
		state, err := handshake(f.Config(ListenerTLS{}), c)
		must(t, err)
		want := read(t, filepath.Join(dir, tt.shown+".crt"))
		if !bytes.HasPrefix(want, block("CERTIFICATE", state.PeerCertificates[0].Raw)) {
			t.Errorf("%s is not shown %s", tt.sni, tt.shown)
		}
	}
}

// A certificate may come between the moment in which a client's policy is found and that in which it is shown one: it is
// not shown under the policy of another name.
func TestPolicyOfOtherIndex(t *testing.T) {
	f := newPolicyFixture(t, configs.TLS{
		Default:  pointer("weak.example"),
		Policies: []configs.TLSPolicy{{SNI: []string{"weak.example"}, Terms: configs.Terms{MinVersion: tls12}}},
		Terms:    configs.Terms{MinVersion: tls13},
	}, "weak.example")
	weak, err := f.Config(ListenerTLS{}).GetConfigForClient(&tls.ClientHelloInfo{ServerName: "strict.example"})
	must(t, err)
	c := client("strict.example")
	c.MaxVersion = tls.VersionTLS12
	if _, err := handshake(weak, c); err != nil {
		t.Fatal(err)
	}
	leaf := leafFor(t, "strict.example")
	must(t, leaf.Write(f.dir, "strict"))
	f.awaitShow("strict.example", leaf)
	mustRefuse(t, weak, c, "unrecognized name")
	mustRefuse(t, f.Config(ListenerTLS{}), c, "protocol version")
}
