package orders

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/crypto/acme"

	"jackdaw/configs"
)

const (
	requestLimit = 30 * time.Second // of one request to the authority
	maxAnswer    = 1 << 20          // bytes; chains have some thousand
	maxPoll      = 15 * time.Second // between two looks at what the authority is doing
	maxRetries   = 3                // of one request
)

// connect makes a client with our account, which is opened if there is none. It lives for one order: those are rare, and an
// authority that has changed meanwhile is met anew.
func connect(ctx context.Context, config *configs.ACME, key crypto.Signer, over http.RoundTripper) (*acme.Client, error) {
	client := &acme.Client{
		Key:          key,
		HTTPClient:   &http.Client{Transport: polite{over}, Timeout: requestLimit},
		DirectoryURL: config.Directory,
		RetryBackoff: retry,
		UserAgent:    "jackdaw",
	}
	// Some authorities take the key of a binding once only, so whether there is an account already is asked first.
	account, err := client.GetReg(ctx, "")
	if errors.Is(err, acme.ErrNoAccount) {
		account, err = register(ctx, config, client)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the account at %s: %w", config.Directory, err)
	}
	client.KID = acme.KeyID(account.URI)
	return client, nil
}

func register(ctx context.Context, config *configs.ACME, client *acme.Client) (*acme.Account, error) {
	account := new(acme.Account)
	if config.Email != "" {
		account.Contact = []string{"mailto:" + config.Email}
	}
	if config.EABKid != "" {
		mac, err := config.MAC()
		if err != nil {
			return nil, err
		}
		account.ExternalAccountBinding = &acme.ExternalAccountBinding{KID: config.EABKid, Key: mac}
	}
	return client.Register(ctx, account, acme.AcceptTOS)
}

// retry says when to send a request again, where package acme asks. Of the 4xx it asks only for a used nonce (RFC 8555
// section 6.5) and for 429. Who names a time himself is not asked again before that, and an order does not wait so long.
func retry(n int, _ *http.Request, res *http.Response) time.Duration {
	if n > maxRetries || res.StatusCode == http.StatusTooManyRequests || res.Header.Get("Retry-After") != "" {
		return 0
	}
	return time.Duration(n) * time.Second
}

// newTransport makes connections of our own to the authority. The file is read for each order: it may have changed.
func newTransport(caFile string) (*http.Transport, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if caFile == "" {
		return transport, nil
	}
	data, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("reading the authorities of the ACME server: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("reading the authorities of the ACME server: %s holds no certificate", caFile)
	}
	transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	return transport, nil
}

// polite keeps package acme from what an odd answer would have it do: read without end, wait without end, or, at a time that
// has passed by our clock, ask again without a pause.
type polite struct{ http.RoundTripper }

func (p polite) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := p.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxAnswer), res.Body}
	if wait := retryAfter(res.Header); res.StatusCode < 300 && wait > 0 {
		seconds := int(min(wait, maxPoll).Seconds() + 0.5)
		res.Header.Set("Retry-After", strconv.Itoa(max(seconds, 1)))
	} else if res.StatusCode < 300 {
		res.Header.Del("Retry-After")
	}
	return res, nil
}

// retryAfter is how long the authority asks us to wait (RFC 9110 section 10.2.3); 0 if it does not.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(time.Until(at), 0)
	}
	return 0
}

// accountKey reads the key by which the authority knows us, and makes one if there is none. One that cannot be read is left
// for somebody to look at: all that the authority knows of us hangs on it.
func (c *cache) accountKey() (crypto.Signer, error) {
	path := c.path("account.key")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c.newAccountKey(path)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("reading the account's key: %s holds no PEM block", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the account's key in %s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("reading the account's key: a %T in %s cannot sign", key, path)
	}
	return signer, nil
}

func (c *cache) newAccountKey(path string) (crypto.Signer, error) {
	key, data, err := newKey()
	if err == nil {
		err = place(path, data, os.Link)
	}
	if err != nil {
		return nil, fmt.Errorf("making a key for the account: %w", err)
	}
	return key, nil
}

// newKey makes a private key, and the PEM file for it.
func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	data, err := encodeKey(key)
	return key, data, err
}

func encodeKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
