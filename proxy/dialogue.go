// Package proxy faces the clients: it listens, talks to each client in its protocol until the client is logged in at the
// store that holds the user's mail, and then relays bytes.
package proxy

import (
	"errors"
	"strings"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/relay"
	"jackdaw/internal/wire"
)

// Dialogue is one protocol, the side that talks to the client, until login. It knows syntax; policy is the session's.
type Dialogue interface {
	// Greet says hello.
	Greet() error
	// Next reads one command. It answers everything by itself but a login, which it returns. io.EOF and errLogout are orderly
	// ends; a *syntaxError is for Refuse to answer.
	Next() (*Attempt, error)
	// Accept answers the last attempt: the client is in, and the next byte is the store's.
	Accept(backends.Welcome) error
	// Refuse answers the last attempt: the client is not in. For a *syntaxError it says what was wrong, else it says
	// reasonFor(err).
	Refuse(err error) error
	// Bye says why the session ends, where the protocol has words for it.
	Bye(Reason)
}

// protocol is what the session must know of a protocol.
type protocol struct {
	dialogue func(*session) Dialogue
	// promise lists what a client hears before login of stores with these capabilities, which are none if none was reached.
	promise func(backends.Capabilities) []backends.Capability
	// bye ends a session in the relay, at a place where the client expects a line; "" where no line can come unasked for.
	bye func(Reason) string
	// guard, where there is one, watches what a logged-in client and its store say; it may be nil for a store that needs none.
	guard func(store *backends.Connection) relay.Guard
}

var protocols = map[configs.Service]protocol{
	configs.IMAP:       {dialogue: newIMAP, promise: imapPromise, bye: imapBye},
	configs.POP3:       {dialogue: newPOP3, promise: pop3Promise, bye: pop3Bye},
	configs.Submission: {dialogue: newSubmission, promise: submissionPromise, bye: smtpBye, guard: newSubmissionGuard},
	configs.LMTP:       {promise: lmtpPromise}, // which has no login: see session.deliver
	configs.Sieve:      {dialogue: newSieve, promise: sievePromise, bye: sieveBye, guard: newSieveGuard},
}

// Promised lists what a client of the service is promised before login, beside STARTTLS and mechanisms.
func Promised(service configs.Service, caps backends.Capabilities) []backends.Capability {
	return protocols[service.Protocol()].promise(caps)
}

var (
	errLogout   = errors.New("client logged out")
	errNonsense = errors.New("client does not speak the protocol")
	errTooLong  = errors.New("client sent a line or a literal that is too long")
)

// maxMistakes is how many errors of syntax a client may make.
const maxMistakes = 10

// talk is what dialogues have in common.
type talk struct {
	*session
	mistakes int
}

// mistake counts an error of the client's; the last one ends the session.
func (t *talk) mistake() error {
	t.mistakes++
	if t.mistakes > maxMistakes {
		return errNonsense
	}
	return nil
}

// fromBrowser tells an HTTP request by what is left of its first line. No mail client sends one: somebody has made a browser
// talk to us, and is not to see how we answer (ALPACA).
func fromBrowser(args *wire.Args) bool {
	rest := args.Rest()
	return strings.HasSuffix(rest, " HTTP/1.1") || strings.HasSuffix(rest, " HTTP/1.0")
}

// canStartTLS tells whether STARTTLS makes sense.
func (t *talk) canStartTLS() bool { return t.peer.TLS == 0 }

// mayLogin tells whether a secret may be asked for on this connection.
func (t *talk) mayLogin() bool {
	return t.peer.TLS != 0 || t.peer.In(t.settings.listener.PlaintextFrom)
}

// mechanisms lists what the client may log in with at this moment.
func (t *talk) mechanisms(caps backends.Capabilities) []string {
	if !t.mayLogin() {
		return nil
	}
	names := Offered(caps)
	if t.external != "" {
		names = append(names, "EXTERNAL")
	}
	return names
}

// ask sends a challenge as IMAP and POP3 do. The empty one keeps its blank (RFC 9051 section 9: continue-req; RFC 5034
// section 4).
func (t *talk) ask(challenge []byte) ([]byte, error) {
	t.conn.Send("+ ", wire.EncodeBase64(challenge), "\r\n")
	line, err := t.conn.ReadLine()
	if err != nil {
		return nil, fatal(err)
	}
	return saslResponse(string(line))
}

// fatal turns what cannot be answered line by line into the end of the session.
func fatal(err error) error {
	_, literal := errors.AsType[*wire.LiteralError](err)
	switch {
	case errors.Is(err, errSync):
		return errNonsense
	case literal, errors.Is(err, wire.ErrTooLong):
		return errTooLong
	}
	return err
}
