// Package backends knows the mail stores: which of them a user belongs to, how to reach it, what it can do, and how to
// log in there. It hands out connections that are logged in.
package backends

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emersion/go-sasl"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// Store is one protocol, the side that talks to a store. It has no state: all of it is in the connection.
type Store interface {
	// Open takes a fresh connection through greeting, TLS and capabilities, and tells the store of the client.
	Open(c *wire.Conn, o Opening) (Capabilities, error)
	// Login logs in. A *Plain may become the protocol's own command where the store has no SASL for it. An error that
	// is no *Refusal means that the connection is broken or talks nonsense.
	Login(c *wire.Conn, caps Capabilities, m sasl.Client) (Welcome, error)
	// Leave says goodbye, and waits a moment for the store to close, so that its log has an orderly end.
	Leave(c *wire.Conn)
}

// Welcome is what a store said when it let a user in.
type Welcome struct {
	Capabilities string // of the authenticated state, in the protocol's own words; "" where the store said none
	Final        []byte // the last message of the SASL exchange, where it came with the success; nil if none did
}

// stores has the Store for each protocol that a backend can have an address for.
var stores = map[configs.Service]Store{
	configs.IMAP:       imapStore{},
	configs.POP3:       pop3Store{},
	configs.Submission: smtpStore{},
	configs.Sieve:      sieveStore{},
	configs.LMTP:       smtpStore{lmtp: true},
}

// Refusal is a store's own answer to a login.
type Refusal struct {
	Code   string // the protocol's response code in upper case, "" if none
	Text   string // for the log, never for the client
	Denied bool   // the credentials are wrong; else the store cannot now
}

func (r *Refusal) Error() string {
	if r.Code != "" {
		return fmt.Sprintf("refused with [%s] %q", r.Code, r.Text)
	}
	return fmt.Sprintf("refused with %q", r.Text)
}

// Denied reports whether a login failed for the client's own credentials, as opposed to a failure of the world.
func Denied(err error) bool {
	refusal, ok := errors.AsType[*Refusal](err)
	return ok && refusal.Denied
}

// undenied makes a failure of the world of a refusal of something that is no login.
func undenied(err error) error {
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		refusal.Denied = false
	}
	return err
}

// leaveLimit is how long a store may take to close. A variable, so that tests need not wait.
var leaveLimit = time.Second

// leave sends the command that ends a session, and reads what the store still has to say.
func leave(c *wire.Conn, logout string) {
	c.Send(logout)
	_ = c.SetDeadline(time.Now().Add(leaveLimit))
	for range maxNoise {
		if _, err := c.ReadLine(); err != nil {
			return
		}
	}
}

// maxNoise bounds the lines that a store may send before it answers.
const maxNoise = 100

var errNoise = errors.New("store talks without answering")

// nextResponse hands a challenge in base64 to a mechanism.
func nextResponse(m sasl.Client, challenge string) ([]byte, error) {
	decoded, err := wire.DecodeBase64(challenge)
	if err != nil {
		return nil, fmt.Errorf("challenge of the store: %w", err)
	}
	return m.Next(decoded)
}

// splitStatus takes "OK [CODE args] text" apart (RFC 9051 section 9: resp-cond-state; RFC 2449 section 3).
func splitStatus(s string) (status, code, text string) {
	status, text, _ = strings.Cut(s, " ")
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if c, t, ok := strings.Cut(rest, "]"); ok {
			code, text = c, strings.TrimPrefix(t, " ")
		}
	}
	return strings.ToUpper(status), code, text
}

// saslInitial encodes an initial response; "=" is the empty one (RFC 4959 section 3, RFC 4954 section 4, RFC 5034 section 4).
func saslInitial(response []byte) string {
	if len(response) == 0 {
		return "="
	}
	return wire.EncodeBase64(response)
}
