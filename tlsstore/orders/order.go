package orders

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/acme"
)

// The challenges that are answered, as the authority calls them.
const (
	http01    = "http-01"     // RFC 8555 section 8.3
	tlsALPN01 = "tls-alpn-01" // RFC 8737
)

// order is one order for one name.
type order struct {
	*acme.Client
	cache *cache
	name  string
	kinds []string // of challenges that can be answered, those to try first first
}

// run does the whole dance of RFC 8555 section 7.4, and lays the certificate down.
func (o order) run(ctx context.Context) error {
	placed, err := o.AuthorizeOrder(ctx, acme.DomainIDs(o.name))
	if err != nil {
		return fmt.Errorf("placing the order: %w", err)
	}
	for _, url := range placed.AuthzURLs {
		if err := o.authorize(ctx, url); err != nil {
			return err
		}
	}
	ready, err := o.WaitOrder(ctx, placed.URI)
	if err != nil {
		return fmt.Errorf("waiting until the order is ready: %w", err)
	}
	data, err := o.finalize(ctx, ready)
	if err != nil {
		return fmt.Errorf("getting the certificate: %w", err)
	}
	leaf, err := parsePair(data, o.name)
	if err == nil && time.Now().After(leaf.NotAfter) {
		err = fmt.Errorf("it has expired on %v", leaf.NotAfter)
	}
	if err != nil {
		return fmt.Errorf("the authority has issued a useless certificate: %w", err)
	}
	return o.cache.setCertificate(o.name, data)
}

// authorize proves that the name is ours, unless the authority remembers that from before.
func (o order) authorize(ctx context.Context, url string) error {
	z, err := o.GetAuthorization(ctx, url)
	if err != nil {
		return fmt.Errorf("asking for the challenges: %w", err)
	}
	if z.Status == acme.StatusValid {
		return nil
	}
	challenge, err := o.choose(z)
	if err != nil {
		return err
	}
	file, answer, err := o.answer(challenge)
	if err == nil {
		err = o.cache.write(answer, challenges, file)
	}
	if err != nil {
		return fmt.Errorf("preparing the answer to %s: %w", challenge.Type, err)
	}
	_, err = o.Accept(ctx, challenge)
	if err == nil {
		_, err = o.WaitAuthorization(ctx, url)
	}
	if err = errors.Join(err, o.cache.remove(challenges, file)); err != nil {
		return fmt.Errorf("answering %s: %w", challenge.Type, err)
	}
	return nil
}

// choose takes the first of our kinds that the authority offers.
func (o order) choose(z *acme.Authorization) (*acme.Challenge, error) {
	var offered []string
	for _, c := range z.Challenges {
		offered = append(offered, c.Type)
	}
	for _, kind := range o.kinds {
		if i := slices.Index(offered, kind); i >= 0 {
			return z.Challenges[i], nil
		}
	}
	return nil, fmt.Errorf("the authority offers %q, in a state that is %s, and only %q can be answered here",
		offered, z.Status, o.kinds)
}

// answer makes what a challenge wants to see, and the name of the file in which every frontend finds it.
func (o order) answer(c *acme.Challenge) (file string, data []byte, err error) {
	if !isToken(c.Token) {
		return "", nil, fmt.Errorf("the authority's token %q is none", c.Token)
	}
	if c.Type == http01 {
		text, err := o.HTTP01ChallengeResponse(c.Token)
		return c.Token, []byte(text), err
	}
	cert, err := o.TLSALPN01ChallengeCert(c.Token, o.name)
	if err != nil {
		return "", nil, err
	}
	key, err := encodeKey(cert.PrivateKey)
	return o.name + ".pem", append(encodeChain(cert.Certificate), key...), err
}

// finalize asks for a certificate for a key that is new, and returns the file with both.
func (o order) finalize(ctx context.Context, ready *acme.Order) ([]byte, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{o.name}}, key)
	if err != nil {
		return nil, err
	}
	chain, _, err := o.CreateCertFromOrder(ctx, ready, csr, true)
	return append(encodeChain(chain), keyPEM...), err
}

func encodeChain(chain [][]byte) []byte {
	var data bytes.Buffer
	for _, der := range chain {
		_ = pem.Encode(&data, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a buffer takes everything
	}
	return data.Bytes()
}
