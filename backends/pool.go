package backends

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// seats are where the users of a pool are. While a user has a session or delivery on a member, and for a while after, every
// service leads there: mail stores that share storage corrupt it where two of them serve one user. They outlive a Router, so
// that a reload moves nobody. Safe for concurrent use.
type seats struct {
	mu    sync.Mutex
	taken map[string]*seat // by user
	swept time.Time
	pool  string
	next  *Successor // nil as long as no other process has taken over
}

// standing is what a member can be for a user, the better the higher.
type standing int

const (
	closed standing = iota // to users who are not there: it is drained, or has all the sessions that it may have
	dead
	fit
)

// seat is one user's place.
type seat struct {
	member  string
	holders map[*holder]bool
	until   time.Time     // when it ends, if nobody holds it
	empty   chan struct{} // closed when the last holder leaves
	cleared chan struct{} // closed when the user has his next seat; nil as long as he need not leave
	leaving bool          // the process that has taken over has had the user leave
}

// hold is a holder on a seat.
type hold struct {
	*holder
	member string
	fresh  bool // the seat was taken for it
}

// holder is a session or delivery.
type holder struct {
	evict   context.CancelCauseFunc
	process int // that has it; 0 is this one
}

// What a session hears whose user must leave a member, and a login that waits for that.
var (
	ErrMoved    = errors.New("the user's store is dead or has changed")
	errDead     = errors.New("the member of the pool is down")
	errNoMember = errors.New("no member can be used")
	// errUnclaimed means that the process that has taken over is to be asked first, errElsewhere that its answer is of no use here.
	errUnclaimed = errors.New("another process decides")
	errElsewhere = errors.New("another process has the user on a member that cannot be used here")
)

// poolSeats takes over the seats of the pools that stay.
func poolSeats(config *configs.Config, old *Router) map[string]*seats {
	all := make(map[string]*seats)
	for _, p := range config.Pools {
		if old != nil && old.seats[p.Name] != nil {
			all[p.Name] = old.seats[p.Name]
		} else {
			all[p.Name] = &seats{pool: p.Name, taken: make(map[string]*seat)}
		}
	}
	return all
}

func isMember(config *configs.Config, backend string) bool {
	return slices.ContainsFunc(config.Pools, func(p configs.Pool) bool { return slices.Contains(p.Members, backend) })
}

// seat finds the member for a user, and holds it until release is called.
func (r *Router) seat(ctx context.Context, pool *configs.Pool, q Query) (member string, release func(), err error) {
	s, user := r.seats[pool.Name], q.User.String()
	if q.Asks {
		member, err = r.would(pool, q)
		return member, func() {}, err
	}
	for {
		h, err := r.await(ctx, pool, q)
		if err != nil {
			return "", nil, err
		}
		depart, err := r.arrive(h.member, q, true)
		switch {
		case err == nil:
			return h.member, sync.OnceFunc(func() { depart(); s.leave(user, h.holder, pool.Sticky) }), nil
		case !h.fresh:
			s.leave(user, h.holder, pool.Sticky)
			return "", nil, fmt.Errorf("pool %s: %s: %w", pool.Name, h.member, err)
		}
		s.leave(user, h.holder, 0) // it has become full a moment ago: there may be another one
	}
}

// would is seat for somebody who only asks.
func (r *Router) would(pool *configs.Pool, q Query) (member string, err error) {
	if member, err = r.seats[pool.Name].would(pool, q.User, r.standing, time.Now()); err != nil {
		return "", fmt.Errorf("pool %s: %w", pool.Name, err)
	}
	if _, err = r.arrive(member, q, true); err != nil {
		return "", fmt.Errorf("pool %s: %s: %w", pool.Name, member, err)
	}
	return member, nil
}

