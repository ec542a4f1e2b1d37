package proxy

import (
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"jackdaw/configs"
	"jackdaw/internal/tally"
)

// counts is what a server counts, from its start. All counters are there from the start, so that a login takes no lock for them. The
// zero value is ready. Safe for concurrent use.
type counts struct {
	handshakes [len(handshakeOutcomes)][len(tlsVersions)]atomic.Uint64
	logins     [maxServices][len(countedMechanisms)][len(loginOutcomes)]atomic.Uint64
	recipients [len(recipientOutcomes)]atomic.Uint64
	begun      [maxServices]atomic.Uint64 // sessions

	handshake tally.Histogram // how long handshakes take that come to an end
	dialogue  tally.Histogram // how long clients take until they want to log in
}

// maxServices has room for all of configs.Services.
const maxServices = 8

// place is where a service's counters are.
var place = func() map[configs.Service]int {
	places := make(map[configs.Service]int)
	for i, s := range configs.Services() {
		places[s] = i
	}
	return places
}()

// What can become of a handshake. The words are for metrics, as are those below.
var handshakeOutcomes = [...]string{"full", "resumed", "left", "timeout", "alert", "nonsense", "refused"}

var tlsVersions = [...]string{"", "1.0", "1.1", "1.2", "1.3"}

// shook counts a handshake.
func (c *counts) shook(state *tls.ConnectionState, err error, took time.Duration) {
	outcome, version := 0, 0
	switch {
	case err != nil:
		outcome = slices.Index(handshakeOutcomes[:], handshakeFailure(err))
	case state.DidResume:
		outcome = 1
	}
	if err == nil {
		version = int(state.Version) - tls.VersionTLS10 + 1
		c.handshake.Add(took)
	}
	c.handshakes[outcome][version].Add(1)
}

// handshakeFailure says who is to blame: the client has left, said nothing more, did not like what it saw, spoke no TLS, or wanted
// what we do not give.
func handshakeFailure(err error) string {
	_, nonsense := errors.AsType[tls.RecordHeaderError](err)
	operation, _ := errors.AsType[*net.OpError](err)
	switch {
	case hasLeft(err), errors.Is(err, net.ErrClosed):
		return "left"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case operation != nil && operation.Op == "remote error":
		return "alert"
	case nonsense:
		return "nonsense"
	}
	return "refused"
}

// countedMechanisms are those that a login can have; LOGIN is also a protocol's own command.
var countedMechanisms = [...]string{"PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2", "SCRAM-SHA-1", "SCRAM-SHA-256", "EXTERNAL", "other"}

// loginOutcomes are what clients were told of their logins.
var loginOutcomes = [...]string{"ok", "cancelled", "denied", "unavailable", "broken", "in_use", "too_soon", "not_permitted", "limit", "other"}

// loginOutcome says in one of those words what became of a login.
func loginOutcome(err error) string {
	switch {
	case err == nil:
		return "ok"
	case isSyntax(err):
		return "cancelled"
	}
	switch reasonFor(err) {
	case ReasonDenied:
		return "denied"
	case ReasonUnavailable:
		return "unavailable"
	case ReasonBroken:
		return "broken"
	case ReasonInUse:
		return "in_use"
	case ReasonTooSoon:
		return "too_soon"
	case ReasonNotPermitted:
		return "not_permitted"
	case ReasonFull, ReasonUserFull, ReasonBarred:
		return "limit"
	}
	return "other"
}

// tried counts a login.
func (c *counts) tried(service configs.Service, mechanism string, err error) {
	m := slices.Index(countedMechanisms[:], mechanism)
	if m < 0 {
		m = len(countedMechanisms) - 1
	}
	c.logins[place[service]][m][slices.Index(loginOutcomes[:], loginOutcome(err))].Add(1)
}

// recipientOutcomes are what stores say of a recipient, and of the message for him.
var recipientOutcomes = [...]string{"delivered", "temporary", "refused"}

// mailed counts a recipient by the code of the last answer about him; 0 is none, where the message did not come to its end.
func (c *counts) mailed(code int) {
	outcome := 1
	switch code / 100 {
	case 2:
		outcome = 0
	case 5:
		outcome = 2
	}
	c.recipients[outcome].Add(1)
}

func (c *counts) began(service configs.Service) { c.begun[place[service]].Add(1) }

