package relay

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// pair is a session in a loop: two sockets, and what is to be known of them.
type pair struct {
	client, store end
	loop          *loop
	guard         Guard
	tap           Tap
	owner         Owner
	idle          time.Duration
	cause         error         // why it is to end, if it is
	endBy         time.Duration // when that must have happened, since the loop's start
	place         int32         // in the loop
	busy          bool          // is in the loop's list of those
	lineEnd       bool          // the last byte to the client ended a line
	gone          bool          // has ended

	queue        *queue
	older, newer *pair // in the queue

	sent, received atomic.Int64
	moved          atomic.Int64 // when a byte last moved, in nanoseconds since the loop's start
}

// End is Relay's.
func (p *pair) End(cause error) {
	p.loop.post(func() {
		if p.cause == nil && !p.gone {
			p.cause, p.endBy = cause, p.loop.now+stopLimit
			p.loop.ending = append(p.loop.ending, p)
		}
	})
}

// Tap is Relay's.
func (p *pair) Tap(tap Tap) {
	done := make(chan struct{})
	p.loop.post(func() {
		p.tap = tap
		close(done)
	})
	select {
	case <-done:
	case <-p.loop.done:
	}
}

// Moved is Relay's.
func (p *pair) Moved() (sent, received int64, last time.Time) {
	return p.sent.Load(), p.received.Load(), p.loop.start.Add(p.movedAt())
}

func (p *pair) movedAt() time.Duration { return time.Duration(p.moved.Load()) }

// touch notes that bytes move, and makes the session the newest in a queue.
func (p *pair) touch(q *queue) {
	p.moved.Store(int64(p.loop.now))
	if p.queue != q || p.newer != &q.ring {
		p.queue.drop(p)
		q.push(p)
	}
}

// atLineEnd tells whether the client expects a line, and has taken all that came before it.
func (p *pair) atLineEnd() bool { return p.lineEnd && p.client.pending == nil }

// begin moves what was read ahead, and what has come since.
func (p *pair) begin(fromClient, fromStore []byte) {
	p.guarded(func() error {
		if len(fromClient) > 0 {
			if err := p.up(fromClient); err != nil {
				return err
			}
		}
		if len(fromStore) > 0 {
			if err := p.down(fromStore); err != nil {
				return err
			}
		}
		return p.pump()
	})
}

// work moves what there is to be moved.
func (p *pair) work() {
	if !p.gone {
		p.guarded(p.pump)
	}
}

// guarded does a part of the session's work, and ends the session where that fails, or nothing is left to do.
func (p *pair) guarded(deed func() error) {
	defer func() {
		if r := recover(); r != nil {
			p.finish(crashed(r))
		}
	}()
	if err := deed(); err != nil || p.client.eof && p.store.eof && p.client.shut && p.store.shut && p.flushed() {
		p.finish(err)
	}
}

func (p *pair) flushed() bool { return p.client.pending == nil && p.store.pending == nil }

// pump moves bytes while there are some, and goes to the end of the line if there are many.
func (p *pair) pump() error {
	if err := p.client.flush(); err != nil {
		return fmt.Errorf("writing to the client: %w", err)
	}
	if err := p.store.flush(); err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	for range rounds {
		fromClient, fromStore := p.client.ready && p.store.pending == nil, p.store.ready && p.client.pending == nil
		if !fromClient && !fromStore {
			return nil
		}
		if fromClient {
			if err := p.move(&p.client, &p.store, "client", p.up); err != nil {
				return err
			}
		}
		if fromStore {
			if err := p.move(&p.store, &p.client, "store", p.down); err != nil {
				return err
			}
		}
	}
	if !p.busy {
		p.busy = true
		p.loop.busy = append(p.loop.busy, p)
	}
	return nil
}

// move takes what one side has said to the other, and passes its end on.
func (p *pair) move(src, dst *end, from string, pass func([]byte) error) error {
	said, err := src.receive()
	if len(said) > 0 {
		if err := pass(said); err != nil {
			return err
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		src.eof, src.ready = true, false
		p.lineEnd = p.lineEnd && src == &p.client // behind the store's end there is no line
		p.touch(p.loop.queueFor(idleLimit(p.idle, true)))
		return dst.shutDown()
	case err != nil:
		return fmt.Errorf("reading from the %s: %w", from, err)
	}
	return nil
}

// up passes what the client has said.
func (p *pair) up(b []byte) error {
	n, verdict := len(b), error(nil)
	if p.guard != nil {
		n, verdict = p.guard.Up(b)
	}
	if p.tap != nil {
		p.tap(true, b[:n])
	}
	p.received.Add(int64(len(b))) // before anybody can have seen them
	if err := p.pass(&p.store, b[:n]); err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	return verdict
}

// down passes what the store has said.
func (p *pair) down(b []byte) error {
	n := len(b)
	if p.guard != nil {
		b = p.guard.Down(b)
	}
	if p.tap != nil {
		p.tap(false, b)
	}
	if len(b) > 0 {
		p.lineEnd = b[len(b)-1] == '\n'
	}
	p.sent.Add(int64(n))
	if err := p.pass(&p.client, b); err != nil {
		return fmt.Errorf("writing to the client: %w", err)
	}
	return nil
}

// pass sends bytes to one side. A side that takes nothing for as long as a session may be idle has stalled, whatever the other
// one does.
func (p *pair) pass(dst *end, b []byte) error {
	p.touch(p.queue)
	for _, e := range []*end{&p.client, &p.store} {
		if e.pending != nil && p.loop.now-e.stalled >= p.idle {
			return os.ErrDeadlineExceeded
		}
	}
	if len(b) == 0 {
		return nil
	}
	return dst.send(b)
}

// finish ends the session, with a word to the client where it expects one.
func (p *pair) finish(err error) {
	if p.gone {
		return
	}
	p.gone = true
	if err != nil && p.atLineEnd() {
		if bye := p.owner.Bye(err); bye != "" {
			_ = p.client.send([]byte(bye))
		}
	}
	p.client.close()
	p.store.close()
	p.loop.remove(p)
	go p.owner.Done(err)
}