// await takes a seat as soon as it can be had.
func (r *Router) await(ctx context.Context, pool *configs.Pool, q Query) (h hold, err error) {
	s := r.seats[pool.Name]
	defer func() {
		if err != nil && q.claimed != "" {
			s.disclaim(q.User.String())
		}
	}()
	for {
		h, wait, err := s.take(pool, q, r.standing, time.Now())
		if errors.Is(err, errUnclaimed) {
			if q.claimed, err = s.claim(ctx, q.User); err == nil {
				continue
			}
		}
		if err != nil {
			return hold{}, fmt.Errorf("pool %s: %w", pool.Name, err)
		}
		if wait == nil {
			return h, nil
		}
		select { // the sessions on a dead member, or where the user is to leave, have been told to end
		case <-wait:
		case <-ctx.Done():
			return hold{}, fmt.Errorf("pool %s: waiting for the user's other sessions to end: %w", pool.Name, context.Cause(ctx))
		}
	}
}

// arrive counts a session on a backend, or refuses it. Mail is not counted: a pool's seat is all that it takes there.
func (r *Router) arrive(backend string, q Query, pooled bool) (depart func(), err error) {
	switch d := r.doors.of(backend); {
	case q.Asks && q.Service != configs.LMTP:
		return func() {}, d.takes(q.User, pooled, r.limits(backend).sessions)
	case q.Service != configs.LMTP:
		return d.arrive(q.User, pooled, r.limits(backend).sessions)
	case !pooled:
		return func() {}, d.admits(q.User)
	}
	return func() {}, nil
}

// limits are [[backend]] max_sessions and max_logins.
type limits struct{ sessions, logins int }

func (r *Router) limits(backend string) limits {
	if b, ok := r.config.Backend(backend); ok {
		return limits{b.MaxSessions, b.MaxLogins}
	}
	return limits{}
}

// standing judges a member, which is dead as a whole when its leading service is.
func (r *Router) standing(member string) standing {
	if s := r.leading(member); s == nil || s.dead() {
		return dead
	}
	return r.doors.of(member).standing(r.limits(member).sessions)
}

// leading is the IMAP, or first, service of a member.
func (r *Router) leading(member string) *Service {
	for _, protocol := range configs.Protocols() {
		if s := r.services[serviceKey{member, protocol}]; s != nil {
			return s
		}
	}
	return nil
}

// Lost reports whether err means that a member of a pool is dead, so that its users may have another one. It is looked at once more,
// as often as it takes to be sure.
func (r *Router) Lost(ctx context.Context, err error) bool {
	u, ok := errors.AsType[*Unreached](err)
	if !ok || !u.service.member {
		return false
	}
	member, moment := u.service.Backend, u.at
	for range fall {
		if s := r.leading(member); r.standing(member) == dead || s.inspectSince(ctx, moment) == nil {
			break
		}
		moment = time.Now()
	}
	return r.standing(member) == dead
}

// take holds a seat, or returns what to wait for before another try.
func (s *seats) take(pool *configs.Pool, q Query, judge func(string) standing, now time.Time) (h hold, wait chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	user := q.User.String()
	place := s.taken[user]
	held := place != nil && len(place.holders) > 0
	stays, fresh := place.stays(pool, now), false
	switch {
	case place != nil && place.cleared != nil:
		return hold{}, place.cleared, nil
	case s.next != nil && q.process == 0:
		h, err = s.follow(pool, q, judge)
		return h, nil, err
	case stays && judge(place.member) != dead:
	case stays && pool.OnFailure == configs.OnFailureFail:
		return hold{}, nil, errDead
	default: // the member is dead, or a reload has taken it away, or there is none yet
		member, err := s.choose(pool, q.User, judge)
		switch {
		case err != nil:
			return hold{}, nil, err
		case held:
			for h := range place.holders {
				h.evict(ErrMoved)
			}
			return hold{}, place.empty, nil
		}
		place = &seat{member: member, holders: make(map[*holder]bool)}
		s.taken[user], fresh = place, true
	}
	h = place.hold(q)
	h.fresh = fresh
	return h, nil, nil
}

// hold adds a session or delivery to a seat.
func (p *seat) hold(q Query) hold {
	if len(p.holders) == 0 {
		p.empty = make(chan struct{})
	}
	h := &holder{evict: q.Evict, process: q.process}
	if h.evict == nil {
		h.evict = func(error) {}
	}
	p.holders[h] = true
	return hold{holder: h, member: p.member}
}

