package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// queue lets handshakes wait at turns of which there is one, and notes in which order they come.
type queue struct {
	*turns
	wg    sync.WaitGroup
	mu    sync.Mutex
	order []string
}

// newQueue makes turns of which the one there is is taken.
func newQueue() *queue {
	q := &queue{turns: newTurns(1)}
	_ = q.await(context.Background(), new(turn), false)
	return q
}

// waits has a handshake wait, behind all that wait already.
func (q *queue) waits(ctx context.Context, name string, one turn, begun bool) {
	q.wg.Go(func() {
		if q.await(ctx, &one, begun) == nil {
			q.mu.Lock()
			q.order = append(q.order, name)
			q.mu.Unlock()
			q.leave()
		}
	})
	synctest.Wait()
}

// end lets all have their turns.
func (q *queue) end() []string {
	q.leave()
	q.wg.Wait()
	return q.order
}

// Who comes first is served first, and before all who is in the middle of it.
func TestTurnsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.waits(t.Context(), "a", turn{client: 1}, false)
		q.waits(t.Context(), "b", turn{client: 2}, false)
		q.waits(t.Context(), "c", turn{client: 1}, false)
		q.waits(t.Context(), "in the middle", turn{client: 3}, true)
		if order := q.end(); !slices.Equal(order, []string{"in the middle", "a", "b", "c"}) {
			t.Error("served:", order)
		}
		if slots, waiting, _ := q.state(); slots != 1 || waiting != 0 || q.free != 1 || len(q.lines) != 0 {
			t.Error("left behind:", slots, waiting, q.free, q.lines)
		}
	})
}

// A flood of one client is some turns ahead of another client, and no more; that of an exempt one is in the order of its coming.
func TestTurnsFlood(t *testing.T) {
	for _, c := range []struct {
		flood turn
		ahead int
	}{{turn{client: 1}, aheadPerClient}, {turn{client: 1, exempt: true}, 100}} {
		synctest.Test(t, func(t *testing.T) {
			q := newQueue()
			for range 100 {
				q.waits(t.Context(), "flood", c.flood, false)
			}
			q.waits(t.Context(), "other", turn{client: 2}, false)
			if _, waiting, _ := q.state(); waiting != 101 {
				t.Error("waiting:", waiting)
			}
			order := q.end()
			if at := slices.Index(order, "other"); at != c.ahead || len(order) != 101 {
				t.Errorf("of %d the other one is number %d, want %d", len(order), at, c.ahead)
			}
			if len(q.lines) != 0 || q.free != 1 {
				t.Error("left behind:", q.lines, q.free)
			}
		})
	}
}

// Who has no time left gives up its place, wherever that is, and a turn that comes at that moment goes on to the next.
func TestTurnsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 2 * aheadPerClient {
			if i%2 == 0 {
				q.waits(ctx, "late", turn{client: 1}, false)
			} else {
				q.waits(t.Context(), "in time", turn{client: 1}, false)
			}
		}
		q.waits(ctx, "late", turn{client: 2}, true)
		cancel()
		synctest.Wait()
		order := q.end()
		if _, _, dropped := q.state(); len(order) != aheadPerClient || slices.Contains(order, "late") || dropped != aheadPerClient+1 {
			t.Error("served:", order, "dropped:", dropped)
		}
		if len(q.lines) != 0 || q.free != 1 {
			t.Error("left behind:", q.lines, q.free)
		}

		q = newQueue()
		late := &turn{client: 1, come: make(chan struct{})}
		q.enqueue(late, false)
		q.leave() // it is its turn,
		q.abandon(late)
		if q.free != 1 {
			t.Error("a turn is lost")
		}
	})
}

// crowded is a host for IMAPS at whose turns as many wait as may; they never get one.
func crowded(t *testing.T) (h *host, address string, waiting []*turn) {
	h = newHost(t)
	h.limits.turns = newTurns(0)
	for i := range mostAhead {
		one := &turn{client: subnet(i), come: make(chan struct{})}
		h.limits.turns.enqueue(one, false)
		waiting = append(waiting, one)
	}
	address = "127.0.0.1:" + freePort(t)
	listener := imap("tcp", address)
	listener.Service, listener.TLS = configs.IMAPS, configs.TLSImplicit
	h.listens(listener)
	return h, address, waiting
}

// Where TLS begins at once nobody more is accepted while many wait for their turns.
func TestTurnsSettle(t *testing.T) {
	h, address, waiting := crowded(t)
	dialed(t, address) // the accept of whom is under way
	dialed(t, address)
	await(t, func() bool { return h.Count() == 1 })
	time.Sleep(50 * time.Millisecond) // would be enough for the second
	if n := h.Count(); n != 1 {
		t.Errorf("%d are accepted", n)
	}
	h.limits.turns.abandon(waiting[0])
	await(t, func() bool { return h.Count() == 2 })
}

