package tlsstore

import (
	"bytes"
	"crypto/tls"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

func TestCertificateByName(t *testing.T) {
	a, b, wild := leafFor(t, "mail.a.example", "a.example"), leafFor(t, "mail.b.example"), leafFor(t, "*.b.example")
	files := pemFiles("a", a)
	maps.Copy(files, pemFiles("b", b))
	maps.Copy(files, pemFiles("wild", wild))
	f := newFixture(t, files)
	f.mustHaveNoProblems()
	for sni, leaf := range map[string]devca.Leaf{
		"mail.a.example": a,
		"a.example":      a,
		"MAIL.A.Example": a,
		"mail.b.example": b, // exact before wildcard
		"imap.b.example": wild,
	} {
		f.mustShow(sni, leaf)
	}
	for _, sni := range []string{"b.example", "a.b.b.example", "other.example", ""} {
		if f.shown(sni) != nil {
			t.Errorf("%q was shown a certificate", sni)
		}
	}
}

func TestUnknownNames(t *testing.T) {
	own, host, other := leafFor(t, "own.example"), leafFor(t, "host.example"), leafFor(t, "other.example")
	dir := t.TempDir()
	for name, leaf := range map[string]devca.Leaf{"own": own, "host": host, "other": other} {
		must(t, leaf.Write(dir, name))
	}
	tests := []struct {
		about                  string
		hostname               string
		configured, ofListener *string
		want                   *devca.Leaf // nil: the alert
	}{
		{"hostname", "host.example", nil, nil, &host},
		{"hostname without a certificate", "nobody.example", nil, nil, nil},
		{"default", "host.example", pointer("own.example"), nil, &own},
		{"default in capitals", "host.example", pointer("OWN.example"), nil, &own},
		{"empty default", "host.example", pointer(""), nil, nil},
		{"default without a certificate", "host.example", pointer("nobody.example"), nil, nil},
		{"listener's default", "host.example", pointer("own.example"), pointer("other.example"), &other},
		{"listener's default where others are refused", "", pointer(""), pointer("other.example"), &other},
		{"listener's empty default", "host.example", nil, pointer(""), nil},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			cfg := configs.TLS{Certificates: []string{dir}, Default: tt.configured}
			s := open(Options{TLS: cfg, Hostname: tt.hostname, Tickets: NewTickets(), Log: zap.NewNop()}, quick)
			defer s.Close()
			for _, sni := range []string{"", "unknown.example", "a/b", "*.example", strings.Repeat("x", 300)} {
				state, err := handshake(s.Config(ListenerTLS{Default: tt.ofListener}), client(sni))
				switch {
				case tt.want == nil && (err == nil || !strings.Contains(err.Error(), "unrecognized name")):
					t.Errorf("%q: %v, want the alert unrecognized_name", sni, err)
				case tt.want != nil && err != nil:
					t.Errorf("%q: %v", sni, err)
				case tt.want != nil && !state.PeerCertificates[0].Equal(tt.want.TLS.Leaf):
					t.Errorf("%q: shown %q", sni, state.PeerCertificates[0].DNSNames)
				}
			}
		})
	}
}

// A client that says nothing of what it supports, or only one, gets what it can check.
func TestKeyTypeByClient(t *testing.T) {
	names := []string{"mail.example"}
	elliptic, rsa := issue(t, devca.Options{Names: names}), issue(t, devca.Options{Names: names, RSA: true})
	files := pemFiles("elliptic", elliptic)
	maps.Copy(files, pemFiles("rsa", rsa))
	f := newFixture(t, files)
	tests := []struct {
		about  string
		client *tls.Config
		want   devca.Leaf
	}{
		{"TLS 1.3", &tls.Config{}, elliptic},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, elliptic},
		{"TLS 1.2 with RSA suites", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}, rsa},
		{"TLS 1.2 with ECDSA suites", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}, elliptic},
		{"TLS 1.2 without the curve", &tls.Config{MaxVersion: tls.VersionTLS12, CurvePreferences: []tls.CurveID{tls.X25519}}, rsa},
	}
	for _, tt := range tests {
		tt.client.ServerName, tt.client.InsecureSkipVerify = "mail.example", true
		state, err := handshake(f.Config(ListenerTLS{}), tt.client)
		if err != nil {
			t.Errorf("%s: %v", tt.about, err)
		} else if !state.PeerCertificates[0].Equal(tt.want.TLS.Leaf) {
			t.Errorf("%s: shown %v", tt.about, state.PeerCertificates[0].PublicKeyAlgorithm)
		}
	}
}

