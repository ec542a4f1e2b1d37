package tlsstore

import (
	"cmp"
	"crypto/tls"
	"time"

	"go.uber.org/zap"
)

// How says how a certificate was chosen.
type How string

// The ways to a certificate.
const (
	Exact    How = "exact"    // it has the name
	Wildcard How = "wildcard" // it has a wildcard for the name
	Default  How = "default"  // the client sent no name, or one that no certificate has
	Refused  How = "refused"  // the same, and there is no default: the client gets the alert unrecognized_name
)

// choice is what a client can be shown.
type choice struct {
	how   How
	name  string // whose certificates these are: the client's name, or the default's
	pairs []*pair
}

// choose finds the pairs for what a client sent by SNI.
func (x *index) choose(sni, fallback string) choice {
	if name, ok := dnsName(sni); ok {
		if c := x.lookup(name); c.how != Refused {
			return c
		}
	}
	c := x.lookup(fallback)
	if c.how != Refused {
		c.how = Default
	}
	return c
}

// changing is how long, and how often, a handshake waits for the files of a certificate that was not in memory and is just being
// replaced.
const (
	changing = 50 * time.Millisecond
	patient  = 30
)

// show returns the certificate for a client, or nil.
func (s *Store) show(choose chooser, hello *tls.ClientHelloInfo) *tls.Certificate {
	for range patient {
		pairs := choose(hello.ServerName).pairs
		cert := s.pick(pairs, hello, time.Now())
		if cert != nil || len(pairs) == 0 {
			return cert
		}
		time.Sleep(changing)
	}
	return nil
}

// pick returns the first certificate that the client supports, one that is valid before one that is not. One that cannot be
// read is passed over.
func (s *Store) pick(pairs []*pair, hello *tls.ClientHelloInfo, now time.Time) *tls.Certificate {
	// The name has been looked at already, and a default certificate need not match it.
	nameless := *hello
	nameless.ServerName = ""
	var unsupported, invalid *tls.Certificate
	for _, p := range pairs {
		cert, err := s.certificate(p)
		switch {
		case err != nil:
			s.log.Info("a certificate cannot be loaded as it was", zap.Strings("names", p.names), zap.Error(err))
		case nameless.SupportsCertificate(cert) != nil:
			unsupported = cmp.Or(unsupported, cert)
		case p.valid(now):
			return cert
		default:
			invalid = cmp.Or(invalid, cert)
		}
	}
	return cmp.Or(invalid, unsupported) // crypto/tls knows the alert for what the client and the certificate lack in common
}

// Choice explains what a client would be shown.
type Choice struct {
	How How `json:"how"`
	// Name is the client's name in lower case, if a certificate of ours matches it.
	Name string `json:"name,omitempty"`
	// Default is the name that stands in for a name that does not match; "" refuses.
	Default string `json:"default,omitempty"`
	// Certificates are the candidates, best first; the client gets the first that is valid and that it supports.
	Certificates []Certificate `json:"certificates,omitempty"`
}

// Explain says which certificates a client that sends sni would be shown on a listener, and why. A name of ours that is refused is
// not served for the listener's service.
func (s *Store) Explain(sni string, l ListenerTLS) Choice {
	s.mu.Lock()
	defer s.mu.Unlock()
	fallback := s.fallback(l.Default)
	c := s.index.choose(indexed(sni), fallback)
	explained := Choice{Default: fallback}
	if c.how == Exact || c.how == Wildcard {
		explained.Name = c.name
	}
	c = c.under(s.cfg.Policy(c.name), s.cfg.Terms, l.Service)
	explained.How = c.how
	for _, p := range c.pairs {
		explained.Certificates = append(explained.Certificates, s.registry.report(p, time.Now()))
	}
	return explained
}
