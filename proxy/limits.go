package proxy

import (
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/census"
)

// LimitState tells how much of a limit is used.
type LimitState struct {
	Name    string `json:"name"`    // as jackdaw.toml(5) has it, where it stands there; "sessions.imap" is the limit of a service
	Limit   int    `json:"limit"`   // 0 is none
	Now     int    `json:"now"`     // how many there are; of a limit per client, network or user, how many of these are at it
	Refused int64  `json:"refused"` // since the start
}

// The names of the limits, by which refusals are counted.
const (
	limitSessions   = "sessions" // of a service with "." and its name behind
	limitPerClient  = "sessions_per_client"
	limitPerNetwork = "sessions_per_network" // of clients that have not logged in
	limitPerUser    = "sessions_per_user"
	limitFailures   = "failures_per_client"
	limitDeny       = "deny"
	limitHandshakes = "handshakes" // that are computed at once; Now is how many wait
)

// Why a client is turned away.
var (
	errFull     = errors.New("all sessions that may be are there")
	errCrowd    = errors.New("client has all the sessions that it may have")
	errShare    = errors.New("network has all the sessions without a login that it may have")
	errUserFull = errors.New("user has all the sessions that he may have")
	errBarred   = errors.New("too many logins of the client have failed")
	errDenied   = errors.New("network is denied")
)

// limits counts what the limits are for, in this process and in those that have gone before it and have sessions still. It outlives a
// reload. Safe for concurrent use.
type limits struct {
	log      *zap.Logger
	failures failures
	denied   denyList
	turns    *turns

	mu       sync.Mutex
	config   configs.Limits // the latest
	most     int            // sessions that the system allows this process; 0 if nobody knows
	services census.Count[configs.Service]
	clients  census.Count[subnet]
	pending  census.Count[subnet] // sessions without a login, by their wide networks
	users    census.Count[string]
	refused  map[string]int64
	told     map[string]time.Time // when the log has last heard that a limit was reached
}

func newLimits(log *zap.Logger) *limits {
	turns := newTurns(handshakesAtOnce())
	turns.crowded = new(surge).goOn
	return &limits{
		log: log, failures: newFailures(), denied: denyList{log: log}, turns: turns, most: sessionsPossible(),
		refused: make(map[string]int64), told: make(map[string]time.Time),
	}
}

// prepare reads what the limits of a new configuration need. apply goes over to them, for the sessions to come.
func (l *limits) prepare(config configs.Limits) (apply func(), err error) {
	deny, err := l.denied.prepare(config)
	if err != nil {
		return nil, err
	}
	return func() { deny(); l.apply(config) }, nil
}

func (l *limits) apply(config configs.Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.config = config
	if wanted := config.Sessions.All; l.most > 0 && wanted > l.most {
		l.log.Warn("fewer sessions are possible than may be: the limit of file descriptors is too low", zap.Int("may", wanted),
			zap.Int("possible", l.most))
	}
}

// holds are the counters in which a session is.
type holds uint8

// The counters.
const (
	holdsSession holds = 1 << iota
	holdsClient
	holdsPending
	holdsUser
	holdsAll = holdsSession | holdsClient | holdsPending | holdsUser
)

// enter counts a session that begins, or refuses it.
func (l *limits) enter(s *session) error {
	service, limit := s.settings.listener.Service, s.settings.limits.Sessions
	l.mu.Lock()
	defer l.mu.Unlock()
	if most, now := l.total(limit); most > 0 && now >= most {
		return l.refuse(s, limitSessions, errFull)
	}
	if most := limit.By[service]; most > 0 && l.services.Of(service) >= most {
		return l.refuse(s, limitSessions+"."+string(service), errFull)
	}
	l.services.Add(service)
	s.holds |= holdsSession
	return nil
}

