// Package devca is a throw-away certificate authority for the demo and for tests. Its key lives in memory only, and
// what it issues is worth nothing to anybody who was not given its certificate.
package devca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// CA issues certificates.
type CA struct {
	PEM []byte // the authority's own certificate

	cert *x509.Certificate
	key  crypto.Signer
}

// Options say what a leaf is to be. The zero value of everything but Names is useful; a client needs none of those.
type Options struct {
	Names       []string // DNS names, wildcards and IP addresses
	Emails      []string // mail addresses, by which a client is known
	CommonNames []string // of the subject; default: the first of Names, for people who look at it
	RSA         bool     // an RSA key instead of an ECDSA key
	NotAfter    time.Time
}

// Leaf is a certificate for a server or a client, with its private key.
type Leaf struct {
	ChainPEM []byte // the leaf, then the authority
	KeyPEM   []byte // PKCS #8
	TLS      tls.Certificate
}

// New makes an authority that is valid from a year ago, so that it can issue certificates that have expired.
func New() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the authority's key: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "jackdaw throw-away CA"},
		NotBefore:             time.Now().AddDate(-1, 0, 0),
		NotAfter:              time.Now().AddDate(1, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	cert, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &CA{PEM: encode("CERTIFICATE", cert.Raw), cert: cert, key: key}, nil
}

// Issue makes a leaf; without NotAfter it is valid for 30 days.
func (ca *CA) Issue(o Options) (Leaf, error) {
	key, err := newKey(o.RSA)
	if err != nil {
		return Leaf{}, fmt.Errorf("making a key: %w", err)
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = time.Now().AddDate(0, 0, 30)
	}
	template := &x509.Certificate{
		Subject:        subject(o),
		NotBefore:      ca.cert.NotBefore,
		NotAfter:       o.NotAfter,
		KeyUsage:       x509.KeyUsageDigitalSignature,
		ExtKeyUsage:    []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		EmailAddresses: o.Emails,
	}
	for _, name := range o.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	cert, err := sign(template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return Leaf{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Leaf{}, fmt.Errorf("encoding a key: %w", err)
	}
	return Leaf{
		ChainPEM: append(encode("CERTIFICATE", cert.Raw), ca.PEM...),
		KeyPEM:   encode("PRIVATE KEY", der),
		TLS:      tls.Certificate{Certificate: [][]byte{cert.Raw, ca.cert.Raw}, PrivateKey: key, Leaf: cert},
	}, nil
}

func subject(o Options) pkix.Name {
	if o.CommonNames == nil {
		o.CommonNames = o.Names[:min(len(o.Names), 1)]
	}
	name := pkix.Name{Organization: []string{"jackdaw throw-away certificate"}}
	for _, common := range o.CommonNames { // of which pkix.Name itself takes one alone
		name.ExtraNames = append(name.ExtraNames, pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 3}, Value: common})
	}
	return name
}

// Pool holds the authority alone, for a client's RootCAs.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Write puts the leaf into dir as name.crt and name.key.
func (l Leaf) Write(dir, name string) error {
	if err := os.WriteFile(filepath.Join(dir, name+".crt"), l.ChainPEM, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".key"), l.KeyPEM, 0o600)
}

func newKey(asRSA bool) (crypto.Signer, error) {
	if asRSA {
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate for %q: %w", template.DNSNames, err)
	}
	return x509.ParseCertificate(der)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
