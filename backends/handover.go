package backends

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"jackdaw/configs"
)

// Seat is a user's place in a pool, as one process of the daemon tells it to the next, which must not put the user on another
// member while any process has a session of his.
type Seat struct {
	Pool, User, Member string
	Left               time.Duration // until it ends, if nobody holds it
	Holders            []int         // the processes that have sessions or deliveries of the user
}

// Successor is the process that has taken over, and knows from then on where the users of pools are. Both functions must be safe
// for concurrent use.
type Successor struct {
	// Claim asks for the member to which a user goes who logs in here yet, and holds his seat there for this process.
	Claim func(ctx context.Context, pool string, user User) (member string, err error)
	// Left says that this process has no session of the user any more. It does not block.
	Left func(pool, user string)
}

// HandOver returns where the users of pools are, for the successor, which is asked from now on. process is this one's id.
func (r *Router) HandOver(process int, next *Successor) (all []Seat) {
	r.memory.drained.Leave()
	for pool, s := range r.seats {
		all = append(all, s.handOver(pool, process, next)...)
	}
	return all
}

func (s *seats) handOver(pool string, process int, next *Successor) (all []Seat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = next
	for user, place := range s.taken {
		if len(place.holders) == 0 && time.Now().After(place.until) {
			continue
		}
		holders := make(map[int]bool)
		for h := range place.holders {
			if h.process == 0 {
				holders[process] = true
			} else {
				holders[h.process] = true
			}
		}
		all = append(all, Seat{pool, user, place.member, time.Until(place.until), slices.Sorted(maps.Keys(holders))})
	}
	return all
}

// TakeBack goes on as if there had been no HandOver: the successor could not begin.
func (r *Router) TakeBack() {
	for _, s := range r.seats {
		s.mu.Lock()
		s.next = nil
		s.mu.Unlock()
	}
}

// Inherit goes on with the seats of another process. evict has a process end its sessions of a user; it must not block.
func (r *Router) Inherit(all []Seat, evict func(process int, pool, user string)) {
	for _, one := range all {
		s := r.seats[one.Pool]
		if s == nil {
			continue // there is no such pool any more
		}
		place := &seat{member: one.Member, holders: make(map[*holder]bool), until: time.Now().Add(one.Left), empty: make(chan struct{})}
		for _, process := range one.Holders {
			h := &holder{process: process, evict: func(error) { evict(process, one.Pool, one.User) }}
			place.holders[h] = true
		}
		s.mu.Lock()
		s.taken[one.User] = place
		s.mu.Unlock()
	}
}

// ClaimFor holds a seat for a user who logs in at another process, until Vacate, and returns its member.
func (r *Router) ClaimFor(ctx context.Context, process int, pool string, user User, evict func(error)) (string, error) {
	p, ok := r.config.Pool(pool)
	if !ok {
		return "", fmt.Errorf("no pool %q", pool)
	}
	h, err := r.await(ctx, p, Query{User: user, Evict: evict, process: process})
	return h.member, err
}

// Vacate gives up what a process holds: the seat of a user, or with "" all seats in a pool, or in all pools.
func (r *Router) Vacate(process int, pool, user string) {
	for name, s := range r.seats {
		p, ok := r.config.Pool(name)
		if ok && (pool == "" || pool == name) {
			s.vacate(process, user, p.Sticky)
		}
	}
}

func (s *seats) vacate(process int, user string, sticky time.Duration) {
	s.mu.Lock()
	places := s.taken
	if user != "" {
		places = map[string]*seat{user: s.taken[user]}
	}
	type held struct {
		user string
		by   *holder
	}
	var all []held
	for name, place := range places {
		if place == nil {
			continue
		}
		for h := range place.holders {
			if h.process == process {
				all = append(all, held{name, h})
			}
		}
	}
	s.mu.Unlock()
	for _, h := range all {
		s.leave(h.user, h.by, sticky)
	}
}

// Evict ends the sessions and deliveries that this process has of a user of a pool.
func (r *Router) Evict(pool, user string) {
	s := r.seats[pool]
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if place := s.taken[user]; place != nil {
		place.leaving = true
		for h := range place.holders {
			if h.process == 0 {
				h.evict(ErrMoved)
			}
		}
	}
}

// Holds reports whether this process has a session or delivery of a user of a pool.
func (r *Router) Holds(pool, user string) bool {
	s := r.seats[pool]
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken[user].isOurs()
}

// claim asks the successor where a user goes who has no session here; "" if there is none any more.
func (s *seats) claim(ctx context.Context, user User) (member string, err error) {
	s.mu.Lock()
	next := s.next
	s.mu.Unlock()
	if next == nil {
		return "", nil
	}
	if member, err = next.Claim(ctx, s.pool, user); err != nil {
		s.disclaim(user.String()) // it may have held the seat, and the answer been lost
		return "", fmt.Errorf("asking the process that has taken over: %w", err)
	}
	return member, nil
}

// disclaim tells the successor that nothing has come of a claim.
func (s *seats) disclaim(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil && !s.taken[user].isOurs() {
		s.next.Left(s.pool, user)
	}
}

// follow is take where another process decides, which has a user's sessions in other processes, too, and knows of a move. What is known
// of members here keeps a user from one, and brings him to no other. s.mu is held.
func (s *seats) follow(pool *configs.Pool, q Query, judge func(string) standing) (hold, error) {
	user := q.User.String()
	place := s.taken[user]
	ours := place.isOurs()
	usable := func(member string) bool { return slices.Contains(pool.Members, member) && judge(member) != dead }
	switch {
	case ours && usable(place.member) && (!place.leaving || q.claimed == place.member):
	case q.claimed == "":
		return hold{}, errUnclaimed
	case ours || !usable(q.claimed): // ours: they have been told to end
		return hold{}, errElsewhere
	default:
		place = &seat{member: q.claimed, holders: make(map[*holder]bool)}
		s.taken[user] = place
	}
	return place.hold(q), nil
}

// Drained lists the backends that are drained.
func (r *Router) Drained() []string { return r.doors.drained() }

// InheritDrained has those backends drained that were at another process, and no others: what was kept when this one began may
// have changed since. Those that there are no more do not matter.
func (r *Router) InheritDrained(backends []string) {
	r.LearnDrained(backends)
	r.memory.drained.Now()
}

// LearnDrained is InheritDrained from a process that has taken over, and keeps them itself.
func (r *Router) LearnDrained(backends []string) {
	for _, name := range slices.Concat(r.doors.drained(), backends) {
		r.doors.of(name).drain(slices.Contains(backends, name))
	}
}
