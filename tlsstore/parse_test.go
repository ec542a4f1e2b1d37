package tlsstore

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"jackdaw/internal/devca"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// leafPEM is the leaf without its chain, as certbot's cert.pem.
func leafPEM(l devca.Leaf) []byte { return block("CERTIFICATE", l.TLS.Certificate[0]) }

func caPEM(t testing.TB) []byte {
	t.Helper()
	ca, err := testCA()
	must(t, err)
	return ca.PEM
}

func TestParse(t *testing.T) {
	leaf, ca := leafFor(t, "mail.example"), caPEM(t)
	rsa := issue(t, devca.Options{Names: []string{"rsa.example"}, RSA: true})
	ecDER, err := x509.MarshalECPrivateKey(leaf.TLS.PrivateKey.(*ecdsa.PrivateKey))
	must(t, err)
	crlf := bytes.ReplaceAll(leaf.ChainPEM, []byte("\n"), []byte("\r\n"))
	tests := []struct {
		about        string
		data         [][]byte
		chains, keys int
		length       int // of the first chain
		problem      string
	}{
		{about: "nothing"},
		{about: "text", data: [][]byte{[]byte("This directory contains your keys and certificates.\n-----BEGIN of a story\n")}},
		{about: "chain", data: [][]byte{leaf.ChainPEM}, chains: 1, length: 2},
		{about: "leaf", data: [][]byte{leafPEM(leaf)}, chains: 1, length: 1},
		{about: "authority", data: [][]byte{ca}},
		{about: "key", data: [][]byte{leaf.KeyPEM}, keys: 1},
		{about: "SEC 1 key with parameters", data: [][]byte{block("EC PARAMETERS", []byte{6, 0}), block("EC PRIVATE KEY", ecDER)}, keys: 1},
		{about: "chain and key", data: [][]byte{leaf.ChainPEM, leaf.KeyPEM}, chains: 1, keys: 1, length: 2},
		{about: "key and chain", data: [][]byte{leaf.KeyPEM, leaf.ChainPEM}, chains: 1, keys: 1, length: 2},
		{about: "chain around key", data: [][]byte{leafPEM(leaf), leaf.KeyPEM, ca}, chains: 1, keys: 1, length: 2},
		{about: "chain in the wrong order", data: [][]byte{ca, leafPEM(leaf)}, chains: 1, length: 2},
		{about: "authority twice", data: [][]byte{leaf.ChainPEM, ca}, chains: 1, length: 2},
		{about: "two pairs", data: [][]byte{leaf.ChainPEM, leaf.KeyPEM, rsa.ChainPEM, rsa.KeyPEM}, chains: 2, keys: 2, length: 2},
		{about: "CR LF", data: [][]byte{crlf}, chains: 1, length: 2},
		{about: "other blocks", data: [][]byte{block("DH PARAMETERS", []byte{1}), block("CERTIFICATE REQUEST", []byte{1}), block("OPENSSH PRIVATE KEY", []byte{1}), leaf.ChainPEM}, chains: 1, length: 2},
		{about: "chain cut off in its second block", data: [][]byte{leaf.ChainPEM[:len(leaf.ChainPEM)-100]}, problem: "cut off"},
		{about: "first block damaged", data: [][]byte{leaf.ChainPEM[:300], leaf.ChainPEM}, problem: "cut off"},
		{about: "key cut off", data: [][]byte{leaf.ChainPEM, leaf.KeyPEM[:60]}, problem: "cut off"},
		{about: "no certificate in the block", data: [][]byte{block("CERTIFICATE", []byte("?"))}, problem: "parsing a certificate"},
		{about: "no key in the block", data: [][]byte{block("PRIVATE KEY", []byte("?"))}, problem: "parsing a private key"},
		{about: "encrypted key", data: [][]byte{block("ENCRYPTED PRIVATE KEY", []byte("?"))}, problem: "encrypted"},
		{about: "encrypted key, old form", data: [][]byte{[]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n")}, problem: "encrypted"},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			c, err := newScanner(true).parser.parse(slices.Concat(tt.data...), true)
			if tt.problem != "" {
				if err == nil || !strings.Contains(err.Error(), tt.problem) {
					t.Errorf("error %v, want %s", err, tt.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(c.chains) != tt.chains || len(c.keys) != tt.keys {
				t.Fatalf("%d chains and %d keys, want %d and %d", len(c.chains), len(c.keys), tt.chains, tt.keys)
			}
			if tt.chains > 0 && len(c.chains[0].der) != tt.length {
				t.Errorf("a chain of %d, want %d", len(c.chains[0].der), tt.length)
			}
		})
	}
}

func TestParseKeyTypes(t *testing.T) {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	exchange, err := ecdh.X25519().GenerateKey(rand.Reader)
	must(t, err)
	for _, tt := range []struct {
		private any
		usable  bool
	}{
		{edwards, true},
		{exchange, false}, // it can agree on a secret, but not sign
	} {
		der, err := x509.MarshalPKCS8PrivateKey(tt.private)
		must(t, err)
		if _, err := newScanner(true).parser.parse(block("PRIVATE KEY", der), true); (err == nil) != tt.usable {
			t.Errorf("%T: %v", tt.private, err)
		}
	}
}

// What `openssl req -x509` makes is its own authority, and a server's certificate nevertheless.
func TestParseSelfSigned(t *testing.T) {
	private := leafFor(t, "mail.example").TLS.PrivateKey.(*ecdsa.PrivateKey)
	template := &x509.Certificate{DNSNames: []string{"mail.example"}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	must(t, err)
	c, err := newScanner(true).parser.parse(block("CERTIFICATE", der), true)
	if err != nil || len(c.chains) != 1 || len(c.chains[0].der) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}

// FuzzParse looks for input that crashes the parser, or that it takes for something it cannot have been.
func FuzzParse(f *testing.F) {
	leaf := leafFor(f, "mail.example")
	f.Add(leaf.ChainPEM)
	f.Add(leaf.KeyPEM)
	f.Add(slices.Concat(leaf.KeyPEM, leaf.ChainPEM))
	f.Add(leaf.ChainPEM[:200])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := newScanner(true).parser.parse(data, true)
		if err != nil && (c.chains != nil || c.keys != nil) {
			t.Error("a file with something wrong in it was used")
		}
		for _, chain := range c.chains {
			if len(chain.der) == 0 || !bytes.Equal(chain.der[0], chain.leaf.Raw) {
				t.Error("the chain does not begin with its leaf")
			}
		}
		for _, k := range c.keys {
			if k.signer == nil || !bytes.Contains(data, []byte("PRIVATE KEY")) {
				t.Error("a key came from nowhere")
			}
		}
	})
}
