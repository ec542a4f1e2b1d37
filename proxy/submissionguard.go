package proxy

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"

	"jackdaw/backends"
	"jackdaw/internal/relay"
)

// submissionGuard hides STARTTLS of a store that is reached without TLS. The client is under TLS already, and must not be
// offered it again (RFC 3207 section 4.2): a client that took the offer would begin TLS with the store, through us. It looks
// at lines up to the answer to the first MAIL, behind which no client asks any more what the store can do.
type submissionGuard struct {
	verb []byte // of the line that the client is sending, as far as it matters
	mail bool   // the client has said MAIL; nothing more is read of what it sends

	mu      sync.Mutex
	said    int // commands
	mailAt  int // which of them was the first MAIL; 0 before
	answers int // complete replies

	held []byte // the beginning of a reply
	done bool   // MAIL was answered; all passes
}

func newSubmissionGuard(store *backends.Connection) relay.Guard {
	if store.Conn.TLS() != nil {
		return nil
	}
	return &submissionGuard{}
}

var errStartTLS = errors.New("client sent STARTTLS after its login")

// maxHeld bounds what is held back of a store's reply. One that does not fit is no reply to EHLO.
const maxHeld = 4 << 10

// Up counts the client's commands until it says MAIL. It stops in front of the end of a line that says STARTTLS.
func (g *submissionGuard) Up(p []byte) (int, error) {
	const longest = len("STARTTLS ")
	for i, c := range p {
		switch {
		case g.mail:
			return len(p), nil
		case c != '\n':
			if len(g.verb) < longest {
				g.verb = append(g.verb, c)
			}
			continue
		}
		verb, _, _ := strings.Cut(strings.TrimRight(string(g.verb), "\r"), " ")
		if strings.EqualFold(verb, "STARTTLS") {
			return i, errStartTLS
		}
		g.verb = g.verb[:0]
		g.mail = strings.EqualFold(verb, "MAIL")
		g.count()
	}
	return len(p), nil
}

func (g *submissionGuard) count() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.said++; g.mail {
		g.mailAt = g.said
	}
}

// Down takes the line with STARTTLS out of replies, of which each passes when it is complete.
func (g *submissionGuard) Down(p []byte) []byte {
	if g.done {
		return p
	}
	g.held = append(g.held, p...)
	var out []byte
	for end := endOfReply(g.held); end > 0 && !g.done; end = endOfReply(g.held) {
		out = append(out, withoutStartTLS(g.held[:end])...)
		g.held = g.held[end:]
		g.done = g.answered()
	}
	if g.done || len(g.held) > maxHeld {
		out = append(out, g.held...)
		g.done, g.held = true, nil
	}
	return out
}

// answered counts a complete reply, and tells whether it was the one to MAIL.
func (g *submissionGuard) answered() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answers++
	return g.mailAt > 0 && g.answers >= g.mailAt
}

// endOfReply finds the end of the first reply in p (RFC 5321 section 4.2.1); 0 if it is not there yet.
func endOfReply(p []byte) int {
	for from := 0; ; {
		i := bytes.IndexByte(p[from:], '\n')
		if i < 0 {
			return 0
		}
		line := p[from : from+i+1]
		from += len(line)
		if len(line) < 4 || line[3] != '-' {
			return from
		}
	}
}

// withoutStartTLS takes the line out of a reply to EHLO. What becomes the last line is marked as that.
func withoutStartTLS(reply []byte) []byte {
	if !bytes.HasPrefix(reply, []byte("250-")) {
		return reply
	}
	lines := slices.DeleteFunc(slices.Collect(bytes.Lines(reply)), func(line []byte) bool {
		return len(line) > 4 && strings.EqualFold(string(bytes.TrimSpace(line[4:])), "STARTTLS")
	})
	if len(lines) > 0 {
		if last := lines[len(lines)-1]; len(last) > 4 {
			last[3] = ' '
		}
	}
	return bytes.Join(lines, nil)
}
