// Package wire reads and writes the lines, strings and literals of mail protocols, for both sides of a dialogue: with
// the client as a server, with the store as a client. Everything read is bounded before memory is taken for it.
package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"jackdaw/internal/relay"
)

// MaxCommand bounds one logical line: a command or response with all its literals. RFC 4954 section 4 wants SASL lines
// of 12,288 octets to pass; the rest is room for what stands around them.
const MaxCommand = 16 << 10

var (
	// ErrTooLong means that a line, or a line with its literals, exceeds MaxCommand. The connection is out of step.
	ErrTooLong = errors.New("line too long")
	// ErrBadLine means that a line holds NUL or a bare CR. The next line can be read.
	ErrBadLine = errors.New("NUL or bare CR in a line")
	// ErrInjection means that bytes came before a TLS handshake that could have been taken for what came inside it.
	ErrInjection = errors.New("plaintext bytes behind STARTTLS")
)

// Conn is a connection in a dialogue of lines. What is sent is kept back until the next read from the network, so that
// the answers to pipelined commands leave together. It is not safe for concurrent use, but for Close and SetDeadline,
// and those not while TLS begins.
type Conn struct {
	conn  net.Conn
	r     *bufio.Reader
	heard bool // the peer has said something
	out   []byte
	err   error // what the last Flush that failed met
	tap   Tap
}

// Tap is told what is said on a connection, in either direction. The octets are its for the time of the call.
type Tap func(sent bool, said []byte)

// Tap has the tap told from now on; nil has nobody told.
func (c *Conn) Tap(tap Tap) { c.tap = tap }

// readers wait for the next dialogue: each login needs two, for some milliseconds.
var readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}

// New begins a dialogue on a connection.
func New(c net.Conn) *Conn {
	w := &Conn{conn: c, r: readers.Get().(*bufio.Reader)}
	w.r.Reset(source{w})
	return w
}

// source reads from the network, after sending what the peer may be waiting for.
type source struct{ c *Conn }

func (s source) Read(p []byte) (int, error) {
	if err := s.c.Flush(); err != nil {
		return 0, err
	}
	n, err := s.c.conn.Read(p)
	s.c.heard = s.c.heard || n > 0
	if s.c.tap != nil {
		s.c.tap(false, p[:n])
	}
	return n, bare(err)
}

// bare leaves out the addresses of a connection: who reports the error names the thing better, and the port that the system
// chose makes two reports of one trouble look like two troubles.
func bare(err error) error {
	if op, ok := err.(*net.OpError); ok {
		return op.Err
	}
	return err
}

// ReadLine reads up to LF and returns the line without LF or CR LF. It is valid until the next read.
func (c *Conn) ReadLine() ([]byte, error) { return c.readLine(MaxCommand) }

func (c *Conn) readLine(limit int) ([]byte, error) {
	line, err := c.readRaw(limit)
	if err != nil {
		return nil, err
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if len(line) > limit {
		return nil, ErrTooLong
	}
	return line, nil
}

// readRaw reads a line with its end, which the limit does not count.
func (c *Conn) readRaw(limit int) ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line, err = c.readLong(line, limit)
	}
	if err != nil && len(line) > 0 {
		err = noEOF(err)
	}
	return line, err
}

// readLong goes on with a line that is longer than the reader's buffer.
func (c *Conn) readLong(begun []byte, limit int) ([]byte, error) {
	line := append([]byte(nil), begun...)
	for len(line) <= limit+len("\r\n") {
		more, err := c.r.ReadSlice('\n')
		line = append(line, more...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
	return nil, ErrTooLong
}

// noEOF says that an end of input inside a line or a command is no orderly end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Send adds text to what the peer will be sent before the next read, or by Flush.
func (c *Conn) Send(parts ...string) {
	for _, p := range parts {
		c.out = append(c.out, p...)
	}
}

// Flush sends what was kept back.
func (c *Conn) Flush() error {
	if c.err == nil && len(c.out) > 0 {
		if c.tap != nil {
			c.tap(true, c.out)
		}
		_, err := c.conn.Write(c.out)
		c.err = bare(err)
		c.out = c.out[:0]
	}
	return c.err
}

// ServeTLS begins TLS as its server, on the first byte or after STARTTLS. While the handshake lasts, it is with the connection that
// during makes of the one below, unless that is nil.
func (c *Conn) ServeTLS(ctx context.Context, config *tls.Config, during func(net.Conn) net.Conn) error {
	return c.startTLS(ctx, during, func(plain net.Conn) *tls.Conn { return tls.Server(plain, config) })
}

// DialTLS begins TLS as its client, on the first byte or after STARTTLS.
func (c *Conn) DialTLS(ctx context.Context, config *tls.Config) error {
	return c.startTLS(ctx, nil, func(plain net.Conn) *tls.Conn { return tls.Client(plain, config) })
}

// startTLS guards every switch to TLS, in both directions: bytes that were read with the plaintext line before it are
// neither commands nor responses (RFC 9051 section 6.2.1, RFC 3207 section 6), and end the connection. Bytes still in
// the socket go to the TLS layer, which takes no plaintext.
func (c *Conn) startTLS(ctx context.Context, during func(net.Conn) net.Conn, wrap func(net.Conn) *tls.Conn) error {
	if err := c.Flush(); err != nil {
		return err
	}
	if c.r.Buffered() > 0 {
		return ErrInjection
	}
	link := relay.NewLink(c.conn)
	if during != nil {
		link.Conn = during(c.conn)
	}
	conn := wrap(link)
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	link.Conn = c.conn
	c.conn = conn
	return nil
}

// TLS returns the state of the connection's TLS layer, or nil where there is none.
func (c *Conn) TLS() *tls.ConnectionState {
	conn, ok := c.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	state := conn.ConnectionState()
	return &state
}

// Detach ends the dialogue: it returns the connection, under TLS where TLS was begun, and a copy of the bytes that were
// read but not consumed. What was to be sent is flushed first. Nothing can be read through c any more.
func (c *Conn) Detach() (net.Conn, []byte, error) {
	err := c.Flush()
	buffered, _ := c.r.Peek(c.r.Buffered())
	rest := append([]byte(nil), buffered...)
	c.r.Reset(nil)
	readers.Put(c.r)
	c.r = nil
	return c.conn, rest, err
}

// Heard reports whether the peer has said anything at all in the dialogue. TLS handshakes do not count.
func (c *Conn) Heard() bool { return c.heard }

// RemoteAddr returns the peer's network address.
func (c *Conn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline bounds all reads and writes to come.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// Close closes the connection without sending what was kept back.
func (c *Conn) Close() error { return c.conn.Close() }
