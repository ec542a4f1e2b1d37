package tlsstore

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"

	"jackdaw/configs"
)

// ClientCAs holds those that vouch for clients, by the file that a client_ca names. They do not change: the files are read
// anew at each reload, and not watched, since what is taken out of one must be gone when the operator says so, and what is
// half-written must let nobody in.
type ClientCAs map[string]*Clients

// Clients are the authorities in one file.
type Clients struct {
	pool  *x509.CertPool
	count int
	id    string // the same for the same authorities
}

// ReadClients reads the files of every client_ca, that of [tls] and those of its policies.
func ReadClients(cfg configs.TLS) (ClientCAs, error) {
	files := []string{cfg.ClientCA}
	for _, policy := range cfg.Policies {
		files = append(files, policy.ClientCA)
	}
	all := make(ClientCAs)
	for _, file := range files {
		if file == "" || all[file] != nil {
			continue
		}
		clients, err := readClients(file)
		if err != nil {
			return nil, fmt.Errorf("reading client_ca: %w", err)
		}
		all[file] = clients
	}
	return all, nil
}

// readClients reads a PEM file of certificates, one at least.
func readClients(file string) (*Clients, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	certs, err := parseCertificates(data)
	if err == nil && len(certs) == 0 {
		err = errors.New("no certificate in it")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
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