// A default certificate is chosen by what the client supports, too, although it does not have the client's name.
func TestKeyTypeOfDefault(t *testing.T) {
	dir, rsa := t.TempDir(), issue(t, devca.Options{Names: []string{"mail.example"}, RSA: true})
	must(t, leafFor(t, "mail.example").Write(dir, "elliptic"))
	must(t, rsa.Write(dir, "rsa"))
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}, Default: pointer("mail.example")}, quick)
	c := client("unknown.example")
	c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	state, err := handshake(f.Config(ListenerTLS{}), c)
	if err != nil || !state.PeerCertificates[0].Equal(rsa.TLS.Leaf) {
		t.Errorf("the client was not shown the RSA certificate: %v", err)
	}
}

// The hello is made by hand, since the client of crypto/tls always offers all signature algorithms.
func TestKeyTypeBySignatureAlgorithms(t *testing.T) {
	names := []string{"mail.example"}
	elliptic, rsa := issue(t, devca.Options{Names: names}), issue(t, devca.Options{Names: names, RSA: true})
	files := pemFiles("elliptic", elliptic)
	maps.Copy(files, pemFiles("rsa", rsa))
	f := newFixture(t, files)
	for scheme, want := range map[tls.SignatureScheme]devca.Leaf{tls.ECDSAWithP256AndSHA256: elliptic, tls.PSSWithSHA256: rsa} {
		cert, err := f.Config(ListenerTLS{}).GetCertificate(&tls.ClientHelloInfo{
			ServerName:        "mail.example",
			SupportedVersions: []uint16{tls.VersionTLS13},
			SignatureSchemes:  []tls.SignatureScheme{scheme},
		})
		if err != nil || !slices.EqualFunc(cert.Certificate, want.TLS.Certificate, bytes.Equal) {
			t.Errorf("%v: %v", scheme, err)
		}
	}
}

func TestAmongEqualsTheLatestValid(t *testing.T) {
	names, now := []string{"mail.example"}, time.Now()
	older := issue(t, devca.Options{Names: names, NotAfter: now.AddDate(0, 0, 10)})
	later := issue(t, devca.Options{Names: names, NotAfter: now.AddDate(0, 0, 20)})
	rsa := issue(t, devca.Options{Names: names, RSA: true, NotAfter: now.AddDate(0, 0, 5)})
	expired := issue(t, devca.Options{Names: names, NotAfter: now.AddDate(0, 0, -1)})

	f := newFixture(t, pemFiles("expired", expired))
	f.mustShow("mail.example", expired) // better than nothing: the client may let its user decide
	if !f.hasProblem("expired.crt") {
		t.Error("the expired certificate is no problem")
	}
	for _, leaf := range []devca.Leaf{rsa, older, later} { // each is better than those before
		must(t, leaf.Write(f.dir, leaf.TLS.Leaf.SerialNumber.String()))
		f.awaitShow("mail.example", leaf)
	}
}

