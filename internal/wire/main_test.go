package wire

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a peer that sends one chunk for each Read, and then closes. It keeps a record of both directions.
type script struct {
	net.Conn // nil: what is not needed is not there
	chunks   []string
	record   []string // "< what was sent to us", "> what was sent to it"
	broken   error    // for the next Write
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.chunks) == 0 {
		s.record = append(s.record, "< end")
		return 0, io.EOF
	}
	n := copy(p, s.chunks[0])
	s.record = append(s.record, "< "+s.chunks[0][:n])
	if s.chunks[0] = s.chunks[0][n:]; s.chunks[0] == "" {
		s.chunks = s.chunks[1:]
	}
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	if s.broken != nil {
		return 0, s.broken
	}
	s.record = append(s.record, "> "+string(p))
	return len(p), nil
}

// said makes a Conn whose peer says all that at once.
func said(text string) *Conn {
	if text == "" {
		return New(&script{})
	}
	return New(&script{chunks: []string{text}})
}

// rest returns what a Conn has not consumed, of what its peer has said and will say.
func rest(c *Conn) string {
	all, _ := io.ReadAll(c.r)
	return string(all)
}

// x is a long text.
func x(n int) string { return strings.Repeat("x", n) }

// shorten makes a long text readable.
func shorten(s string) string {
	if len(s) > 200 {
		return s[:80] + "..." + s[len(s)-80:]
	}
	return s
}

// same tells whether an error is the wanted one, by kind.
func same(err, want error) bool {
	return err == nil && want == nil || want != nil && errors.Is(err, want)
}
