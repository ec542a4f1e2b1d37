package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/relay"
)

// Tracing says whose sessions are traced: a canonical user's, or those of the clients of a network.
type Tracing struct {
	User   string
	Client netip.Prefix
	Relay  bool // what is said after the login, too
}

const (
	traceWaiting = 4096    // lines that wait for whoever reads a trace; more are lost
	traceKept    = 8 << 10 // octets of a session that nobody asks for yet: its user is not known
)

// traces are all that are going on. Safe for concurrent use.
type traces struct {
	some atomic.Bool // there are any: what sessions ask before anything else

	mu  sync.Mutex
	all map[*trace]struct{}
}

// trace is what somebody wants to see.
type trace struct {
	Tracing
	lines chan string
	lost  atomic.Int64
	over  atomic.Bool // nobody reads it any more
}

// Trace gives what is said in sessions, line by line and without secrets, to somebody who writes it down, until ctx ends or that fails.
// Sessions that began before it are traced in the relay alone. Nobody waits for the writer: what it cannot take is counted, and
// said.
func (s *Server) Trace(ctx context.Context, which Tracing, write func(line string) error) error {
	return s.follow(ctx, s.beginTrace(which), write)
}

// beginTrace has all sessions tell what is said from now on. follow must be called.
func (s *Server) beginTrace(which Tracing) *trace {
	t := &trace{Tracing: which, lines: make(chan string, traceWaiting)}
	s.traces.add(t)
	s.retap(which)
	return t
}

// follow writes down what sessions tell a trace, and ends it.
func (s *Server) follow(ctx context.Context, t *trace, write func(line string) error) error {
	defer func() {
		s.traces.remove(t)
		s.retap(t.Tracing)
	}()
	for {
		select {
		case line := <-t.lines:
			if err := t.tell(line, write); err != nil {
				return err
			}
		case <-ctx.Done():
			for range len(t.lines) { // what was said before the end
				if err := t.tell(<-t.lines, write); err != nil {
					return err
				}
			}
			return nil
		}
	}
}

// tell writes a line, and how many are lost before it.
func (t *trace) tell(line string, write func(string) error) error {
	if lost := t.lost.Swap(0); lost > 0 {
		line = fmt.Sprintf("%s(%d lines are lost here)\n", line, lost)
	}
	return write(line)
}

func (all *traces) add(t *trace) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.all == nil {
		all.all = make(map[*trace]struct{})
	}
	all.all[t] = struct{}{}
	all.some.Store(true)
}

func (all *traces) remove(t *trace) {
	all.mu.Lock()
	defer all.mu.Unlock()
	t.over.Store(true)
	delete(all.all, t)
	all.some.Store(len(all.all) > 0)
}

// of lists the traces that want what is said in a session. more: there are some that may want it when the user is known.
func (all *traces) of(s SessionInfo, relay bool) (wanted []*trace, more bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for t := range all.all {
		switch {
		case relay && !t.Relay:
		case t.of(s):
			wanted = append(wanted, t)
		case t.User != "":
			more = true
		}
	}
	return wanted, more
}

// retap has the sessions that are relayed tell what is said in them, or no longer, when a trace has begun or ended.
func (s *Server) retap(which Tracing) {
	if !which.Relay {
		return
	}
	for _, one := range s.sessions.list() {
		if which.of(one.info()) {
			one.tapRelay()
		}
	}
}

// of reports whether a session is to be traced.
func (t Tracing) of(s SessionInfo) bool { return Selection{User: t.User, Client: t.Client}.Has(s) }

// tapRelay has the relay tell what is said, if somebody wants to know.
func (s *session) tapRelay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relayed == nil {
		return
	}
	s.relayed.Tap(s.relayTap())
}

// relayTap makes what the relay tells what is said to; nil if nobody wants to know. s.mu is held.
func (s *session) relayTap() relay.Tap {
	info := s.describe()
	wanted, _ := s.settings.server.traces.of(info, true)
	if len(wanted) == 0 {
		return nil
	}
	w := &scribe{id: info.ID, wanted: wanted}
	m := &mask{protocol: configs.Service(info.Service).Protocol(), relay: true}
	var mu sync.Mutex // elsewhere than on Linux, both directions have a goroutine
	return func(fromClient bool, said []byte) {
		mu.Lock()
		defer mu.Unlock()
		w.hear(m, speaker(fromClient, "C", "S"), fromClient, said)
	}
}

func speaker(first bool, one, other string) string {
	if first {
		return one
	}
	return other
}

// scribe writes down what is said in one session before its login. A nil one does not. It is the session's goroutine's.
type scribe struct {
	id     string
	wanted []*trace // who get what is said; those of whom it is not known yet get it later
	kept   []string
	room   int  // in kept, in octets
	more   bool // somebody else may want it
	front  mask // with the client
}

// newScribe returns nil where nobody can want to know what is said.
func (s *session) newScribe() *scribe {
	all := &s.settings.server.traces
	if !all.some.Load() {
		return nil
	}
	wanted, more := all.of(s.info(), false)
	more = more && s.settings.listener.Service != configs.LMTP // nobody logs in
	if len(wanted) == 0 && !more {
		return nil
	}
	w := &scribe{id: s.peer.Session, wanted: wanted, more: more, room: traceKept}
	w.front.protocol = s.settings.listener.Service.Protocol()
	s.conn.Tap(func(sent bool, said []byte) { w.hear(&w.front, speaker(sent, "S", "C"), !sent, said) })
	return w
}

// identified has the traces of the user get what was said so far, and what will be.
func (w *scribe) identified(s *session) {
	if w == nil || !w.more {
		return
	}
	wanted, _ := s.settings.server.traces.of(s.info(), false)
	for _, t := range wanted {
		if slices.Contains(w.wanted, t) {
			continue
		}
		for _, line := range w.kept {
			t.put(line)
		}
		w.wanted = append(w.wanted, t)
	}
}

// toStore returns what a store's connection tells what is said to; nil where nobody wants to know.
func (w *scribe) toStore(protocol configs.Service) backends.Tap {
	if w == nil {
		return nil
	}
	m := &mask{protocol: protocol}
	return func(sent bool, said []byte) { w.hear(m, speaker(sent, "P", "B"), sent, said) }
}

// hear writes down what somebody says.
func (w *scribe) hear(m *mask, who string, fromClient bool, said []byte) {
	w.wanted = slices.DeleteFunc(w.wanted, func(t *trace) bool { return t.over.Load() })
	if len(w.wanted) == 0 && !w.more {
		return
	}
	for _, line := range m.lines(fromClient, said) {
		line = fmt.Sprintf("%s %s %s: %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), w.id, who, readable(line))
		for _, t := range w.wanted {
			t.put(line)
		}
		if w.room -= len(line); w.more && w.room >= 0 {
			w.kept = append(w.kept, line)
		}
	}
}

// put gives a line to whoever reads the trace, if there is room.
func (t *trace) put(line string) {
	select {
	case t.lines <- line:
	default:
		t.lost.Add(1)
	}
}
