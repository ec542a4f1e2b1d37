package tlsstore

import (
	"crypto/tls"
	"slices"
)

// Tickets encrypts the sessions that clients bring back to resume them. It outlives a Store, so that a reload costs no
// session; its keys are made and rotated daily by crypto/tls.
type Tickets struct {
	keys *tls.Config
}

// NewTickets makes a new set of keys.
func NewTickets() *Tickets { return &Tickets{new(tls.Config)} }

// mark begins the entry in tls.SessionState.Extra that says to which name a session belongs.
const mark = "jackdaw name 1: "

// bond is what a session and its resumption must have in common. RFC 6066 section 3 forbids to resume under another
// name: it was this name's certificate that the client has checked. Without a name it is the default's. The certificate of
// the client's travels in its ticket, and so does it that it was not asked for one: where other authorities vouch for clients
// by now, it has to show it anew.
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

func (t *Tickets) wrap(choose func(sni string) choice, clients *Clients) func(tls.ConnectionState, *tls.SessionState) ([]byte, error) {
	return func(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, choose(cs.ServerName).bond(clients))
		return t.keys.EncryptTicket(cs, session)
	}
}

// unwrap answers nil, which means a full handshake, to a ticket that is not for this name, and for a name that would
// be refused by now.
func (t *Tickets) unwrap(choose func(sni string) choice, clients *Clients) func([]byte, tls.ConnectionState) (*tls.SessionState, error) {
	return func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		session, err := t.keys.DecryptTicket(ticket, cs)
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
