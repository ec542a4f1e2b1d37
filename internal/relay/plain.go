package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// plain relays with a goroutine for each direction, and one that waits for them.
type plain struct {
	Session
	start          time.Time
	sent, received atomic.Int64
	moved          atomic.Int64 // when a byte last moved, in nanoseconds since start
	halfOpen       atomic.Bool  // one direction has ended
	tap            atomic.Pointer[Tap]
	cause          chan error // holds why the session is to end

	mu      sync.Mutex // held while the client is written to
	lineEnd bool       // the last byte to the client ended a line
	over    bool       // the store has ended, and the client has got all
}

func startPlain(s Session) *plain {
	p := &plain{Session: s, start: time.Now(), cause: make(chan error, 1), lineEnd: true}
	p.Tap(s.Tap)
	go func() { s.Owner.Done(p.run()) }()
	return p
}

func (p *plain) End(cause error) {
	select {
	case p.cause <- cause:
	default: // it ends already
	}
}

// Tap is Relay's.
func (p *plain) Tap(tap Tap) { p.tap.Store(&tap) }

// tell tells the tap, if there is one.
func (p *plain) tell(fromClient bool, said []byte) {
	if tap := *p.tap.Load(); tap != nil {
		tap(fromClient, said)
	}
}

func (p *plain) Moved() (sent, received int64, last time.Time) {
	return p.sent.Load(), p.received.Load(), p.start.Add(time.Duration(p.moved.Load()))
}

func (p *plain) run() error {
	_ = p.Client.SetDeadline(time.Time{})
	_ = p.Store.SetDeadline(time.Time{})
	ended := make(chan error, 2)
	var copies sync.WaitGroup
	copies.Go(func() { ended <- p.up() })
	copies.Go(func() { ended <- p.down() })
	defer copies.Wait()
	defer p.close() // which wakes the copies that are left
	if err := p.wait(ended); err != nil {
		p.sayBye(err)
		return err
	}
	p.halfOpen.Store(true)
	wake := time.Now().Add(p.limit())
	_ = p.Client.SetReadDeadline(wake)
	_ = p.Store.SetReadDeadline(wake)
	err := p.wait(ended)
	p.sayBye(err)
	return err
}

func (p *plain) close() {
	_ = p.Store.Close()
	_ = p.Client.SetWriteDeadline(time.Now().Add(2 * time.Second)) // for close_notify
	_ = p.Client.Close()
}

// wait returns when one direction has ended, or when the session is to end and nothing is under way.
func (p *plain) wait(ended <-chan error) error {
	var cause error
	select {
	case err := <-ended:
		return err
	case cause = <-p.cause:
	}
	limit := time.After(stopLimit)
	ticker := time.NewTicker(tick())
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-limit:
			return cause
		case <-ticker.C:
			if p.atLineEnd() && p.quiet() >= quietSpell {
				return cause
			}
		}
	}
}

// atLineEnd tells whether the client is not in the middle of a message, nor will be.
func (p *plain) atLineEnd() bool {
	if !p.mu.TryLock() {
		return false
	}
	defer p.mu.Unlock()
	return p.lineEnd || p.over
}

// sayBye tells the client why its session ends, if there is something to say and a place to say it. A client that takes
// nothing hears nothing, and holds nobody up.
func (p *plain) sayBye(err error) {
	if err == nil || !p.mu.TryLock() {
		return
	}
	defer p.mu.Unlock()
	if !p.lineEnd {
		return
	}
	if bye := p.Owner.Bye(err); bye != "" {
		_ = p.Client.SetWriteDeadline(time.Now().Add(2 * time.Second))
		_, _ = io.WriteString(p.Client, bye)
	}
}

// quiet is how long nothing has moved.
func (p *plain) quiet() time.Duration {
	return time.Since(p.start) - time.Duration(p.moved.Load())
}

func (p *plain) up() error {
	return p.copy(p.Store, p.Client, p.FromClient, &p.received, "client", func(b []byte) error {
		n, verdict := len(b), error(nil)
		if p.Guard != nil {
			n, verdict = p.Guard.Up(b)
		}
		p.tell(true, b[:n])
		if _, err := p.Store.Write(b[:n]); err != nil {
			return fmt.Errorf("writing to the store: %w", err)
		}
		return verdict
	})
}

func (p *plain) down() error {
	err := p.copy(p.Client, p.Store, p.FromStore, &p.sent, "store", func(b []byte) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.Guard != nil {
			if b = p.Guard.Down(b); len(b) == 0 {
				return nil
			}
		}
		p.tell(false, b)
		if _, err := p.Client.Write(b); err != nil {
			return fmt.Errorf("writing to the client: %w", err)
		}
		p.lineEnd = bytes.HasSuffix(b, []byte("\n"))
		return nil
	})
	if err == nil { // else the mutex is left to sayBye, which does not wait for it
		p.mu.Lock()
		defer p.mu.Unlock()
		p.over, p.lineEnd = true, false // behind the end that was passed on there is no line
	}
	return err
}

// buffers are what bytes move through. A TLS record holds 16 KiB; two of them keep the number of calls down.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copy moves bytes until src ends, and passes the end on.
func (p *plain) copy(dst, src net.Conn, first []byte, count *atomic.Int64, from string, write func([]byte) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = crashed(r)
		}
	}()
	buffer := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buffer)
	for b := first; ; {
		if len(b) > 0 {
			p.touch(dst)
			count.Add(int64(len(b)))
			if err := write(b); err != nil {
				return err
			}
		}
		n, err := p.read(src, buffer[:])
		b = buffer[:n]
		switch {
		case n > 0:
		case errors.Is(err, io.EOF):
			return closeWrite(dst)
		case err != nil:
			return fmt.Errorf("reading from the %s: %w", from, err)
		}
	}
}

// crashed is the end of a session that has met a bug, which no other session is to feel.
func crashed(r any) error { return fmt.Errorf("crashed: %v\n%s", r, debug.Stack()) }

// read waits for bytes as long as anything moves in the session, in whatever direction.
func (p *plain) read(src net.Conn, b []byte) (int, error) {
	for {
		_ = src.SetReadDeadline(time.Now().Add(p.limit() - p.quiet()))
		n, err := src.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if p.quiet() >= p.limit() {
			return 0, ErrIdle
		}
	}
}

func (p *plain) limit() time.Duration { return idleLimit(p.Idle, p.halfOpen.Load()) }

// touch notes that bytes move. A peer that takes none for as long as a session may be idle has stalled.
func (p *plain) touch(dst net.Conn) {
	now := time.Since(p.start)
	p.moved.Store(int64(now))
	_ = dst.SetWriteDeadline(p.start.Add(now + p.Idle))
}

// closeWrite passes the end of one direction on: to TLS as close_notify, to TCP as FIN.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
