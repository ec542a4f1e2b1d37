package tlsstore

import (
	"crypto/tls"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Tickets encrypts the sessions that clients bring back to resume them. It outlives a Store, so that a reload costs no
// session, and can go on with the keys of a former process. Its keys are made here, and change daily, unless Use gives it others.
type Tickets struct {
	used atomic.Pointer[tls.Config] // has the keys that are used
	due  atomic.Pointer[time.Time]  // when the next key is to be made

	mu     sync.Mutex
	own    []OwnKey // the newest is the first
	shared bool     // other keys are used

	interval time.Duration // between looks at a file of keys
	unfollow func()        // ends them
}

// NewTickets makes a new set of keys.
func NewTickets() *Tickets {
	t := &Tickets{interval: 5 * time.Second, unfollow: func() {}}
	t.Inherit(nil)
	return t
}

// mark begins the entry in tls.SessionState.Extra that says to which name a session belongs.
const mark = "jackdaw name 1: "

// bond is what a session and its resumption must have in common. RFC 6066 section 3 forbids to resume under another name:
// it was this name's certificate that the client has checked. Without a name it is the default's. The certificate of the
// client's travels in its ticket, and so does it that it was not asked for one: where other authorities vouch for clients
// by now, it has to show it anew. The rest of a policy is applied to resumptions as to all handshakes, and needs no bond: a
// name that is not served for a service is refused, and no session is resumed with another version of TLS than it began
// with.
func (c choice) bond(clients *Clients) []byte {
	bond := mark + c.name
	if c.how == Default {
		bond += " by default"
	}
	if clients != nil {
		bond += " for clients of " + clients.id
	}
	return []byte(bond)
}

// chooser finds what a client can be shown that has sent this name, or none, as things are at the moment.
type chooser func(sni string) choice

func (t *Tickets) wrap(choose chooser, clients *Clients) func(tls.ConnectionState, *tls.SessionState) ([]byte, error) {
	return func(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, choose(cs.ServerName).bond(clients))
		return t.current().EncryptTicket(cs, session)
	}
}

// unwrap answers nil, which means a full handshake, to a ticket that is not for this name, and for a name that would
// be refused by now.
func (t *Tickets) unwrap(choose chooser, clients *Clients) func([]byte, tls.ConnectionState) (*tls.SessionState, error) {
	return func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		session, err := t.current().DecryptTicket(ticket, cs)
		if err != nil || session == nil {
			return nil, err
		}
		c := choose(cs.ServerName)
		belongs := func(extra []byte) bool { return string(extra) == string(c.bond(clients)) }
		if c.how == Refused || !slices.ContainsFunc(session.Extra, belongs) {
			return nil, nil
		}
		return session, nil
	}
}
