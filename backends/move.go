package backends

import (
	"context"
	"fmt"
	"slices"
	"time"

	"jackdaw/configs"
)

// Stay is where a user of a pool is.
type Stay struct {
	Pool   string `json:"pool"`
	Member string `json:"member"`
	Held   int    `json:"held"` // by so many sessions and deliveries here, and by each process that has some
	// Until is how long the member is kept for the user, if nobody holds it.
	Until time.Time `json:"until,omitzero"`
}

// Where says where a user is, for each pool in which he has a place.
func (r *Router) Where(user User) (all []Stay) {
	for _, pool := range r.config.Pools {
		if stay, ok := r.seats[pool.Name].where(user); ok {
			all = append(all, stay)
		}
	}
	return all
}

func (s *seats) where(user User) (stay Stay, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	place := s.taken[user.String()]
	switch {
	case place == nil:
		return Stay{}, false
	case len(place.holders) > 0:
		return Stay{Pool: s.pool, Member: place.member, Held: len(place.holders)}, true
	}
	return Stay{Pool: s.pool, Member: place.member, Until: place.until}, time.Now().Before(place.until)
}

// Named makes the canonical user of a name as an administrator writes it.
func (r *Router) Named(name string) (User, error) {
	return r.names.Canonical(name, r.names.Realm("", ""))
}

// PoolOf finds the pool that has a member. Where several have it, the one in which the user is decides.
func (r *Router) PoolOf(member string, user User) (pool string, err error) {
	var pools []string
	for _, p := range r.config.Pools {
		if slices.Contains(p.Members, member) {
			pools = append(pools, p.Name)
		}
	}
	if len(pools) > 1 {
		elsewhere := func(pool string) bool { _, ok := r.seats[pool].where(user); return !ok }
		pools = slices.DeleteFunc(pools, elsewhere)
		if len(pools) != 1 {
			return "", fmt.Errorf("%s is a member of several pools, and %s is not in one of them alone", member, user)
		}
	}
	if len(pools) == 0 {
		return "", fmt.Errorf("no pool has a member %q", member)
	}
	return pools[0], nil
}

// Move ends all sessions and deliveries of a user, and puts him on a member when the last has ended.
func (r *Router) Move(ctx context.Context, pool string, user User, member string) error {
	p, ok := r.config.Pool(pool)
	if !ok || !slices.Contains(p.Members, member) {
		return fmt.Errorf("no member %q in a pool %q", member, pool)
	}
	return r.seats[pool].clear(ctx, p, user.String(), "", member)
}

// Leave ends all sessions and deliveries that a user has on a member of pools, and has his next login choose anew when the last has
// ended.
func (r *Router) Leave(ctx context.Context, user, member string) error {
	for i := range r.config.Pools {
		p := &r.config.Pools[i]
		if err := r.seats[p.Name].clear(ctx, p, user, member, ""); err != nil {
			return err
		}
	}
	return nil
}

// clear ends what holds a user's seat on a member, or with "" on any, and then gives him the next one: on a member, or with "" none. Who
// comes in the meantime waits for that.
func (s *seats) clear(ctx context.Context, pool *configs.Pool, user, from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	place := s.taken[user]
	for ; place != nil && place.cleared != nil; place = s.taken[user] { // somebody else does the same
		if err := s.wait(ctx, place.cleared); err != nil {
			return fmt.Errorf("waiting for another move of %s: %w", user, err)
		}
	}
	if from != "" && (place == nil || place.member != from) {
		return nil
	}
	if place != nil && len(place.holders) > 0 {
		place.cleared = make(chan struct{})
		defer close(place.cleared)
		for h := range place.holders {
			h.evict(ErrMoved)
		}
		if err := s.wait(ctx, place.empty); err != nil {
			place.cleared = nil
			return fmt.Errorf("waiting for the sessions of %s to end: %w", user, err)
		}
	}
	delete(s.taken, user)
	if to != "" {
		s.taken[user] = &seat{member: to, holders: make(map[*holder]bool), until: time.Now().Add(pool.Sticky)}
	}
	return nil
}

// wait lets others at the seats while it waits.
func (s *seats) wait(ctx context.Context, event <-chan struct{}) error {
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-event:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