// total is how many sessions there may be, over all services, and how many there are; 0 is no limit. What the system allows is for
// each process by itself, what the configuration says for all of them together. l.mu is held.
func (l *limits) total(limit configs.Sessions) (most, now int) {
	own, all := l.services.Own(), l.services.All()
	if limit.All == 0 || l.most > 0 && l.most-own < limit.All-all {
		return l.most, own
	}
	return limit.All, all
}

// leastShare is what a network may have of however few.
const leastShare = 16

// share is how many sessions without a login a network may have; 0 is no limit. l.mu is held.
func (l *limits) share(limit configs.Sessions) int {
	if most, _ := l.total(limit); most > 0 {
		return max(most/4, leastShare)
	}
	return 0
}

// welcome judges a client as soon as it is known who it is, and counts it. For LMTP there are no limits per client.
func (l *limits) welcome(s *session) error {
	config, client := s.settings.limits, subnetOf(s.peer.Client)
	free := isFree(s.peer, s.settings.listener, config)
	name, err := l.unwelcome(s.peer, free, config)
	l.mu.Lock()
	defer l.mu.Unlock()
	share := l.share(config.Sessions)
	switch {
	case err != nil:
		return l.refuse(s, name, err)
	case free:
		return nil
	case config.SessionsPerClient > 0 && l.clients.Of(client) >= config.SessionsPerClient:
		return l.refuse(s, limitPerClient, errCrowd)
	case share > 0 && l.pending.Of(client.wide()) >= share:
		return l.refuse(s, limitPerNetwork, errShare)
	}
	l.clients.Add(client)
	l.pending.Add(client.wide())
	s.holds |= holdsClient | holdsPending
	return nil
}

// unwelcome tells by which limit a client is turned away however few others there are, and why. free is isFree.
func (l *limits) unwelcome(peer backends.Peer, free bool, config configs.Limits) (name string, err error) {
	switch {
	case !peer.Unproven && l.denied.contains(peer.Client):
		return limitDeny, errDenied
	case !free && l.failures.barred(subnetOf(peer.Client), config.FailuresPerClient, time.Now()):
		return limitFailures, errBarred
	}
	return "", nil
}

// Unwelcome says why a client would be turned away that came to a listener now, however few others there are; nil if it would not.
// Nothing is counted.
func (s *Server) Unwelcome(peer backends.Peer, listener configs.Listener, config configs.Limits) error {
	_, err := s.limits.unwelcome(peer, isFree(peer, listener, config), config)
	return err
}

// user counts a session for the user who has proved who he is, or refuses it. For a session that is counted already it does nothing.
func (l *limits) user(s *session) error {
	most := s.settings.limits.SessionsPerUser
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.holds&holdsUser != 0 {
		return nil
	}
	if most > 0 && l.users.Of(s.user) >= most {
		return l.refuse(s, limitPerUser, errUserFull)
	}
	l.users.Add(s.user)
	s.holds |= holdsUser
	return nil
}

// release gives up what a session holds in these counters, if it is there.
func (l *limits) release(s *session, which holds) {
	l.mu.Lock()
	defer l.mu.Unlock()
	which &= s.holds
	s.holds &^= which
	client := subnetOf(s.peer.Client)
	if which&holdsSession != 0 {
		l.services.Remove(s.settings.listener.Service)
	}
	if which&holdsClient != 0 {
		l.clients.Remove(client)
	}
	if which&holdsPending != 0 {
		l.pending.Remove(client.wide())
	}
	if which&holdsUser != 0 {
		l.users.Remove(s.user)
	}
}

// tellEvery is how often the log hears that a limit is reached.
const tellEvery = time.Minute

// refuse counts a refusal, of which there may be very many. l.mu is held.
func (l *limits) refuse(s *session, name string, err error) error {
	l.refused[name]++
	if now := time.Now(); now.Sub(l.told[name]) >= tellEvery {
		l.told[name] = now
		s.line(zap.WarnLevel, "limit reached", zap.String("limit", name), zap.String("user", s.user),
			zap.Int64("refused", l.refused[name]), zap.Error(err))
	}
	return err
}

