package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"
)

// TestLayouts: in each layout every name has a certificate, a renewed one has another, and clients trust both.
func TestLayouts(t *testing.T) {
	dir := t.TempDir()
	ca, err := openAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []layout{combined, certbot, rsaKeys} {
		s, err := openSet(dir, ca, l, 20)
		if err != nil {
			t.Fatal(err)
		}
		var first [][]byte
		for i := range s.count {
			first = append(first, trusted(t, s, i))
		}
		if s, err = openSet(dir, ca, l, 20); err != nil || !bytes.Equal(trusted(t, s, 7), first[7]) {
			t.Errorf("%s: the set is not used again: %v", l.name, err)
		}
		for range 2 {
			r, err := s.issue(7)
			if err == nil {
				err = s.put(r)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(trusted(t, s, 7), r.cert.Raw) {
				t.Errorf("%s: the renewed certificate is not there", l.name)
			}
		}
		if !bytes.Equal(trusted(t, s, 8), first[8]) {
			t.Errorf("%s: another certificate has changed", l.name)
		}
	}
}

// trusted reads a certificate with its key, and returns it if clients would take it.
func trusted(t *testing.T, s *set, i int) []byte {
	t.Helper()
	chain := s.file(s.nameOf(i))
	key := chain
	if s.certbot {
		chain = filepath.Join(s.served(), s.nameOf(i), "fullchain.pem")
		key = filepath.Join(s.served(), s.nameOf(i), "privkey.pem")
	}
	pair, err := tls.LoadX509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	intermediates := x509.NewCertPool()
	intermediates.AddCert(s.ca.intermediate)
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{
		DNSName: s.nameOf(i), Roots: s.ca.roots, Intermediates: intermediates,
	}); err != nil {
		t.Errorf("%s: %v", s.layout.name, err)
	}
	return pair.Leaf.Raw
}
