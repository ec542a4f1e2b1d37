package tlsstore

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
)

// Clients are the authorities that vouch for clients. They do not change: the file is read anew at each reload, and not
// watched, since what is taken out of it must be gone when the operator says so, and what is half-written must let nobody in.
type Clients struct {
	pool  *x509.CertPool
	count int
	id    string // the same for the same authorities
}

// ReadClients reads a PEM file of certificates. "" stands for no authorities, which are nil.
func ReadClients(file string) (*Clients, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading client_ca: %w", err)
	}
	certs, err := parseCertificates(data)
	if err == nil && len(certs) == 0 {
		err = errors.New("no certificate in it")
	}
	if err != nil {
		return nil, fmt.Errorf("reading client_ca: %s: %w", file, err)
	}
	return newClients(certs), nil
}

func newClients(certs []*x509.Certificate) *Clients {
	digests := make([]digest, len(certs))
	pool := x509.NewCertPool()
	for i, cert := range certs {
		digests[i] = digestOf(cert.Raw)
		pool.AddCert(cert)
	}
	slices.SortFunc(digests, func(a, b digest) int { return slices.Compare(a[:], b[:]) })
	digests = slices.Compact(digests)
	all := sha256.New()
	for _, d := range digests {
		all.Write(d[:])
	}
	return &Clients{pool, len(digests), hex.EncodeToString(all.Sum(nil))}
}

// Count tells how many authorities there are.
func (c *Clients) Count() int { return c.count }
