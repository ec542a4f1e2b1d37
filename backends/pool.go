package backends

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"jackdaw/configs"
)

// seats are where the users of a pool are. While a user has a session or delivery on a member, and for a while after, every
// service leads there: mail stores that share storage corrupt it where two of them serve one user. They outlive a Router, so
// that a reload moves nobody. Safe for concurrent use.
type seats struct {
	mu      sync.Mutex
	taken   map[string]*seat // by user
	drained map[string]bool  // members that get no new users
	swept   time.Time
}

// seat is one user's place.
type seat struct {
	member  string
	holders map[*holder]bool
	until   time.Time     // when it ends, if nobody holds it
	empty   chan struct{} // closed when the last holder leaves
}

// holder is a session or delivery.
type holder struct {
	evict context.CancelCauseFunc
}

// What a session hears whose user must leave a member, and a login that waits for that.
var (
	ErrMoved = errors.New("the user's store is dead or has changed")
	errDead  = errors.New("the member of the pool is down")
)

// poolSeats takes over the seats of the pools that stay.
func poolSeats(config *configs.Config, old *Router) map[string]*seats {
	all := make(map[string]*seats)
	for _, p := range config.Pools {
		if old != nil && old.seats[p.Name] != nil {
			all[p.Name] = old.seats[p.Name]
		} else {
			all[p.Name] = &seats{taken: make(map[string]*seat), drained: make(map[string]bool)}
		}
	}
	return all
}

func isMember(config *configs.Config, backend string) bool {
	return slices.ContainsFunc(config.Pools, func(p configs.Pool) bool { return slices.Contains(p.Members, backend) })
}

// seat finds the member for a user, and holds it until release is called.
func (r *Router) seat(ctx context.Context, pool *configs.Pool, q Query) (member string, release func(), err error) {
	s := r.seats[pool.Name]
	for {
		member, h, wait, err := s.take(pool, q, r.usable, time.Now())
		switch {
		case err != nil:
			return "", nil, fmt.Errorf("pool %s: %w", pool.Name, err)
		case wait == nil:
			var once sync.Once
			return member, func() { once.Do(func() { s.leave(q.User.String(), h, pool.Sticky) }) }, nil
		}
		select { // the sessions on a dead member have been told to end
		case <-wait:
		case <-ctx.Done():
			return "", nil, fmt.Errorf("pool %s: waiting for sessions on a dead member to end: %w", pool.Name, context.Cause(ctx))
		}
	}
}

// usable reports whether a member can be used: a member is dead as a whole when its IMAP, or first service, is.
func (r *Router) usable(member string) bool {
	for _, protocol := range configs.Protocols() {
		if s := r.services[serviceKey{member, protocol}]; s != nil {
			return !s.dead()
		}
	}
	return false
}

// take holds a seat, or returns what to wait for before another try.
func (s *seats) take(pool *configs.Pool, q Query, usable func(string) bool, now time.Time) (member string, h *holder, wait chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	user := q.User.String()
	place := s.taken[user]
	held := place != nil && len(place.holders) > 0
	stays := (held || place != nil && now.Before(place.until)) && slices.Contains(pool.Members, place.member)
	switch {
	case stays && usable(place.member):
	case stays && pool.OnFailure == configs.OnFailureFail:
		return "", nil, nil, errDead
	case held: // on a member that is dead, or that a reload has taken away
		for h := range place.holders {
			h.evict(ErrMoved)
		}
		return "", nil, place.empty, nil
	default:
		member, err := s.choose(pool, q.User, usable)
		if err != nil {
			return "", nil, nil, err
		}
		place = &seat{member: member, holders: make(map[*holder]bool)}
		s.taken[user] = place
	}
	if len(place.holders) == 0 {
		place.empty = make(chan struct{})
	}
	h = &holder{evict: q.Evict}
	if h.evict == nil {
		h.evict = func(error) {}
	}
	place.holders[h] = true
	return place.member, h, nil, nil
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
	if len(place.holders) == 0 {
		place.until = time.Now().Add(sticky)
		close(place.empty)
	}
}

// sweep forgets seats that have ended, now and then.
func (s *seats) sweep(now time.Time) {
	if now.Sub(s.swept) < time.Minute {
		return
	}
	s.swept = now
	for user, place := range s.taken {
		if len(place.holders) == 0 && now.After(place.until) {
			delete(s.taken, user)
		}
	}
}

// choose takes the member for a user who has none: that with the highest score among those that can be used.
func (s *seats) choose(pool *configs.Pool, user User, usable func(string) bool) (string, error) {
	best, score := "", math.Inf(-1)
	for _, member := range pool.Members {
		if s.drained[member] || !usable(member) {
			if pool.OnFailure == configs.OnFailureNext || s.drained[member] {
				continue
			}
		}
		if x := rendezvous(pool, user, member); x > score {
			best, score = member, x
		}
	}
	switch {
	case best == "":
		return "", errors.New("no member can be used")
	case !usable(best):
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

// Where returns the member that a user of a pool is on, and how many sessions and deliveries he has there; "" for none.
func (r *Router) Where(pool string, user User) (member string, sessions int) {
	s := r.seats[pool]
	if s == nil {
		return "", 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	place := s.taken[user.String()]
	if place == nil || len(place.holders) == 0 && time.Now().After(place.until) {
		return "", 0
	}
	return place.member, len(place.holders)
}

// Drain keeps new users from a member, or no longer. Those who are there stay until their sessions end.
func (r *Router) Drain(pool, member string, drained bool) error {
	p, ok := r.config.Pool(pool)
	if !ok || !slices.Contains(p.Members, member) {
		return fmt.Errorf("no member %q in a pool %q", member, pool)
	}
	s := r.seats[pool]
	s.mu.Lock()
	defer s.mu.Unlock()
	if drained {
		s.drained[member] = true
	} else {
		delete(s.drained, member)
	}
	return nil
}

// Move ends all sessions and deliveries of a user, and puts him on a member when the last has ended.
func (r *Router) Move(ctx context.Context, pool string, user User, member string) error {
	p, ok := r.config.Pool(pool)
	if !ok || !slices.Contains(p.Members, member) {
		return fmt.Errorf("no member %q in a pool %q", member, pool)
	}
	s, name := r.seats[pool], user.String()
	for {
		s.mu.Lock()
		place := s.taken[name]
		if place == nil || len(place.holders) == 0 {
			s.taken[name] = &seat{member: member, holders: make(map[*holder]bool), until: time.Now().Add(p.Sticky)}
			s.mu.Unlock()
			return nil
		}
		for h := range place.holders {
			h.evict(ErrMoved)
		}
		empty := place.empty
		s.mu.Unlock()
		select {
		case <-empty:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the sessions of %s to end: %w", name, context.Cause(ctx))
		}
	}
}
