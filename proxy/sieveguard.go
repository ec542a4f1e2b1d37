package proxy

import (
	"bytes"
	"errors"
	"strings"
)

// sieveGuard keeps UNAUTHENTICATE (RFC 5804 section 2.14.1) from the store: after it a client could log in as anybody, past
// all routes and limits, on a connection that belongs to the first user's store. To know what is a command, the guard
// counts framing as it passes: lines, quoted strings and literals. What two parsers could read in two ways ends the session.
type sieveGuard struct {
	literal int    // octets of a literal that are still to pass
	word    []byte // the command's name so far; nil behind it
	quoted  bool   // inside of a quoted string
	escaped bool   // behind a backslash in it
	tail    []byte // what began with "{" or CR, and only the end of the line may follow
}

func newSieveGuard() guard { return &sieveGuard{word: []byte{}} }

var (
	errUnauthenticate = errors.New("client sent UNAUTHENTICATE")
	errFraming        = errors.New("client sent what ManageSieve does not allow")
)

// check stops in front of the line that may not pass.
func (g *sieveGuard) check(p []byte) (int, error) {
	for i := 0; i < len(p); {
		if n := min(g.literal, len(p)-i); n > 0 {
			g.literal -= n
			i += n
			continue
		}
		if err := g.text(p[i]); err != nil {
			return bytes.LastIndexByte(p[:i], '\n') + 1, err
		}
		i++
	}
	return len(p), nil
}

// text takes one octet that is not in a literal.
func (g *sieveGuard) text(c byte) error {
	if err := g.name(c); err != nil {
		return err
	}
	bareCR := c != '\n' && bytes.HasSuffix(g.tail, []byte("\r"))
	switch {
	case c == 0 || bareCR:
		return errFraming
	case c == '\n':
		return g.endLine()
	case g.quoted:
		return g.quote(c)
	case c == '"' && len(g.tail) == 0:
		g.quoted = true
	case c == '{' || c == '\r' || len(g.tail) > 0:
		g.tail = append(g.tail, c)
	}
	if len(g.tail) > len("{1234567890+}\r") {
		return errFraming
	}
	return nil
}

// name judges the first word of a command at the octet that ends it, before a store can have seen its end.
func (g *sieveGuard) name(c byte) error {
	switch {
	case g.word == nil, (c == ' ' || c == '\t') && len(g.word) == 0:
		return nil
	case len(g.word) <= len("UNAUTHENTICATE") && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'):
		g.word = append(g.word, c)
		return nil
	case strings.EqualFold(string(g.word), "UNAUTHENTICATE"):
		return errUnauthenticate
	}
	g.word = nil
	return nil
}

// quote takes an octet of a quoted string, which holds no line end (RFC 5804 section 4).
func (g *sieveGuard) quote(c byte) error {
	switch {
	case c == '\r':
		return errFraming
	case g.escaped:
		g.escaped = false
	case c == '\\':
		g.escaped = true
	case c == '"':
		g.quoted = false
	}
	return nil
}

// endLine tells the end of a command from the announcement of a literal, behind which the command goes on.
func (g *sieveGuard) endLine() error {
	announcement := bytes.TrimSuffix(g.tail, []byte("\r"))
	g.tail = g.tail[:0]
	switch {
	case g.quoted:
		return errFraming
	case len(announcement) == 0:
		g.word = []byte{}
		return nil
	}
	var ok bool
	g.literal, ok = literalSize(announcement)
	if !ok {
		return errFraming
	}
	return nil
}

// literalSize reads "{n+}", the one form of literals that clients have (RFC 5804 section 4).
func literalSize(announcement []byte) (size int, ok bool) {
	digits, ok := bytes.CutPrefix(announcement, []byte("{"))
	if !ok {
		return 0, false
	}
	digits, ok = bytes.CutSuffix(digits, []byte("+}"))
	if !ok || len(digits) == 0 {
		return 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		size = size*10 + int(c-'0')
	}
	return size, true
}
