package directories

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/xdg-go/scram"

	"jackdaw/backends/directories/passwords"
)

// scramDirectory verifies by SCRAM (RFC 5802, RFC 7677) against what a directory has stored. It is between the client and the
// directory alone who the user is, so a name in the exchange may be written in any way that makes the canonical one.
type scramDirectory struct {
	Directory
	made atomic.Bool // the last keys were made of a password, and so take a while
}

// scramMechanisms are those that are spoken here.
var scramMechanisms = map[string]scram.HashGeneratorFcn{"SCRAM-SHA-1": scram.SHA1, "SCRAM-SHA-256": scram.SHA256}

// Lookup hands all to the directory but an exchange of SCRAM. Whom the directory does not know, or of whom nothing is stored that the
// mechanism could do with, gets no challenge, as late as others get theirs.
func (d *scramDirectory) Lookup(ctx context.Context, q Query) (Answer, error) {
	hash, spoken := scramMechanisms[q.Mechanism]
	if !q.Verify || q.Exchange == nil || !spoken {
		return d.Directory.Lookup(ctx, q)
	}
	exchange := q.Exchange
	q.Exchange, q.Verify, q.Stored = nil, false, true
	answer, err := d.Directory.Lookup(ctx, q)
	stored := answer.Stored
	answer.Stored = ""
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			d.waste(ctx, q)
		}
		return answer, err
	}
	keys, err := passwords.KeysOf(ctx, q.Mechanism, stored, scramSalt(q.User))
	if errors.Is(err, passwords.ErrNoKeys) {
		d.waste(ctx, q)
		err = fmt.Errorf("%w: %w", ErrDenied, err)
	}
	if err != nil {
		return Answer{}, err
	}
	d.made.Store(keys.Made)
	if err := converse(hash, keys, exchange); err != nil {
		return Answer{}, err
	}
	answer.Verified = true
	return answer, nil
}

// waste takes as long as it would to make keys, if that is what it takes for others.
func (d *scramDirectory) waste(ctx context.Context, q Query) {
	if d.made.Load() {
		_, _ = passwords.KeysOf(ctx, q.Mechanism, "{PLAIN}an invented password", scramSalt(q.User))
	}
}

// converse challenges the client, and proves at the end that the keys are known here, too.
func converse(hash scram.HashGeneratorFcn, keys passwords.Keys, exchange *Exchange) error {
	server, err := hash.NewServer(func(string) (scram.StoredCredentials, error) {
		factors := scram.KeyFactors{Salt: string(keys.Salt), Iters: keys.Iterations}
		return scram.StoredCredentials{KeyFactors: factors, StoredKey: keys.StoredKey, ServerKey: keys.ServerKey}, nil
	})
	if err != nil {
		return err
	}
	conversation := server.WithNonceGenerator(scramNonce).NewConversation()
	message := exchange.First
	for !conversation.Done() {
		challenge, err := conversation.Step(string(message))
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDenied, err)
		}
		if message, err = exchange.Ask([]byte(challenge)); err != nil {
			return err
		}
	}
	if !conversation.Valid() {
		return ErrDenied
	}
	return nil
}

// scramNonce is 144 bits.
func scramNonce() string {
	nonce := make([]byte, 18)
	_, _ = rand.Read(nonce) // it never fails
	return base64.StdEncoding.EncodeToString(nonce)
}

// scramSecret salts the keys that are made of passwords. It lives as long as the process, so that a user keeps the salt.
var scramSecret = rand.Text()

func scramSalt(user string) []byte {
	mac := hmac.New(sha256.New, []byte(scramSecret))
	mac.Write([]byte(strings.ToLower(user)))
	return mac.Sum(nil)[:16]
}
