package proxy

import (
	"context"
	"net"
	"sync"
	"time"
)

// countdown is how long a client of LMTP may keep its session waiting: idle for each line and each part of a message. When the
// session is to end, a message that is on its way has some time left, and nothing else has any.
type countdown struct {
	raw   net.Conn
	idle  time.Duration
	grace time.Duration // for a message, when the session is to end

	mu      sync.Mutex
	busy    bool      // a message is on its way
	stopped time.Time // when the session was told to end; zero if it was not
}

// lastWords is the time for what must still be said to a client.
const lastWords = 2 * time.Second

// wait begins anew, for something that the client is to send.
func (c *countdown) wait(busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = busy
	c.set()
}

// stop ends the waiting for what has not begun.
func (c *countdown) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = time.Now()
	c.set()
}

func (c *countdown) set() {
	end := time.Now().Add(c.idle)
	if last := c.stopped.Add(c.grace + lastWords); !c.stopped.IsZero() && c.busy && last.Before(end) {
		end = last
	} else if !c.stopped.IsZero() && !c.busy {
		end = time.Unix(1, 0)
	}
	_ = c.raw.SetDeadline(end)
}

// say begins anew, for something that the client is to take.
func (c *countdown) say() {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.idle
	if !c.stopped.IsZero() {
		limit = lastWords
	}
	_ = c.raw.SetDeadline(time.Now().Add(limit))
}

// lateContext ends some time after ctx: what has begun by then is not cut off at once.
func lateContext(ctx context.Context, grace time.Duration) (context.Context, context.CancelCauseFunc) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		select {
		case <-time.After(grace):
			cancel(errShutdown)
		case <-late.Done():
		}
	})
	return late, cancel
}
