package tlsstore

import (
	"crypto/tls"
	"time"
)

// ListenerTLS is what a listener adds to the store's own settings.
type ListenerTLS struct {
	// ALPN lists the protocols (RFC 7301) of which a client must offer one, if it offers any.
	ALPN []string
	// Default overrides the default of [tls], unless it is nil.
	Default *string
	// Clients have issued the certificates by which clients may say who they are; nil asks for none.
	Clients *Clients
}

// cipherSuites are those of TLS 1.2 that RFC 9325 section 4.2 recommends: forward secrecy and AEAD.
var cipherSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// Config makes the configuration of one listener. It serves all names, and follows changes of the files by itself.
func (s *Store) Config(l ListenerTLS) *tls.Config {
	fallback := s.fallback(l.Default)
	choose := func(sni string) choice { return s.index.choose(sni, fallback) }
	config := &tls.Config{
		MinVersion:   uint16(s.cfg.MinVersion),
		CipherSuites: cipherSuites,
		NextProtos:   l.ALPN,
		// Without a certificate crypto/tls answers with the alert unrecognized_name (RFC 6066 section 3).
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.pick(choose(hello.ServerName).pairs, hello, time.Now()), nil
		},
		WrapSession:   s.tickets.wrap(choose, l.Clients),
		UnwrapSession: s.tickets.unwrap(choose, l.Clients),
	}
	if l.Clients != nil {
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, l.Clients.pool
	}
	return config
}

// fallback is the name, as the index has it, whose certificate is shown to a client without a name of ours; "" means
// that such a client is refused.
func (s *Store) fallback(listenerDefault *string) string {
	switch {
	case listenerDefault != nil:
		return indexed(*listenerDefault)
	case s.cfg.Default != nil:
		return indexed(*s.cfg.Default)
	}
	return indexed(s.hostname)
}

// Match returns the name that a client sent by SNI, in lower case, if it is a DNS name that a certificate matches.
// Anything else must count as no name, and be written nowhere.
func (s *Store) Match(sni string) (name string, ok bool) {
	name, ok = dnsName(sni)
	if !ok || len(s.index.lookup(name).pairs) == 0 {
		return "", false
	}
	return name, true
}