// Limits lists the limits, always in the same order.
func (s *Server) Limits() []LimitState { return s.limits.list() }

func (l *limits) list() []LimitState {
	denied := l.denied.count()
	slots, waiting, dropped := l.turns.state()
	l.mu.Lock()
	defer l.mu.Unlock()
	barred := l.failures.count(l.config.FailuresPerClient, time.Now())
	c, share := l.config, l.share(l.config.Sessions)
	most, now := l.total(c.Sessions)
	all := []LimitState{{limitSessions, most, now, 0}}
	for _, service := range slices.Sorted(maps.Keys(c.Sessions.By)) {
		all = append(all, LimitState{limitSessions + "." + string(service), c.Sessions.By[service], l.services.Of(service), 0})
	}
	all = append(all,
		LimitState{limitPerClient, c.SessionsPerClient, l.clients.Full(c.SessionsPerClient), 0},
		LimitState{limitPerNetwork, share, l.pending.Full(share), 0},
		LimitState{limitPerUser, c.SessionsPerUser, l.users.Full(c.SessionsPerUser), 0},
		LimitState{limitFailures, c.FailuresPerClient.Count, barred, 0},
		LimitState{limitDeny, 0, denied, 0},
	)
	for i := range all {
		all[i].Refused = l.refused[all[i].Name]
	}
	return append(all, LimitState{limitHandshakes, slots, waiting, dropped})
}

// exempt tells that limits per client do not apply to this one.
func (s *session) exempt() bool { return isExempt(s.peer, s.settings.listener, s.settings.limits) }

func isExempt(peer backends.Peer, listener configs.Listener, config configs.Limits) bool {
	return peer.In(config.Exempt) || peer.In(listener.PlaintextFrom)
}

// isFree tells that limits per client do not apply to a session from its beginning on.
func isFree(peer backends.Peer, listener configs.Listener, config configs.Limits) bool {
	return listener.Service == configs.LMTP || isExempt(peer, listener, config)
}

// isLimit tells that a client was turned away before it could say anything. There may be very many, and each limit has its own words
// in the log.
func isLimit(err error) bool {
	return slices.ContainsFunc([]error{errFull, errCrowd, errShare, errBarred, errDenied}, func(e error) bool { return errors.Is(err, e) })
}

// turnAway ends a session that has not begun, at once: there is no more than a line to be said.
func (s *session) turnAway(raw net.Conn, err error) {
	defer s.cancel(nil)
	s.mute = s.settings.listener.TLS == configs.TLSImplicit
	var d interface{ Bye(Reason) } = &lmtpDialogue{smtpTalk: smtpTalk{talk{session: s}}}
	if dialogue := s.protocol().dialogue; dialogue != nil {
		d = dialogue(s)
	}
	s.part(raw, d, err)
}

// failed counts a login that has failed, if it is for the client to get it right, and tells how many there were of late, and whether
// these are too many.
func (s *session) failed(a *Attempt, err error) (recent int, tooMany bool) {
	rate := s.settings.limits.FailuresPerClient
	if rate.Count == 0 || s.exempt() || isSyntax(err) || !denied(err) {
		return 0, false
	}
	recent, tooMany = s.settings.server.limits.failures.failed(subnetOf(s.peer.Client), a, rate, time.Now())
	return min(recent, slowest), tooMany
}

// slowest is how many times failure_delay a refusal may take because of other connections.
const slowest = 10

// barred tells whether other connections of the client have failed too often since this one began.
func (s *session) barred() bool {
	return !s.exempt() && s.settings.server.limits.bars(s)
}

// bars refuses a login of a client that is barred by now.
func (l *limits) bars(s *session) bool {
	if !l.failures.barred(subnetOf(s.peer.Client), s.settings.limits.FailuresPerClient, time.Now()) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.refuse(s, limitFailures, errBarred)
	return true
}