// Who leaves does not wait for a crowd to be served first.
func TestTurnsLeave(t *testing.T) {
	h, address, waiting := crowded(t)
	dialed(t, address)
	await(t, func() bool { return h.Count() == 1 })
	left := make(chan struct{})
	go func() { h.Leave(); close(left) }()
	select {
	case <-left:
	case <-time.After(patience):
		t.Error("the server is listening yet")
		h.limits.turns.abandon(waiting[0])
	}
}

// shaking is a server's side of TLS at turns of which there is one.
type shaking struct {
	t      *testing.T
	turns  *turns
	config *tls.Config
	busy   []bool // was a turn taken, whenever something was signed?
}

func newShaking(t *testing.T) *shaking {
	s := &shaking{t: t, turns: newTurns(1), config: testTLS().Clone()}
	certificate := s.config.Certificates[0]
	s.config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		s.turns.mu.Lock()
		defer s.turns.mu.Unlock()
		s.busy = append(s.busy, s.turns.free == 0)
		return &certificate, nil
	}
	s.config.Certificates = nil
	return s
}

// serve shakes hands with a client; the outcome comes.
func (s *shaking) serve(conn net.Conn) <-chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		gate := &turnstile{turns: s.turns, ctx: ctx}
		err := wire.New(conn).ServeTLS(ctx, inTurn(s.config), gate.around)
		gate.leave()
		done <- err
	}()
	return done
}

// pair makes a connection that the test's end closes.
func (s *shaking) pair() (client, server net.Conn) {
	client, server = tcpPair(s.t)
	s.t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// handshake shakes hands as a client.
func (s *shaking) handshake(config *tls.Config) {
	s.t.Helper()
	client, server := s.pair()
	done := s.serve(server)
	config.InsecureSkipVerify = true
	conn := tls.Client(client, config)
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := errors.Join(conn.Handshake(), <-done); err != nil {
		s.t.Error(err)
	}
}

// Everything is computed in turn, in each version, and after a second ClientHello; afterwards the turn is free.
func TestTurnstile(t *testing.T) {
	s := newShaking(t)
	s.config.CurvePreferences = []tls.CurveID{tls.CurveP384}
	s.handshake(&tls.Config{})
	s.handshake(&tls.Config{MaxVersion: tls.VersionTLS12})
	s.handshake(&tls.Config{CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP384}}) // whose key share for X25519 is of no use
	if len(s.busy) != 3 || slices.Contains(s.busy, false) {
		t.Error("in turn:", s.busy)
	}
	if s.turns.free != 1 {
		t.Error("the turn is not free")
	}
}

// A client that says nothing has no turn, neither before its ClientHello nor behind our answer.
func TestTurnstileSilent(t *testing.T) {
	s := newShaking(t)
	mute, server := s.pair()
	muteDone := s.serve(server)
	half, server := s.pair()
	halfDone := s.serve(server)
	stuck := make(chan error, 1)
	go func() {
		stuck <- tls.Client(deaf{half}, &tls.Config{InsecureSkipVerify: true}).Handshake()
	}()
	await(t, func() bool { s.turns.mu.Lock(); defer s.turns.mu.Unlock(); return len(s.busy) == 1 }) // it was answered
	s.handshake(&tls.Config{})
	mute.Close()
	half.Close()
	for _, done := range []<-chan error{muteDone, halfDone, stuck} {
		if err := <-done; err == nil {
			t.Error("no error")
		}
	}
}

// deaf reads nothing, until it is closed.
type deaf struct{ net.Conn }

func (d deaf) Read([]byte) (int, error) {
	time.Sleep(time.Second)
	return 0, net.ErrClosed
}

// Nothing is signed for a client that has left when its turn comes.
func TestTurnstileGone(t *testing.T) {
	s := newShaking(t)
	_ = s.turns.await(t.Context(), new(turn), false)
	client, server := s.pair()
	done := s.serve(server)
	go func() { _ = tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake() }()
	await(t, func() bool { _, waiting, _ := s.turns.state(); return waiting == 1 })
	time.Sleep(worthALook)
	client.Close()
	await(t, func() bool { return gone(server) })
	s.turns.leave()
	if err := <-done; !errors.Is(err, errGone) {
		t.Error("the outcome is", err)
	}
	if _, _, dropped := s.turns.state(); dropped != 1 || len(s.busy) != 0 || s.turns.free != 1 {
		t.Error("dropped:", dropped, "signed:", len(s.busy), "free:", s.turns.free)
	}
}

// await polls until something is so.
func await(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never came to be so")
		}
	}
}
