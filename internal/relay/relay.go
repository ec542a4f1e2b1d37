// Package relay moves bytes between a client and a store, from the login to the end of the session. On Linux a session in which
// nothing moves costs neither a goroutine nor a buffer: both sockets lie in the epoll set of one of a few loops, and all bytes
// of all sessions of a loop pass through the same memory. Elsewhere, and for connections that are no sockets, each direction
// has a goroutine; the behaviour is the same.
package relay

import (
	"errors"
	"net"
	"time"
)

// A Guard looks at what passes between a client and its store. One goroutine calls Up, another Down.
type Guard interface {
	// Up returns how many of the client's bytes may pass; an error ends the session behind them.
	Up(p []byte) (int, error)
	// Down returns what the client gets of the store's bytes, which it may change in place.
	Down(p []byte) []byte
}

// Owner is whose session is relayed.
type Owner interface {
	// Bye is what the client reads before its connection is closed for err, "" if nothing can be said; it is asked only where
	// the client expects a line.
	Bye(err error) string
	// Done is told once, on a goroutine of its own, that both connections are closed. err is nil where both sides have ended
	// the session in order.
	Done(err error)
}

// Tap is told what the client and the store say, as it is passed on. What it is given is its for the time of the call. Each direction may
// have a goroutine of its own.
type Tap func(fromClient bool, said []byte)

// Session is what is to be relayed. The connections belong to the relay from now on.
type Session struct {
	Client, Store net.Conn // a *tls.Conn lies over a *Link
	// FromClient and FromStore were read ahead, and go first.
	FromClient, FromStore []byte
	Guard                 Guard // nil where the protocol needs none
	// Idle ends the session when nothing has moved for so long, in whatever direction.
	Idle  time.Duration
	Owner Owner
	Tap   Tap // nil where nobody wants to know what is said
}

// Relay is a session that is being relayed. It is safe for concurrent use.
type Relay interface {
	// End lets the session end for this reason: as soon as nothing moves and the client expects a line, after stopLimit at the
	// latest. The first reason counts.
	End(cause error)
	// Moved returns how many bytes the client was sent and has sent, and when one last moved.
	Moved() (sent, received int64, last time.Time)
	// Tap has the tap told what is said from now on, in place of another one; nil has nobody told.
	Tap(Tap)
}

// ErrIdle ends a session in which nothing has moved for too long.
var ErrIdle = errors.New("idle for too long")

// Variables, so that tests need not wait.
var (
	quietSpell  = time.Second      // after this, nothing is under way in a session
	stopLimit   = 10 * time.Second // a busy session has this long to become quiet when it is to end
	halfTimeout = time.Minute      // how long one direction may be idle when the other has ended
)

// tick is how often a session that is to end is looked at.
func tick() time.Duration { return quietSpell / 10 }

// idleLimit is how long nothing may move.
func idleLimit(idle time.Duration, halfOpen bool) time.Duration {
	if halfOpen {
		return min(idle, halfTimeout)
	}
	return idle
}

// Start relays a session.
func (l *Loops) Start(s Session) Relay {
	if r := l.park(s); r != nil {
		return r
	}
	return startPlain(s)
}
