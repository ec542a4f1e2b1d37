package proxy

import (
	"errors"
	"strings"

	"jackdaw/backends"
	"jackdaw/internal/relay"
)

// sieveGuard keeps UNAUTHENTICATE (RFC 5804 section 2.14.1) from the store: after it a client could log in as anybody, past
// all routes and limits, on a connection that belongs to the first user's store.
//
// It looks for the word at the end of any line, wherever that line stands. To count the client's strings and literals, and
// look at commands only, would not do: Cyrus, at an error, reads on at the next line and sometimes in the middle of one, so
// that `FOO {16+}` makes the literal's content a command. The price is that a script with such a line cannot be put.
//
// Nor may NUL pass. No script has it and every TLS handshake does: Cyrus takes STARTTLS from a user who is logged in, too,
// and inside of that TLS no guard could see the word.
type sieveGuard struct {
	word []byte // the letters read last, as many as matter
	met  bool   // they were the word, and nothing but blanks came since
}

func newSieveGuard(*backends.Connection) relay.Guard { return &sieveGuard{} }

const unauthenticate = "UNAUTHENTICATE"

var (
	errUnauthenticate = errors.New("client sent UNAUTHENTICATE")
	errNUL            = errors.New("client sent NUL")
)

// Up stops in front of the end of the line, without which the word is no command, or of NUL.
func (g *sieveGuard) Up(p []byte) (int, error) {
	for i, c := range p {
		switch {
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
			g.word = append(g.word, c)
			if surplus := len(g.word) - len(unauthenticate); surplus > 0 {
				g.word = g.word[:copy(g.word, g.word[surplus:])]
			}
			g.met = strings.EqualFold(string(g.word), unauthenticate)
		case g.met && (c == '\r' || c == '\n'):
			return i, errUnauthenticate
		case c == 0:
			return i, errNUL
		default:
			g.word = g.word[:0]
			g.met = g.met && (c == ' ' || c == '\t')
		}
	}
	return len(p), nil
}

// Down lets all pass.
func (*sieveGuard) Down(p []byte) []byte { return p }
