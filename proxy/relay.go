package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
)

// A guard looks at what passes between a logged-in client and its store. One goroutine calls up, another down.
type guard interface {
	// up returns how many of the client's bytes may pass; an error ends the session behind them.
	up(p []byte) (int, error)
	// down returns what the client gets of the store's bytes, which it may change in place.
	down(p []byte) []byte
}

var (
	errIdle     = errors.New("idle for too long")
	quietSpell  = time.Second      // after this, nothing is under way in a session
	stopLimit   = 10 * time.Second // a busy session has this long to become quiet when it is to end
	halfTimeout = time.Minute      // how long one direction may be idle when the other has ended
)

// relay copies bytes in both directions until both have ended, or nothing moved for too long, and closes both connections.
type relay struct {
	client, store net.Conn
	guard         guard // nil where the protocol needs none
	idle          time.Duration
	bye           func(Reason) string

	start          time.Time
	sent, received atomic.Int64 // to the client, and from it
	moved          atomic.Int64 // when a byte last moved, in nanoseconds since start
	halfOpen       atomic.Bool  // one direction has ended

	mu      sync.Mutex // held while the client is written to
	lineEnd bool       // the last byte to the client ended a line
}

// relay runs the session from its login to its end, and writes its log line.
func (s *session) relay(ctx context.Context, store *backends.Connection, protocol protocol) {
	storeConn, fromStore, storeErr := store.Conn.Detach()
	client, fromClient, clientErr := s.conn.Detach()
	r := &relay{
		client: client, store: storeConn, lineEnd: true, start: time.Now(), bye: protocol.bye,
		idle: s.settings.limits.IdleTimeout[s.settings.listener.Service],
	}
	if protocol.guard != nil {
		r.guard = protocol.guard(store)
	}
	err := errors.Join(storeErr, clientErr)
	if err == nil {
		err = r.run(ctx, fromClient, fromStore)
	} else {
		r.close()
	}
	reason := "closed"
	if err != nil {
		reason = err.Error()
	}
	s.write(zap.InfoLevel, "session", zap.Int64("sent", r.sent.Load()), zap.Int64("received", r.received.Load()),
		zap.Duration("took", time.Since(s.began)), zap.String("reason", reason))
}

// run relays. fromClient and fromStore are what the dialogues have read ahead; they go first.
func (r *relay) run(ctx context.Context, fromClient, fromStore []byte) error {
	_ = r.client.SetDeadline(time.Time{})
	_ = r.store.SetDeadline(time.Time{})
	ended := make(chan error, 2)
	var copies sync.WaitGroup
	copies.Go(func() { ended <- r.up(fromClient) })
	copies.Go(func() { ended <- r.down(fromStore) })
	defer copies.Wait()
	defer r.close() // which wakes the copies that are left
	if err := r.wait(ctx, ended); err != nil {
		r.sayBye(err)
		return err
	}
	r.halfOpen.Store(true)
	wake := time.Now().Add(r.limit())
	_ = r.client.SetReadDeadline(wake)
	_ = r.store.SetReadDeadline(wake)
	err := r.wait(ctx, ended)
	r.sayBye(err)
	return err
}

func (r *relay) close() {
	_ = r.store.Close()
	_ = r.client.SetWriteDeadline(time.Now().Add(2 * time.Second)) // for close_notify
	_ = r.client.Close()
}

// wait returns when one direction has ended, or when the session is to end and nothing is under way.
func (r *relay) wait(ctx context.Context, ended <-chan error) error {
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	limit := time.After(stopLimit)
	tick := time.NewTicker(quietSpell / 10)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-limit:
			return ending(ctx)
		case <-tick.C:
			if r.atLineEnd() && r.quiet() >= quietSpell {
				return ending(ctx)
			}
		}
	}
}

// ending says why a session is to end.
func ending(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), backends.ErrMoved) {
		return backends.ErrMoved
	}
	return errShutdown
}

// atLineEnd tells whether the client expects a line, and is not in the middle of a message.
func (r *relay) atLineEnd() bool {
	if !r.mu.TryLock() {
		return false
	}
	defer r.mu.Unlock()
	return r.lineEnd
}

// sayBye tells the client why its session ends, if there is something to say and a place to say it. A client that takes
// nothing hears nothing, and holds nobody up.
func (r *relay) sayBye(err error) {
	reason, ok := farewell(err)
	if !ok || !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	if bye := r.bye(reason); bye != "" && r.lineEnd {
		_ = r.client.SetWriteDeadline(time.Now().Add(2 * time.Second))
		_, _ = io.WriteString(r.client, bye)
	}
}

// quiet is how long nothing has moved.
func (r *relay) quiet() time.Duration {
	return time.Since(r.start) - time.Duration(r.moved.Load())
}

func (r *relay) up(first []byte) error {
	return r.copy(r.store, r.client, first, &r.received, "client", func(p []byte) error {
		n, verdict := len(p), error(nil)
		if r.guard != nil {
			n, verdict = r.guard.up(p)
		}
		if _, err := r.store.Write(p[:n]); err != nil {
			return fmt.Errorf("writing to the store: %w", err)
		}
		return verdict
	})
}

func (r *relay) down(first []byte) error {
	err := r.copy(r.client, r.store, first, &r.sent, "store", func(p []byte) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.guard != nil {
			if p = r.guard.down(p); len(p) == 0 {
				return nil
			}
		}
		if _, err := r.client.Write(p); err != nil {
			return fmt.Errorf("writing to the client: %w", err)
		}
		r.lineEnd = bytes.HasSuffix(p, []byte("\n"))
		return nil
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lineEnd = r.lineEnd && err != nil // behind the end that was passed on there is no line
	return err
}

// buffers are what bytes move through. A TLS record holds 16 KiB; two of them keep the number of calls down.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copy moves bytes until src ends, and passes the end on.
func (r *relay) copy(dst, src net.Conn, first []byte, count *atomic.Int64, from string, write func([]byte) error) (err error) {
	defer func() {
		if p := recover(); p != nil { // the session's own does not reach another goroutine
			err = fmt.Errorf("crashed: %v\n%s", p, debug.Stack())
		}
	}()
	buffer := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buffer)
	for p := first; ; {
		if len(p) > 0 {
			r.touch(dst)
			if err := write(p); err != nil {
				return err
			}
			count.Add(int64(len(p)))
		}
		n, err := r.read(src, buffer[:])
		p = buffer[:n]
		switch {
		case n > 0:
		case errors.Is(err, io.EOF):
			return closeWrite(dst)
		case err != nil:
			return fmt.Errorf("reading from the %s: %w", from, err)
		}
	}
}

// read waits for bytes as long as anything moves in the session, in whatever direction.
func (r *relay) read(src net.Conn, p []byte) (int, error) {
	for {
		_ = src.SetReadDeadline(time.Now().Add(r.limit() - r.quiet()))
		n, err := src.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if r.quiet() >= r.limit() {
			return 0, errIdle
		}
	}
}

func (r *relay) limit() time.Duration {
	if r.halfOpen.Load() {
		return min(r.idle, halfTimeout)
	}
	return r.idle
}

// touch notes that bytes move. A peer that takes none for as long as a session may be idle has stalled.
func (r *relay) touch(dst net.Conn) {
	now := time.Since(r.start)
	r.moved.Store(int64(now))
	_ = dst.SetWriteDeadline(r.start.Add(now + r.idle))
}

// closeWrite passes the end of one direction on: to TLS as close_notify, to TCP as FIN.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