func TestALPN(t *testing.T) {
	f := newFixture(t, pemFiles("pair", leafFor(t, "mail.example")))
	server := f.Config(ListenerTLS{Service: configs.IMAP})
	for _, tt := range []struct {
		offered []string
		agreed  string
		alert   string
	}{
		{offered: nil},
		{offered: []string{"imap"}, agreed: "imap"},
		{offered: []string{"h2", "imap"}, agreed: "imap"},
		{offered: []string{"h2", "http/1.1"}, alert: "no application protocol"},
		{offered: []string{"pop3"}, alert: "no application protocol"},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := client("mail.example")
			c.NextProtos, c.MaxVersion = tt.offered, version
			state, err := handshake(server, c)
			switch {
			case tt.alert == "" && err != nil:
				t.Errorf("%q: %v", tt.offered, err)
			case tt.alert == "" && state.NegotiatedProtocol != tt.agreed:
				t.Errorf("%q: agreed on %q", tt.offered, state.NegotiatedProtocol)
			case tt.alert != "" && (err == nil || !strings.Contains(err.Error(), tt.alert)):
				t.Errorf("%q: %v, want the alert %s", tt.offered, err, tt.alert)
			}
		}
	}
}

func TestVersionsAndCipherSuites(t *testing.T) {
	dir := t.TempDir()
	must(t, issue(t, devca.Options{Names: []string{"mail.example"}, RSA: true}).Write(dir, "rsa"))
	tests := []struct {
		about   string
		minimum configs.TLSVersion
		client  *tls.Config
		served  bool
	}{
		{"1.1", tls.VersionTLS12, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"1.2", tls.VersionTLS12, &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"1.2, but 1.3 is asked for", tls.VersionTLS13, &tls.Config{MaxVersion: tls.VersionTLS12}, false},
		{"1.3", tls.VersionTLS13, &tls.Config{}, true},
		{"CBC", tls.VersionTLS12, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}}, false},
		{"RSA key exchange", tls.VersionTLS12, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, false},
		{"ChaCha20", tls.VersionTLS12, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256}}, true},
	}
	for _, tt := range tests {
		f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}, Terms: configs.Terms{MinVersion: tt.minimum}}, quick)
		tt.client.ServerName, tt.client.InsecureSkipVerify = "mail.example", true
		if _, err := handshake(f.Config(ListenerTLS{}), tt.client); (err == nil) != tt.served {
			t.Errorf("%s: %v", tt.about, err)
		}
	}
}

// On reload the old store is closed while its configurations are still in use.
func TestConfigOutlivesStore(t *testing.T) {
	dir := t.TempDir()
	must(t, leafFor(t, "mail.example").Write(dir, "pair"))
	s := Open(Options{TLS: configs.TLS{Certificates: []string{dir}}, Tickets: NewTickets(), Log: zap.NewNop()})
	config := s.Config(ListenerTLS{})
	s.Close()
	s.Close() // twice does no harm
	if _, err := handshake(config, client("mail.example")); err != nil {
		t.Error(err)
	}
}

func TestExplain(t *testing.T) {
	names := []string{"mail.example", "*.wild.example"}
	elliptic, rsa := issue(t, devca.Options{Names: names}), issue(t, devca.Options{Names: names, RSA: true})
	dir := t.TempDir()
	must(t, elliptic.Write(dir, "elliptic"))
	must(t, rsa.Write(dir, "rsa"))
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}, Default: pointer("mail.example")}, quick)
	tests := []struct {
		sni             string
		listenerDefault *string
		how             How
		name            string
	}{
		{"MAIL.example", nil, Exact, "mail.example"},
		{"a.wild.example", nil, Wildcard, "a.wild.example"},
		{"other.example", nil, Default, ""},
		{"other.example", pointer("*.wild.example"), Default, ""},
		{"", pointer(""), Refused, ""},
	}
	for _, tt := range tests {
		c := f.Explain(tt.sni, ListenerTLS{Default: tt.listenerDefault})
		if c.How != tt.how || c.Name != tt.name {
			t.Errorf("%q: %+v", tt.sni, c)
		}
		var files []string
		for _, cert := range c.Certificates {
			files = append(files, filepath.Base(cert.ChainFile))
		}
		want := "elliptic.crt rsa.crt"
		if tt.how == Refused {
			want = ""
		}
		if got := strings.Join(files, " "); got != want {
			t.Errorf("%q: candidates %q, want %q", tt.sni, got, want)
		}
	}
}
