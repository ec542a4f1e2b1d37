package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"jackdaw/tlsstore"
)

// shownCertificate is a certificate as a server has shown it.
type shownCertificate struct {
	Names     []string  `json:"names,omitempty"`
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	KeyType   string    `json:"key_type"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

func show(c *x509.Certificate) shownCertificate {
	shown := shownCertificate{
		Names: slices.Clone(c.DNSNames), Subject: c.Subject.String(), Issuer: c.Issuer.String(),
		KeyType: tlsstore.KeyType(c), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
	for _, ip := range c.IPAddresses {
		shown.Names = append(shown.Names, ip.String())
	}
	return shown
}

// weaknesses says what is wrong with a handshake apart from its certificate.
func weaknesses(state *tls.ConnectionState) (all []string) {
	if state.Version < tls.VersionTLS12 {
		all = append(all, tls.VersionName(state.Version)+" is out of date (RFC 8996)")
	}
	if slices.ContainsFunc(tls.InsecureCipherSuites(), func(s *tls.CipherSuite) bool { return s.ID == state.CipherSuite }) {
		all = append(all, "cipher suite "+tls.CipherSuiteName(state.CipherSuite)+" is weak")
	}
	return all
}

// whenExactly tells of a moment that has passed, perhaps a minute ago.
const whenExactly = "2006-01-02 15:04 MST"

// faults says all that is wrong with a server's chain, in the words of those who can put it right. Of the package's own
// errors there would be one alone.
func faults(chain []*x509.Certificate, name string, roots *x509.CertPool, now time.Time) (all []string) {
	leaf := chain[0]
	at := now
	switch {
	case now.After(leaf.NotAfter):
		all = append(all, "certificate has expired on "+leaf.NotAfter.Format(whenExactly))
		at = leaf.NotAfter // was it good at least?
	case now.Before(leaf.NotBefore):
		all = append(all, "certificate is not valid before "+leaf.NotBefore.Format(whenExactly))
		at = leaf.NotBefore
	}
	if name == "" {
		all = append(all, "nobody said which name the certificate should be for: use --sni")
	} else if leaf.VerifyHostname(name) != nil {
		all = append(all, fmt.Sprintf("certificate is for other names, not for %s", name))
	}
	if err := untrusted(chain, roots, at); err != nil {
		all = append(all, err.Error())
	}
	return all
}

// untrusted says why a chain leads to no authority, or nil.
func untrusted(chain []*x509.Certificate, roots *x509.CertPool, at time.Time) error {
	leaf := chain[0]
	options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: at}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := leaf.Verify(options)
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
		return err
	}
	path := climb(chain)
	top := path[len(path)-1]
	for _, c := range path[1:] {
		if at.After(c.NotAfter) {
			return fmt.Errorf("certificate of the authority %s has expired on %s", c.Subject, c.NotAfter.Format(whenExactly))
		}
	}
	switch {
	case signed(top, top) && top == leaf:
		return errors.New("certificate is signed by itself")
	case signed(top, top):
		return fmt.Errorf("unknown authority %s", top.Subject)
	case top == leaf:
		return fmt.Errorf("incomplete chain: the certificate of the issuer, %s, is not sent, and not known here", leaf.Issuer)
	}
	return fmt.Errorf("unknown authority %s", top.Issuer)
}

// climb goes from a leaf to its issuers as far as they were sent.
func climb(chain []*x509.Certificate) []*x509.Certificate {
	path := chain[:1:1]
	for range chain {
		top := path[len(path)-1]
		i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return !slices.Contains(path, c) && signed(top, c) })
		if i < 0 {
			break
		}
		path = append(path, chain[i])
	}
	return path
}

// signed tells whether a certificate was issued by another.
func signed(c, by *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, by.RawSubject) && by.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
