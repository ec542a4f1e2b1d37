package tlsstore

import (
	"bytes"
	"crypto/x509"
	"slices"
	"sync"
)

// maxAuthorities bounds how many authorities' certificates are remembered.
const maxAuthorities = 10_000

// authorities are the certificates of authorities that were found, each parsed once however many files repeat it. They complete
// the chain of a certificate that stands alone in its file. One whose file is gone is remembered: no client trusts a
// certificate just because we show it.
type authorities struct {
	mu        sync.RWMutex
	certs     map[digest]*x509.Certificate
	bySubject map[string][]*x509.Certificate // by the DER form
}

func newAuthorities() *authorities {
	return &authorities{certs: make(map[digest]*x509.Certificate), bySubject: make(map[string][]*x509.Certificate)}
}

// parse parses a certificate. fresh says that it is an authority's that was not known before.
func (a *authorities) parse(der []byte) (cert *x509.Certificate, fresh bool, err error) {
	id := digestOf(der)
	a.mu.RLock()
	cert = a.certs[id]
	a.mu.RUnlock()
	if cert != nil {
		return cert, false, nil
	}
	cert, err = x509.ParseCertificate(der)
	if err != nil || !isAuthority(cert) {
		return cert, false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.certs[id] == nil && len(a.certs) < maxAuthorities {
		a.certs[id] = cert
		subject := string(cert.RawSubject)
		a.bySubject[subject] = append(a.bySubject[subject], cert)
		fresh = true
	}
	return cert, fresh, nil
}

// complete returns the chain of a certificate whose file has no issuer of it: certificates that are known from other files,
// but no root, which clients have to have themselves. The one that is valid longest is taken of several.
func (a *authorities) complete(leaf *x509.Certificate) [][]byte {
	a.mu.RLock()
	defer a.mu.RUnlock()
	chain := [][]byte{leaf.Raw}
	for cert := leaf; ; {
		issuer := a.issuer(cert)
		if issuer == nil || slices.ContainsFunc(chain, func(der []byte) bool { return bytes.Equal(der, issuer.Raw) }) {
			return chain
		}
		chain = append(chain, issuer.Raw)
		cert = issuer
	}
}

func (a *authorities) issuer(cert *x509.Certificate) (best *x509.Certificate) {
	for _, c := range a.bySubject[string(cert.RawIssuer)] {
		if issued(c, cert) && !selfIssued(c) && (best == nil || c.NotAfter.After(best.NotAfter)) && cert.CheckSignatureFrom(c) == nil {
			best = c
		}
	}
	return best
}

// knows reports whether there is an authority of that subject to complete chains with.
func (a *authorities) knows(subject string) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.ContainsFunc(a.bySubject[subject], func(c *x509.Certificate) bool { return !selfIssued(c) })
}

func selfIssued(cert *x509.Certificate) bool { return bytes.Equal(cert.RawSubject, cert.RawIssuer) }

// kind is what many certificates have in common.
type kind struct {
	keyType string // as KeyType has it
	rank    int    // among the certificates for one name; lower is better
	issuer  string
	subject string // of the issuer, in its DER form
	weak    string // why clients may refuse it; "" mostly
}

// kinds holds each kind once.
type kinds struct {
	mu    sync.RWMutex
	known map[string]*kind
}

func (k *kinds) of(cert *x509.Certificate) *kind {
	id := KeyType(cert) + "\x00" + weakness(cert) + "\x00" + string(cert.RawIssuer)
	k.mu.RLock()
	found := k.known[id]
	k.mu.RUnlock()
	if found != nil {
		return found
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if found = k.known[id]; found == nil {
		found = &kind{KeyType(cert), rank(cert.PublicKey), cert.Issuer.String(), string(cert.RawIssuer), weakness(cert)}
		k.known[id] = found
	}
	return found
}
