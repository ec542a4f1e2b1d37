package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// authority is a throw-away root with one intermediate, which issues all certificates. Its methods may be called
// concurrently.
type authority struct {
	roots        *x509.CertPool
	intermediate *x509.Certificate
	key          crypto.Signer // of the intermediate
}

// openAuthority reads the authority that an earlier run has left in dir, or makes one and leaves it there.
func openAuthority(dir string) (*authority, error) {
	path := filepath.Join(dir, "authority.pem")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = newAuthority(); err == nil {
			err = os.WriteFile(path, data, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("making an authority: %w", err)
	}
	a, err := parseAuthority(data)
	if err != nil {
		return nil, fmt.Errorf("reading the authority in %s: %w", path, err)
	}
	return a, nil
}

// newAuthority returns the root, the intermediate and the intermediate's key in PEM. The root's key is forgotten.
func newAuthority() ([]byte, error) {
	rootKey, err := newECDSA()
	if err != nil {
		return nil, err
	}
	root, err := newIssuer("jackdaw throw-away root", nil, rootKey, rootKey)
	if err != nil {
		return nil, err
	}
	key, err := newECDSA()
	if err != nil {
		return nil, err
	}
	intermediate, err := newIssuer("jackdaw throw-away intermediate", root, key, rootKey)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	return bytes.Join([][]byte{encode(root), encode(intermediate), keyPEM}, nil), err
}

// newIssuer makes an authority's certificate for key, signed by the parent's key, or by its own if there is no parent.
func newIssuer(name string, parent *x509.Certificate, key, signer crypto.Signer) (*x509.Certificate, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().AddDate(0, 0, -1),
		NotAfter:              time.Now().AddDate(1, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	if parent == nil {
		parent = template
	}
	return sign(template, parent, key.Public(), signer)
}

func parseAuthority(data []byte) (*authority, error) {
	root, rest := pem.Decode(data)
	intermediate, rest := pem.Decode(rest)
	key, _ := pem.Decode(rest)
	if root == nil || intermediate == nil || key == nil {
		return nil, errors.New("a PEM block is missing")
	}
	rootCert, err := x509.ParseCertificate(root.Bytes)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(intermediate.Bytes)
	if err != nil {
		return nil, err
	}
	signer, err := x509.ParsePKCS8PrivateKey(key.Bytes)
	if err != nil {
		return nil, err
	}
	a := &authority{roots: x509.NewCertPool(), intermediate: cert, key: signer.(crypto.Signer)}
	a.roots.AddCert(rootCert)
	return a, nil
}

// issue makes a certificate with one name, valid for 90 days. It is about as large as those of public authorities, since
// size is what is measured here.
func (a *authority) issue(name string, public crypto.PublicKey) (*x509.Certificate, error) {
	receipts, err := receipts()
	if err != nil {
		return nil, err
	}
	return sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		DNSNames:              []string{name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(0, 0, 90),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IssuingCertificateURL: []string{"http://issuer.example/intermediate.crt"},
		CRLDistributionPoints: []string{"http://issuer.example/lists/17.crl"},
		ExtraExtensions:       []pkix.Extension{receipts},
	}, a.intermediate, public, a.key)
}

// receipts has the size of two signed certificate timestamps (RFC 6962 section 3.3), and no more sense than that.
func receipts() (pkix.Extension, error) {
	list := make([]byte, 242)
	rand.Read(list)
	value, err := asn1.Marshal(list)
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}, err
}

func sign(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate for %s: %w", template.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

func newECDSA() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func encode(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
