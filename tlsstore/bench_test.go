package tlsstore

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

// BenchmarkHandshake is both sides of a handshake, over sockets, under one of twenty names. The client's side costs as
// much in all of them.
func BenchmarkHandshake(b *testing.B) {
	for _, bb := range []struct {
		about   string
		rsa     bool
		resumed bool
		version uint16
		group   tls.CurveID
	}{
		{"ecdsa", false, false, tls.VersionTLS13, tls.X25519},
		{"mlkem", false, false, tls.VersionTLS13, tls.X25519MLKEM768},
		{"tls12", false, false, tls.VersionTLS12, tls.X25519},
		{"rsa", true, false, tls.VersionTLS13, tls.X25519},
		{"resumed", false, true, tls.VersionTLS13, tls.X25519},
	} {
		b.Run(bb.about, func(b *testing.B) {
			config := benchStore(b, bb.rsa).Config(ListenerTLS{Service: configs.IMAPS})
			c := client("mail.17.example")
			c.MinVersion, c.MaxVersion, c.CurvePreferences = bb.version, bb.version, []tls.CurveID{bb.group, tls.CurveP256}
			if bb.resumed {
				c.ClientSessionCache = new(oneSession)
				if _, err := handshake(config, c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				if state, err := handshake(config, c); err != nil || state.DidResume != bb.resumed {
					b.Fatal(state.DidResume, err)
				}
			}
		})
	}
}

// BenchmarkConfig is what a handshake asks of the store: terms and certificate of a name.
func BenchmarkConfig(b *testing.B) {
	config := benchStore(b, false).Config(ListenerTLS{Service: configs.IMAPS})
	hello := &tls.ClientHelloInfo{
		ServerName:        "mail.17.example",
		CipherSuites:      []uint16{tls.TLS_AES_128_GCM_SHA256},
		SupportedVersions: []uint16{tls.VersionTLS13},
		SupportedCurves:   []tls.CurveID{tls.X25519, tls.CurveP256},
		SignatureSchemes:  []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256},
		Conn:              new(net.TCPConn),
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := config.GetConfigForClient(hello); err != nil {
			b.Fatal(err)
		}
		if cert, err := config.GetCertificate(hello); cert == nil || err != nil {
			b.Fatal(cert, err)
		}
	}
}

// benchStore has a certificate for each of twenty names.
func benchStore(b *testing.B, rsa bool) *Store {
	dir := b.TempDir()
	for i := range 20 {
		name := fmt.Sprintf("mail.%d.example", i)
		must(b, issue(b, devca.Options{Names: []string{name}, RSA: rsa && i == 17}).Write(dir, name))
	}
	s := Open(Options{TLS: configs.TLS{Certificates: []string{dir}}, Tickets: NewTickets(), Log: zap.NewNop()})
	b.Cleanup(s.Close)
	return s
}
