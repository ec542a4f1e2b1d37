package relay

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// end is one side of a session in a loop: the socket towards the client, or the one towards the store.
type end struct {
	loop    *loop
	tls     *tls.Conn // nil: none
	fd      int
	budget  int           // how much may be read in this turn
	pending []byte        // what the peer has not taken yet; nothing is read for it meanwhile
	stalled time.Duration // when the peer last took something while there was more, since the loop's start
	ready   bool          // there may be something to read
	last    bool          // behind what is to be read is the end
	eof     bool          // the peer says no more
	shut    bool          // the peer is told that no more comes
	closing bool          // it is to be told behind what is pending
}

// begin makes an end of a socket.
func (e *end) begin(l *loop, fd int, over *tls.Conn) {
	e.loop, e.fd, e.tls = l, fd, over
	e.ready = true // something may have come before anybody waited for it, or lies in the tls.Conn
	if over != nil {
		link := over.NetConn().(*Link)
		link.Conn, link.ground = nil, e
		fields.settle(over, bytes.Clone)
	}
}

// read is for the tls.Conn.
func (e *end) read(p []byte) (int, error) {
	p = p[:min(len(p), e.budget)]
	if !e.ready || len(p) == 0 {
		return 0, errWouldBlock
	}
	for {
		n, err := readSome(e.fd, p)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			e.ready = false
			return 0, errWouldBlock
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		e.budget -= n
		e.ready = n == len(p) || e.last // a read that comes back short has emptied the socket
		return n, nil
	}
}

// write is for the tls.Conn.
func (e *end) write(p []byte) { e.loop.out = append(e.loop.out, p...) }

// receive returns what the peer has said, in the loop's memory. An error, or the end, may come with the last of it.
func (e *end) receive() ([]byte, error) {
	e.budget = e.loop.batch()
	said := e.loop.plain[:]
	if e.tls == nil {
		n, err := e.read(said)
		return said[:n], notBlocked(err)
	}
	e.loop.reuse(fields.lend(e.tls, e.loop.in[:0]))
	n, err := 0, error(nil)
	for err == nil && n+record <= len(said) { // so that nothing of a record stays in what is lent
		var m int
		m, err = e.tls.Read(said[n:])
		n += m
	}
	fields.settle(e.tls, e.loop.keep)
	e.ready = e.ready || err == nil
	if failed := e.put(); failed != nil { // an answer to a key update
		return said[:n], errors.Join(notBlocked(err), failed)
	}
	return said[:n], notBlocked(err)
}

// notBlocked leaves out that nothing more has come.
func notBlocked(err error) error {
	if errors.Is(err, errWouldBlock) {
		return nil
	}
	return err
}

// send gives bytes to the peer. What it does not take waits.
func (e *end) send(b []byte) error {
	if e.tls == nil {
		return e.give(b)
	}
	if _, err := e.tls.Write(b); err != nil {
		return err
	}
	return e.put()
}

// put gives the peer what its tls.Conn has written.
func (e *end) put() error {
	out := e.loop.out
	e.loop.out = out[:0]
	if len(out) == 0 {
		return nil
	}
	return e.give(out)
}

// maxPending bounds what waits for a peer. One batch of the other side's fits, and so do some answers to key updates.
const maxPending = 2*batch + record

var errTakesNothing = errors.New("asks much and reads nothing")

// give writes what can be written, and keeps the rest.
func (e *end) give(b []byte) error {
	n := 0
	if e.pending == nil {
		e.stalled = e.loop.now
		var err error
		if n, err = writeSocket(e.fd, b); err != nil {
			return err
		}
	}
	if n == len(b) {
		return nil
	}
	if len(e.pending)+len(b)-n > maxPending {
		return errTakesNothing
	}
	e.pending = append(e.pending, b[n:]...)
	e.loop.pending += len(b) - n
	return nil
}

// flush writes what waits.
func (e *end) flush() error {
	if e.pending == nil {
		return nil
	}
	n, err := writeSocket(e.fd, e.pending)
	if n > 0 {
		e.stalled = e.loop.now
		e.loop.pending -= n
	}
	if e.pending = e.pending[n:]; len(e.pending) > 0 || err != nil {
		return err
	}
	e.pending = nil
	if e.closing {
		return e.shutDown()
	}
	return nil
}

// writeSocket writes until the socket takes no more: only then will the system tell when it does again.
func writeSocket(fd int, b []byte) (written int, err error) {
	for written < len(b) {
		n, err := writeSome(fd, b[written:])
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return written, nil
		case err != nil:
			return written, err
		default:
			written += n
		}
	}
	return written, nil
}

// shutDown tells the peer that no more comes, behind all that it has to take yet: by close_notify under TLS, else by FIN.
func (e *end) shutDown() error {
	switch {
	case e.pending != nil:
		e.closing = true
		return nil
	case e.shut:
		return nil
	}
	e.shut = true
	if e.tls == nil {
		return unix.Shutdown(e.fd, unix.SHUT_WR)
	}
	if err := e.tls.CloseWrite(); err != nil {
		return err
	}
	return e.put()
}

// close closes the socket. A peer that has taken everything so far hears close_notify.
func (e *end) close() {
	if e.tls != nil {
		_ = e.tls.Close()
		if e.pending == nil {
			_ = e.put()
		}
		e.loop.out = e.loop.out[:0]
	}
	_ = unix.Close(e.fd)
	e.loop.pending -= len(e.pending)
	e.tls, e.pending = nil, nil
}
