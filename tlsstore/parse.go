package tlsstore

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// parser reads PEM files. It may be used by several goroutines at once.
type parser struct {
	authorities *authorities
	kinds       *kinds
}

// parsed is what one PEM file holds. A file with anything wrong in it holds nothing: it may be half-written.
type parsed struct {
	chains      []chain
	keys        []key
	sealed      bool // there are private keys that were not parsed, as was asked for
	authorities bool // there are certificates of authorities
	authority   bool // one of them was not known before
}

// chain is a certificate that a server can show, and those that lead from it to a root.
type chain struct {
	leaf *x509.Certificate
	der  [][]byte // the leaf first
	id   digest   // of the leaf
	key  digest   // of the leaf's public key
}

// key is a private key.
type key struct {
	signer crypto.Signer
	id     digest // of its public key, which is how a key and its certificate find each other
}

// digest is half of a SHA-256: nobody but the operator chooses what is told apart by it.
type digest [16]byte

func digestOf(data []byte) digest {
	sum := sha256.Sum256(data)
	return digest(sum[:16])
}

// parse reads the certificates in a file, in whatever order they stand, and the private keys if they are to be unsealed, and
// skips everything else.
func (p *parser) parse(data []byte, unseal bool) (parsed, error) {
	blocks, err := p.blocks(data, unseal)
	if err != nil {
		return parsed{}, err
	}
	result := parsed{keys: blocks.keys, sealed: blocks.sealed, authority: blocks.authority}
	result.chains, err = buildChains(blocks.certs)
	if err != nil {
		return parsed{}, err
	}
	result.authorities = len(blocks.certs) > len(result.chains)
	return result, nil
}

// blocks are a file's PEM blocks, parsed.
type blocks struct {
	certs     []*x509.Certificate
	keys      []key
	sealed    bool
	authority bool
}

func (p *parser) blocks(data []byte, unseal bool) (b blocks, err error) {
	wanted := countBegins(data)
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case !isWanted(block.Type):
			continue
		case block.Type == "CERTIFICATE":
			cert, fresh, err := p.authorities.parse(block.Bytes)
			if err != nil {
				return blocks{}, fmt.Errorf("parsing a certificate: %w", err)
			}
			b.authority = b.authority || fresh
			b.certs = append(b.certs, cert)
		case !unseal && !encrypted(block):
			b.sealed = true
		default:
			k, err := parseKey(block)
			if err != nil {
				return blocks{}, fmt.Errorf("parsing a private key: %w", err)
			}
			b.keys = append(b.keys, k)
		}
		wanted--
	}
	if wanted != 0 {
		return blocks{}, errors.New("a PEM block is damaged or cut off")
	}
	return b, nil
}

// parseCertificates reads the certificates in a file that may be anybody's.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	b, err := (&parser{authorities: newAuthorities()}).blocks(data, true)
	return b.certs, err
}

// isWanted tells the PEM blocks that matter here from OpenSSH keys, DH parameters, requests and the like.
func isWanted(blockType string) bool {
	switch blockType {
	case "CERTIFICATE", "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
		return true
	}
	return false
}

// countBegins counts the blocks that ought to be there, because pem.Decode passes over a damaged one in silence.
func countBegins(data []byte) (n int) {
	for line := range bytes.Lines(data) {
		name, ok := bytes.CutPrefix(line, []byte("-----BEGIN "))
		if !ok {
			continue
		}
		if name, ok = bytes.CutSuffix(bytes.TrimSpace(name), []byte("-----")); ok && isWanted(string(name)) {
			n++
		}
	}
	return n
}

func encrypted(block *pem.Block) bool {
	return block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED")
}

func parseKey(block *pem.Block) (key, error) {
	if encrypted(block) {
		return key{}, errors.New("it is encrypted")
	}
	var private any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return key{}, err
	}
	switch signer := private.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
		signing := signer.(crypto.Signer)
		id, err := publicKeyDigest(signing.Public())
		return key{signing, id}, err
	}
	return key{}, fmt.Errorf("a %T cannot sign for a server", private)
}

// publicKeyDigest encodes the key anew, because a certificate's own encoding of it may differ in optional parts.
func publicKeyDigest(public crypto.PublicKey) (digest, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return digest{}, fmt.Errorf("encoding a public key: %w", err)
	}
	return digestOf(der), nil
}

func isAuthority(cert *x509.Certificate) bool { return cert.IsCA && len(cert.DNSNames) == 0 }

// buildChains makes a chain for every certificate that is not just an authority's. An authority's certificate that has
// names counts, because that is what `openssl req -x509` makes by default.
func buildChains(certs []*x509.Certificate) ([]chain, error) {
	var chains []chain
	for _, leaf := range certs {
		if isAuthority(leaf) {
			continue
		}
		keyID, err := publicKeyDigest(leaf.PublicKey)
		if err != nil {
			return nil, err
		}
		chains = append(chains, chain{leaf: leaf, der: chainFrom(leaf, certs), id: digestOf(leaf.Raw), key: keyID})
	}
	return chains, nil
}

// chainFrom puts the leaf's issuers in order: each certificate certifies the one before it (RFC 5246 section 7.4.2).
func chainFrom(leaf *x509.Certificate, certs []*x509.Certificate) [][]byte {
	der := [][]byte{leaf.Raw}
	for cert := leaf; ; {
		i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return issued(c, cert) })
		if i < 0 || slices.ContainsFunc(der, func(d []byte) bool { return bytes.Equal(d, certs[i].Raw) }) {
			return der // the issuer is in another place, or the chain has come to a root
		}
		cert = certs[i]
		der = append(der, cert.Raw)
	}
}

// issued compares names and key identifiers and leaves signatures to the clients, who have to check them anyway.
func issued(issuer, cert *x509.Certificate) bool {
	return issuer.IsCA && bytes.Equal(issuer.RawSubject, cert.RawIssuer) &&
		(len(issuer.SubjectKeyId) == 0 || len(cert.AuthorityKeyId) == 0 || bytes.Equal(issuer.SubjectKeyId, cert.AuthorityKeyId))
}
