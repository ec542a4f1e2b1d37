package proxy

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"

	"jackdaw/internal/relay"
)

// turns lets a few TLS handshakes compute at once, and has the others wait for their turn: when everybody comes back at once the first
// are served within their time, rather than all too late, and established sessions find a processor. Who has come first is first.
// Who waits for his client, and not for us, has no turn: slow and silent clients cost nobody's time. Safe for concurrent use.
type turns struct {
	slots int

	mu      sync.Mutex
	free    int
	begun   list.List        // of *turn, who have computed already and go on: the less is under way the sooner it is done
	fresh   list.List        // of *turn
	lines   map[subnet]*line // of the clients that wait in fresh
	coming  int              // sessions that were accepted, and have not run yet
	closed  bool             // nobody comes any more
	calm    sync.Cond        // fresh has become shorter, or fewer are coming, or nobody comes any more
	dropped int64            // whose time was over, or who had gone, when their turn came
	crowded func()           // is called when nobody more may come; nil: nobody wants to know
}

// line has what waits of one client. A part of it stands in turns.fresh: as many as a client may have there, so that a flood of one is
// only a few ahead of anybody else.
type line struct {
	queued int
	others list.List // of *turn
}

// aheadPerClient is how many of one client may wait among the others.
const aheadPerClient = 16

// turn is a handshake that waits.
type turn struct {
	client subnet
	exempt bool          // from the limits per client
	come   chan struct{} // closed when the turn has come
	queue  *list.List    // in which it is
	place  *list.Element
}

func newTurns(slots int) *turns {
	t := &turns{slots: slots, free: slots, lines: make(map[subnet]*line)}
	t.calm.L = &t.mu
	return t
}

// handshakesAtOnce is how many compute: one for each processor.
func handshakesAtOnce() int { return runtime.GOMAXPROCS(0) }

// errGone means that a client has left while its handshake waited for its turn.
var errGone = errors.New("client has gone while it waited")

// await returns when it is the turn of a handshake, or with ctx. begun says that it has had one before.
func (t *turns) await(ctx context.Context, t1 *turn, begun bool) error {
	t.mu.Lock()
	if t.free > 0 { // then nobody waits
		t.free--
		t.mu.Unlock()
		return nil
	}
	t1.come = make(chan struct{})
	t.enqueue(t1, begun)
	t.mu.Unlock()
	select {
	case <-t1.come:
		return nil
	case <-ctx.Done():
		t.abandon(t1)
		return context.Cause(ctx)
	}
}

// mostAhead is how many may wait in fresh before nobody is accepted any more where TLS begins at once. The system keeps those who come,
// in their order and at no cost; here each would take memory, and time from sessions that are there already.
const mostAhead = 4 * aheadPerClient

// mostComing is how many may have been accepted that have not run yet. It is a crowd then.
const mostComing = 64

// accepted counts a session whose goroutine is to begin.
func (t *turns) accepted() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.coming++; t.coming >= mostComing {
		t.crowd()
	}
}

// runs is called by that goroutine.
func (t *turns) runs() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.coming--
	t.calm.Broadcast()
}

// settle returns when one more may come, or nobody comes any more.
func (t *turns) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.closed && (t.fresh.Len() >= mostAhead || t.coming >= mostComing) {
		t.crowd()
		t.calm.Wait()
	}
}

// close is called when nobody comes any more. Those that there are have their turns still.
func (t *turns) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.calm.Broadcast()
}

func (t *turns) crowd() {
	if t.crowded != nil {
		t.crowded()
	}
}

func (t *turns) enqueue(one *turn, begun bool) {
	one.queue = &t.fresh
	switch {
	case begun:
		one.queue = &t.begun
	case !one.exempt:
		l := t.lines[one.client]
		if l == nil {
			l = new(line)
			t.lines[one.client] = l
		}
		if l.queued < aheadPerClient {
			l.queued++
		} else {
			one.queue = &l.others
		}
	}
	one.place = one.queue.PushBack(one)
}

// dequeue takes one out of where it waits, and has the next of its client go there.
func (t *turns) dequeue(one *turn) {
	queue := one.queue
	queue.Remove(one.place)
	t.calm.Broadcast()
	l := t.lines[one.client]
	if queue != &t.fresh || one.exempt {
		return
	}
	if next := l.others.Front(); next != nil {
		other := l.others.Remove(next).(*turn)
		other.queue, other.place = &t.fresh, t.fresh.PushBack(other)
	} else if l.queued--; l.queued == 0 {
		delete(t.lines, one.client)
	}
}

// leave gives a turn to the next.
func (t *turns) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pass()
}

func (t *turns) pass() {
	front := t.begun.Front()
	if front == nil {
		front = t.fresh.Front()
	}
	if front == nil {
		t.free++
		return
	}
	next := front.Value.(*turn)
	t.dequeue(next)
	close(next.come)
}

// abandon gives up waiting.
func (t *turns) abandon(one *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped++
	select {
	case <-one.come: // just now
		t.pass()
	default:
		t.dequeue(one)
	}
}

func (t *turns) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped++
}

// state tells how many compute at once, how many wait, and how many were not served.
func (t *turns) state() (slots, waiting int, dropped int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	waiting = t.begun.Len() + t.fresh.Len()
	for _, l := range t.lines {
		waiting += l.others.Len()
	}
	return t.slots, waiting, t.dropped
}

// turnstile is a client's connection during its TLS handshake, which has a turn from its ClientHello on, except where it waits for the
// client.
type turnstile struct {
	net.Conn
	turn
	ctx    context.Context // ends with the time for the handshake
	turns  *turns
	passed bool // it has had its first turn
	has    bool // it has one
}

// gate makes the turnstile of a session's handshake, for which there is time until ctx ends.
func (s *session) gate(ctx context.Context) *turnstile {
	return &turnstile{turns: s.settings.server.limits.turns, ctx: ctx,
		turn: turn{client: subnetOf(s.peer.Client), exempt: s.exempt()}}
}

// around is what the connection is during the handshake.
func (t *turnstile) around(conn net.Conn) net.Conn {
	t.Conn = conn
	return t
}

// enter waits for the first turn, when the ClientHello is there and nothing was computed.
func (t *turnstile) enter() error {
	began := time.Now()
	if err := t.turns.await(t.ctx, &t.turn, false); err != nil {
		return err
	}
	t.passed, t.has = true, true
	if time.Since(began) > worthALook && gone(t.Conn) {
		t.turns.drop()
		return errGone
	}
	return nil
}

// worthALook is the time after which somebody may have gone: to look costs less than a handshake, but not nothing.
const worthALook = 100 * time.Millisecond

// Read gives up the turn while it waits for the client. Others' turns may come first.
func (t *turnstile) Read(p []byte) (int, error) {
	t.leave()
	n, err := t.Conn.Read(p)
	if err == nil && t.passed {
		if err = t.turns.await(t.ctx, &t.turn, true); err == nil {
			t.has = true
		}
	}
	return n, err
}

// leave gives up the turn, if it has one.
func (t *turnstile) leave() {
	if t.has {
		t.has = false
		t.turns.leave()
	}
}

// inTurn makes the configuration of a listener on which handshakes wait for their turns.
func inTurn(config *tls.Config) *tls.Config {
	if config == nil {
		return nil
	}
	choose := config.GetConfigForClient
	config = config.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if err := hello.Conn.(*relay.Link).Conn.(*turnstile).enter(); err != nil {
			return nil, err
		}
		if choose == nil {
			return nil, nil
		}
		return choose(hello)
	}
	return config
}
