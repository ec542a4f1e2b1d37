package directories

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

// How often a provider is asked for his keys: now and then, after a failure at first soon, and because of a key that nobody knows
// no more often than a stranger may make us. Variables, so that tests need not wait.
var (
	keysEvery = 15 * time.Minute
	keysRetry = time.Second // doubles up to keysPause
	keysPause = 30 * time.Second
)

// providerKeys are the keys that a provider signs tokens with. Safe for concurrent use.
type providerKeys struct {
	fetch   func(ctx context.Context) ([]byte, error)
	log     *zap.Logger
	open    context.Context
	running sync.WaitGroup
	flights singleflight.Group

	mu      sync.Mutex
	keys    []jose.JSONWebKey // those of the last answer
	asked   time.Time         // when the last question began
	failure error             // of it
}

// followKeys asks for keys until open ends.
func followKeys(open context.Context, fetch func(context.Context) ([]byte, error), log *zap.Logger) *providerKeys {
	k := &providerKeys{fetch: fetch, log: log, open: open}
	k.running.Go(k.follow)
	return k
}

// wait returns when nothing runs in the background any more.
func (k *providerKeys) wait() { k.running.Wait() }

func (k *providerKeys) follow() {
	retry := keysRetry
	for {
		wait := keysEvery
		if k.refresh(k.open) != nil {
			wait, retry = retry, min(2*retry, keysPause)
		} else {
			retry = keysRetry
		}
		select {
		case <-time.After(wait):
		case <-k.open.Done():
			return
		}
	}
}

// refresh asks once for all who want to know at the same time. The keys of before hold on after a failure.
func (k *providerKeys) refresh(ctx context.Context) error {
	flight := k.flights.DoChan("", func() (any, error) {
		k.mu.Lock()
		k.asked = time.Now()
		k.mu.Unlock()
		body, err := k.fetch(k.open)
		var keys []jose.JSONWebKey
		if err == nil {
			keys, err = readKeySet(body)
		}
		k.note(keys, err)
		return nil, err
	})
	select {
	case result := <-flight:
		return result.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// note keeps an answer, and tells the log what has changed.
func (k *providerKeys) note(keys []jose.JSONWebKey, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err != nil && k.failure == nil && k.open.Err() == nil:
		k.log.Warn("keys for tokens cannot be fetched", zap.Int("known", len(k.keys)), zap.Error(err))
	case err == nil && (k.failure != nil || len(keys) != len(k.keys)):
		k.log.Info("keys for tokens fetched", zap.Int("keys", len(keys)))
	}
	if k.failure = err; err == nil {
		k.keys = keys
	}
}

// signatures are the algorithms of keys that anybody may know (RFC 7518 section 3.1, RFC 8037). Neither "none" nor a HMAC is among them,
// whose key would be the public one.
var signatures = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// verify reads a token that one of the keys has signed.
func (k *providerKeys) verify(ctx context.Context, token string) (claims, error) {
	parsed, err := jwt.ParseSigned(token, signatures)
	if err != nil || len(parsed.Headers) != 1 {
		return claims{}, fmt.Errorf("%w: it is no token with a signature that could be verified", ErrDenied)
	}
	header := parsed.Headers[0]
	candidates, err := k.find(ctx, header)
	if err != nil {
		return claims{}, err
	}
	for _, key := range candidates {
		var c claims
		if parsed.Claims(key.Key, &c.Claims, &c.all) == nil {
			return c, nil
		}
	}
	return claims{}, fmt.Errorf("%w: none of %d keys has signed the token", ErrDenied, len(candidates))
}

// find returns the keys that may have signed. One that is not known may be new.
func (k *providerKeys) find(ctx context.Context, header jose.Header) ([]jose.JSONWebKey, error) {
	found, recent, failure := k.known(header)
	if len(found) == 0 && !recent {
		if failure = k.refresh(ctx); failure == nil {
			found, _, _ = k.known(header)
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case failure != nil:
		return nil, fmt.Errorf("key of the token is not known: %w", failure)
	}
	return nil, fmt.Errorf("%w: the provider has no key %.50q", ErrDenied, header.KeyID)
}

// known returns the keys that fit, and when it was last tried to learn others, whether that was a short while ago and how it failed.
func (k *providerKeys) known(header jose.Header) (found []jose.JSONWebKey, recent bool, failure error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.keys {
		if (header.KeyID == "" || key.KeyID == header.KeyID) && (key.Algorithm == "" || key.Algorithm == header.Algorithm) {
			found = append(found, key)
		}
	}
	return found, time.Since(k.asked) < keysPause && (k.failure != nil || k.keys != nil), k.failure
}

// readKeySet reads a JWK Set (RFC 7517 section 5). What is there of other kinds, or for other uses, is for others.
func readKeySet(body []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(body, &set) != nil {
		return nil, errors.New("the answer is no set of keys")
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) == nil && signs(key) {
			keys = append(keys, key)
		}
	}
	if keys == nil {
		return nil, errors.New("the answer has no key for signatures")
	}
	return keys, nil
}

// signs reports whether a key is a public one for signatures that we know. RFC 7518 section 3.3 wants 2,048 bits of RSA.
func signs(key jose.JSONWebKey) bool {
	if key.Use != "" && key.Use != "sig" || !key.Valid() {
		return false
	}
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		return public.N.BitLen() >= 2048
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}