// Counts are those of one moment. What never was is left out of the lists.
type Counts struct {
	Handshakes []HandshakeCount
	Logins     []LoginCount
	Recipients []RecipientCount
	Services   []ServiceCount // those that had sessions
	// Handshake and Dialogue are the times of handshakes that have come to an end, and those that clients took from the
	// greeting or a refusal until they wanted to log in.
	Handshake, Dialogue tally.Times
}

// HandshakeCount says how often TLS handshakes had one end.
type HandshakeCount struct {
	// Outcome is full or resumed; or the client has left, was too slow (timeout), has sent an alert, spoke no TLS (nonsense), or we
	// have refused it.
	Outcome string
	Version string // such as "1.3"; "" of those that failed
	Count   uint64
}

// LoginCount says how often logins had one end.
type LoginCount struct {
	Service   configs.Service
	Mechanism string // SASL's name, LOGIN for a protocol's own command
	Outcome   string // ok, or why not
	Count     uint64
}

// RecipientCount says how often stores have delivered to a recipient, refused him, or did neither for the moment.
type RecipientCount struct {
	Outcome string
	Count   uint64
}

// ServiceCount is about the sessions of a service.
type ServiceCount struct {
	Service        configs.Service
	Begun          uint64
	Sent, Received int64                // bytes to and from clients, from logins on
	Now            map[SessionState]int // by each state that there may be
}

// Counts returns what has been counted.
func (s *Server) Counts() Counts {
	c := &s.counts
	return Counts{
		Handshakes: c.listHandshakes(), Logins: c.listLogins(), Recipients: c.listRecipients(), Services: s.countServices(),
		Handshake: c.handshake.Read(), Dialogue: c.dialogue.Read(),
	}
}

func (c *counts) listHandshakes() (list []HandshakeCount) {
	for i, outcome := range handshakeOutcomes {
		for j, version := range tlsVersions {
			if n := c.handshakes[i][j].Load(); n > 0 {
				list = append(list, HandshakeCount{outcome, version, n})
			}
		}
	}
	return list
}

func (c *counts) listLogins() (list []LoginCount) {
	for i, service := range configs.Services() {
		for j, mechanism := range countedMechanisms {
			for k, outcome := range loginOutcomes {
				if n := c.logins[i][j][k].Load(); n > 0 {
					list = append(list, LoginCount{service, mechanism, outcome, n})
				}
			}
		}
	}
	return list
}

func (c *counts) listRecipients() (list []RecipientCount) {
	for i, outcome := range recipientOutcomes {
		if n := c.recipients[i].Load(); n > 0 {
			list = append(list, RecipientCount{outcome, n})
		}
	}
	return list
}

// countServices counts the sessions that there are, and adds what they have moved to what others had moved at their end.
func (s *Server) countServices() []ServiceCount {
	all, ended := s.sessions.snapshot()
	list := make([]ServiceCount, maxServices)
	for i, service := range configs.Services() {
		list[i] = ServiceCount{service, s.counts.begun[i].Load(), ended[i].sent, ended[i].received, statesOf(service)}
	}
	for _, one := range all {
		count := &list[place[one.settings.listener.Service]]
		state, m := one.progress()
		count.Now[state]++
		count.Sent += m.sent
		count.Received += m.received
	}
	return slices.DeleteFunc(list, func(c ServiceCount) bool { return c.Begun == 0 })
}

// statesOf counts no session in each of the states that a service has.
func statesOf(service configs.Service) map[SessionState]int {
	if service == configs.LMTP {
		return map[SessionState]int{StateHandshake: 0, StateDelivery: 0}
	}
	return map[SessionState]int{StateHandshake: 0, StateLogin: 0, StateRelay: 0}
}

// moved is how many bytes a client was sent and has sent.
type moved struct{ sent, received int64 }

// progress says how far the session has come, and what it has moved; when it has ended, what it had moved then.
func (s *session) progress() (state SessionState, m moved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relayed == nil {
		return s.stage, moved{received: s.received.Load()}
	}
	m.sent, m.received, _ = s.relayed.Moved()
	return StateRelay, m
}

// snapshot lists the sessions, with what those have moved that had left at that moment. So no byte is forgotten, and none counted
// twice, whoever leaves meanwhile: counters must not go back.
func (all *sessions) snapshot() ([]*session, [maxServices]moved) {
	all.mu.Lock()
	defer all.mu.Unlock()
	return slices.Collect(maps.Keys(all.all)), all.ended
}

// tally keeps what a session has moved that leaves. all.mu is held.
func (all *sessions) tally(s *session) {
	_, m := s.progress()
	ended := &all.ended[place[s.settings.listener.Service]]
	ended.sent += m.sent
	ended.received += m.received
}