// would says which member a user would be on who came now, if the others of his sessions that are to end have ended.
func (s *seats) would(pool *configs.Pool, user User, judge func(string) standing, now time.Time) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	place := s.taken[user.String()]
	switch {
	case !place.stays(pool, now):
	case judge(place.member) != dead:
		return place.member, nil
	case pool.OnFailure == configs.OnFailureFail:
		return "", errDead
	}
	return s.choose(pool, user, judge)
}

// stays reports whether a user's next session belongs on his seat, as long as its member is not dead. No seat is none to stay on.
func (p *seat) stays(pool *configs.Pool, now time.Time) bool {
	return p != nil && (len(p.holders) > 0 || now.Before(p.until)) && slices.Contains(pool.Members, p.member)
}

// leave ends one hold. The seat stays the user's for a while.
func (s *seats) leave(user string, h *holder, sticky time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	place := s.taken[user]
	if place == nil || !place.holders[h] {
		return
	}
	delete(place.holders, h)
	if s.next != nil && h.process == 0 && !place.isOurs() {
		s.next.Left(s.pool, user)
	}
	if len(place.holders) == 0 {
		place.until = time.Now().Add(sticky)
		close(place.empty)
	}
}

// isOurs reports whether this process has a session or delivery on a seat. No seat is nobody's.
func (p *seat) isOurs() bool {
	if p == nil {
		return false
	}
	for h := range p.holders {
		if h.process == 0 {
			return true
		}
	}
	return false
}

// sweep forgets seats that have ended, now and then.
func (s *seats) sweep(now time.Time) {
	if now.Sub(s.swept) < time.Minute {
		return
	}
	s.swept = now
	for user, place := range s.taken {
		if len(place.holders) == 0 && place.cleared == nil && now.After(place.until) {
			delete(s.taken, user)
		}
	}
}

// choose takes the member for a user who has none: of those that stand best that with the highest score. Where users wait for a
// dead member, it is that with the highest score of those that are not closed.
func (s *seats) choose(pool *configs.Pool, user User, judge func(string) standing) (string, error) {
	best, rank, score := "", closed, math.Inf(-1)
	for _, member := range pool.Members {
		stands := judge(member)
		if stands != closed && pool.OnFailure == configs.OnFailureFail {
			stands = fit
		}
		x := rendezvous(pool, user, member)
		if stands > rank || stands == rank && x > score {
			best, rank, score = member, stands, x
		}
	}
	switch {
	case rank <= dead:
		return "", errNoMember
	case judge(best) == dead:
		return "", errDead
	}
	return best, nil
}

// rendezvous scores a member for a user by weighted rendezvous hashing (Schindelhauer and Schomaker, 2005): every frontend
// comes to the same member, and one that goes or comes moves its own share of users alone.
func rendezvous(pool *configs.Pool, user User, member string) float64 {
	key := user.String()
	switch pool.Hash {
	case configs.HashLocal:
		key = user.Local
	case configs.HashDomain:
		key = user.Domain
	}
	sum := sha256.Sum256([]byte(key + "\x00" + member))
	weight := 1.0
	if w, ok := pool.Weights[member]; ok {
		weight = float64(w)
	}
	fraction := (float64(binary.BigEndian.Uint64(sum[:])>>11) + 0.5) / (1 << 53) // between 0 and 1, and neither
	return -weight / math.Log(fraction)
}

// Drain keeps users from a backend who are not there already, or no longer. A pool has others for them, and elsewhere they hear of a
// temporary failure. It holds after a reload, and where the configuration has a state directory after a restart.
func (r *Router) Drain(backend string, drained bool) error {
	if b, ok := r.config.Backend(backend); !ok || b.Name == backend && strings.HasPrefix(backend, "*") {
		return fmt.Errorf("no backend %q%s", backend, configs.Suggest(backend, backendNames(r.config)))
	}
	r.doors.of(backend).drain(drained)
	r.memory.drained.Now()
	r.log.Info("drained", zap.String("backend", backend), zap.Bool("drained", drained))
	return nil
}
