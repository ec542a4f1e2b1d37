package tlsstore

import (
	"cmp"
	"crypto/tls"
	"strings"

	"jackdaw/configs"
)

// ListenerTLS is what a listener adds to the store's own settings.
type ListenerTLS struct {
	// Service decides which names are served, and of which protocols (RFC 7301) a client must offer one, if it offers any.
	Service configs.Service
	// Default overrides the default of [tls], unless it is nil.
	Default *string
	// Clients have issued the certificates by which clients may say who they are; nil asks for none, whatever policies say.
	Clients ClientCAs
	// Counts counts the handshakes, unless it is nil.
	Counts *Counts
	// Missed is called, unless it is nil, with every DNS name, in lower case, that a client asks for and no certificate
	// has. It must not block: the handshake waits for it.
	Missed func(name string)
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

// Config makes the configuration of one listener. It serves all names, and follows changes of the files by itself. For every
// policy there is another one behind it, made now and not for each handshake.
//
// A policy is that of the name whose certificate is shown: the client's name, if a certificate has it, and otherwise the
// default's. What a client merely says counts for nothing: it could make up a name that no certificate has and a weaker
// policy matches, and would be shown the default's certificate under the wrong terms. Nor does it escape the terms of a
// name by leaving it out: then it is under those of the default, and not served under the name, for routes and realms as
// for greetings.
func (s *Store) Config(l ListenerTLS) *tls.Config {
	l.Counts = cmp.Or(l.Counts, new(Counts))
	fallback := s.fallback(l.Default)
	general := s.config(l, fallback, nil)
	special := make(map[*configs.TLSPolicy]*tls.Config)
	for i := range s.cfg.Policies {
		policy := &s.cfg.Policies[i]
		special[policy] = s.config(l, fallback, policy)
	}
	// Each handshake comes here first, and once, which no other function of a configuration can say of itself: some are
	// passed over where a session is resumed, or are called several times. So this one counts, too.
	general.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := s.index.choose(hello.ServerName, fallback)
		policy := s.cfg.Policy(c.name)
		l.note(c.how, policy.Serves(l.Service), hello.ServerName)
		return special[policy], nil // nil, where there is no policy, goes on with general
	}
	return general
}

// note counts a handshake, and tells of a name that no certificate has.
func (l *ListenerTLS) note(how How, served bool, sni string) {
	held := how == Exact || how == Wildcard
	if !served {
		how = Refused
	}
	l.Counts.count(how, sni)
	if held || sni == "" {
		return
	}
	if name, ok := l.Counts.miss(sni); ok && l.Missed != nil {
		l.Missed(name)
	}
}

// config makes the configuration of one listener for the names of one policy; nil stands for all names that have none.
func (s *Store) config(l ListenerTLS, fallback string, policy *configs.TLSPolicy) *tls.Config {
	terms := policy.Or(s.cfg.Terms)
	clients := l.Clients[terms.ClientCA]
	choose := func(sni string) choice {
		c := s.index.choose(sni, fallback)
		if s.cfg.Policy(c.name) != policy { // the index has changed since the policy was found
			return choice{how: Refused}
		}
		return c.under(policy, terms, l.Service)
	}
	config := &tls.Config{
		MinVersion:   uint16(terms.MinVersion),
		CipherSuites: cipherSuites,
		NextProtos:   l.Service.ALPN(),
		// Without a certificate crypto/tls answers with the alert unrecognized_name (RFC 6066 section 3).
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.show(choose, hello), nil
		},
		WrapSession:   s.tickets.wrap(choose, clients),
		UnwrapSession: s.tickets.unwrap(choose, clients),
	}
	if clients != nil {
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, clients.pool
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

// Shown returns the name, as it stands in the certificate, of what a client is shown that sends sni, or nothing, on a listener with
// this default; "" if there is none. What policies say of services is not looked at.
func (s *Store) Shown(sni string, listenerDefault *string) string {
	c := s.index.choose(sni, s.fallback(listenerDefault))
	if c.how == Refused || len(s.index.with(c.name)) > 0 {
		return c.name
	}
	_, parent, _ := strings.Cut(c.name, ".")
	return "*." + parent
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
