package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// SessionState is how far a session has come.
type SessionState string

// The states.
const (
	StateHandshake SessionState = "handshake" // its PROXY header, or its TLS, is awaited
	StateLogin     SessionState = "login"     // nobody has logged in yet
	StateRelay     SessionState = "relay"     // a user is in, and bytes are moved
	StateDelivery  SessionState = "delivery"  // by LMTP, where nobody logs in
)

// SessionInfo is what is known of a session at one moment. Before the login, user, backend and mechanism are those of the latest
// attempt.
type SessionInfo struct {
	ID          string       `json:"id"`
	Service     string       `json:"service"`
	Listener    string       `json:"listener"`
	Client      string       `json:"client"`                // an address; "unix", or "unknown" where a proxy speaks for nobody
	Proxy       string       `json:"proxy,omitempty"`       // who has spoken for the client in a PROXY header
	SNI         string       `json:"sni,omitempty"`         // only if a certificate of ours has the name
	Certificate string       `json:"certificate,omitempty"` // the name, as it stands in the certificate that is shown for SNI
	TLS         string       `json:"tls,omitempty"`         // the version
	User        string       `json:"user,omitempty"`        // canonical
	Actor       string       `json:"actor,omitempty"`       // who acts as the user, where another one does
	Backend     string       `json:"backend,omitempty"`
	Mechanism   string       `json:"mechanism,omitempty"`
	State       SessionState `json:"state"`
	Since       time.Time    `json:"since"`
	Moved       time.Time    `json:"moved,omitzero"` // when a byte last moved in the relay
	Sent        int64        `json:"sent"`           // bytes to the client in the relay
	Received    int64        `json:"received"`       // bytes of the client's in the relay; by LMTP of its messages
}

// Selection chooses sessions; what is empty does not matter.
type Selection struct {
	ID, User, Backend, Service string // User is canonical, and chooses who acts as another user, too
	Client                     netip.Prefix
	State                      SessionState
}

// Has reports whether a session is chosen.
func (c Selection) Has(s SessionInfo) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	if c.Client.IsValid() {
		if client, err := netip.ParseAddr(s.Client); err != nil || !c.Client.Contains(client.WithZone("")) {
			return false
		}
	}
	return is(c.ID, s.ID) && (is(c.User, s.User) || c.User == s.Actor) && is(c.Backend, s.Backend) && is(c.Service, s.Service) &&
		is(string(c.State), string(s.State))
}

// note changes what is listed of the session.
func (s *session) note(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// info tells what is known by now. Any goroutine may ask.
func (s *session) info() SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.describe()
}

// describe is info, where s.mu is held.
func (s *session) describe() SessionInfo {
	listener := s.settings.listener
	info := SessionInfo{
		ID: s.peer.Session, Service: string(listener.Service), Listener: listener.Name, Client: clientName(&s.peer), Proxy: s.proxy,
		SNI: s.peer.SNI, User: s.user, Actor: s.actor, Backend: s.backend, Mechanism: s.mechanism, Since: s.began,
	}
	if s.peer.TLS != 0 {
		info.TLS = tls.VersionName(s.peer.TLS)
		info.Certificate = s.settings.shown(listener, s.peer.SNI)
	}
	if s.relayed != nil {
		info.State = StateRelay
		info.Sent, info.Received, info.Moved = s.relayed.Moved()
	} else {
		info.State, info.Received = s.stage, s.received.Load()
	}
	return info
}

// sessions are all that have not ended, from accept on. Safe for concurrent use.
type sessions struct {
	mu    sync.Mutex
	all   map[*session]struct{}
	ended [maxServices]moved // by sessions that have left
	none  chan struct{}      // is closed when the last one has left; nil as long as nobody waits for that
}

func (all *sessions) enter(s *session) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.all == nil {
		all.all = make(map[*session]struct{})
	}
	all.all[s] = struct{}{}
}

func (all *sessions) leave(s *session) {
	all.mu.Lock()
	defer all.mu.Unlock()
	delete(all.all, s)
	all.tally(s)
	all.tell()
}

// tell ends the waiting for the last one.
func (all *sessions) tell() {
	if all.none != nil && len(all.all) == 0 {
		close(all.none)
		all.none = nil
	}
}

func (all *sessions) count() int {
	all.mu.Lock()
	defer all.mu.Unlock()
	return len(all.all)
}

// ErrKicked ends sessions that somebody wants to end.
var ErrKicked = errors.New("ended by the administrator")

// list returns all, in no order.
func (all *sessions) list() []*session {
	all.mu.Lock()
	defer all.mu.Unlock()
	return slices.Collect(maps.Keys(all.all))
}

// shortSpell is what is not worth waiting for between the ends of two sessions.
const shortSpell = 10 * time.Millisecond

// end tells all sessions to end, evenly over a time, until ctx ends.
func (all *sessions) end(ctx context.Context, over time.Duration, cause error) {
	list := all.list()
	begun := time.Now()
	for i, s := range list {
		due := time.Duration(float64(over) * float64(i) / float64(len(list)))
		if wait := due - time.Since(begun); wait > shortSpell {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
		}
		s.end(cause)
	}
}

// empty returns a channel that is closed when the last one has left. One may wait for that, at a time.
func (all *sessions) empty() <-chan struct{} {
	all.mu.Lock()
	defer all.mu.Unlock()
	none := make(chan struct{})
	all.none = none
	all.tell()
	return none
}
