package relay

import (
	"net"
	"time"
)

// Link is the connection under a tls.Conn. It is the net.Conn that it was made of, until the session goes to a loop: from then on
// it reads and writes for that, and never waits. It is as safe for concurrent use as the net.Conn is, until then.
type Link struct {
	net.Conn // nil in a loop
	ground   ground
}

// ground is what is under a Link in a loop.
type ground interface {
	// read returns errWouldBlock where nothing has come.
	read(p []byte) (int, error)
	// write takes everything.
	write(p []byte)
}

// NewLink makes a Link of a connection on which TLS is to begin.
func NewLink(c net.Conn) *Link { return &Link{Conn: c} }

// errWouldBlock is what crypto/tls does not remember: it may be asked again.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing has come" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// Read reads.
func (l *Link) Read(p []byte) (int, error) {
	if l.ground != nil {
		return l.ground.read(p)
	}
	return l.Conn.Read(p)
}

// Write writes.
func (l *Link) Write(p []byte) (int, error) {
	if l.ground != nil {
		l.ground.write(p)
		return len(p), nil
	}
	return l.Conn.Write(p)
}

// Close closes the connection. In a loop it does nothing: that closes by itself, behind what tls.Conn has written.
func (l *Link) Close() error {
	if l.ground != nil {
		return nil
	}
	return l.Conn.Close()
}

// SetDeadline does nothing in a loop, which never waits. So do SetReadDeadline and SetWriteDeadline.
func (l *Link) SetDeadline(t time.Time) error {
	if l.ground != nil {
		return nil
	}
	return l.Conn.SetDeadline(t)
}

// SetReadDeadline is described at SetDeadline.
func (l *Link) SetReadDeadline(t time.Time) error {
	if l.ground != nil {
		return nil
	}
	return l.Conn.SetReadDeadline(t)
}

// SetWriteDeadline is described at SetDeadline.
func (l *Link) SetWriteDeadline(t time.Time) error {
	if l.ground != nil {
		return nil
	}
	return l.Conn.SetWriteDeadline(t)
}
