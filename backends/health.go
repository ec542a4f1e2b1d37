package backends

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// A service goes every path to its store now and then, as far as a login could begin, and no further. One that leads nowhere
// is down and no login tries it, until it leads somewhere again. Logins say what they find, too: the next ones try first what
// has not failed, and the path is looked at at once.

// What it takes to change the mind about a path that was known to be up or down. The first look decides by itself.
const (
	fall = 2 // failures in a row
	rise = 2 // passes in a row
	// doubtful is the number of users, one after the other, of whom a store must say that it cannot log them in now, before it is
	// taken for down: one of them alone may have a mailbox that is broken.
	doubtful = 5
)

// path is one of the ways to a store.
type path struct {
	address configs.Address // as it is configured
	end     configs.Address // where it leads: the address itself, or one of those of the host that it names
}

func (p path) String() string {
	if p.address == p.end {
		return p.address.String()
	}
	return fmt.Sprintf("%s (%s)", p.address, p.end)
}

// condition is what is known of a path.
type condition struct {
	down    bool
	streak  int       // passes in a row, or with a minus failures
	since   time.Time // when it went up or down
	seen    time.Time // when it was gone last
	latency time.Duration
	err     error               // of the last failure, as long as nothing has passed since
	doubts  map[string]struct{} // users whom the store could not log in, since it could the last one
	until   time.Time           // no look brings it up before this
}

// startSpread is how far apart the first looks at services are, on average: they are not to begin all at once.
const startSpread = 2 * time.Millisecond

var errDown = errors.New("store is down")

// start begins to look at the store now and then, after a moment.
func (s *Service) start(wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched = true
	s.timer = time.AfterFunc(wait, func() { s.background(s.watch) })
}

// watch looks at the store, and says when the next look is due.
func (s *Service) watch() {
	err := s.inspectSince(s.ctx, time.Now().Add(-retryFirst/2))
	s.mu.Lock()
	defer s.mu.Unlock()
	wait, most := learnEvery, retryMost
	if health := time.Duration(s.Access.Health); health > 0 {
		wait, most = health, min(health, retryMost)
	}
	switch {
	case err != nil:
		wait = s.retry
		s.retry = min(2*s.retry, most)
	case s.undecided():
		wait = retryFirst
	default:
		s.retry = retryFirst
	}
	s.again(wait)
}

// again sets the time of the next look, which is not quite the same for all. s.mu is held.
func (s *Service) again(wait time.Duration) {
	if s.ctx.Err() == nil && s.watched {
		s.timer.Reset(time.Duration(float64(wait) * (0.9 + 0.2*rand.Float64())))
	}
}

// undecided reports whether there is a path of which one more look would tell whether it is up. s.mu is held.
func (s *Service) undecided() bool {
	for _, c := range s.paths {
		if c.down && c.streak > 0 && c.streak < rise || !c.down && c.streak < 0 {
			return true
		}
	}
	return false
}

// probed reports whether the paths that are down are looked at without any login. s.mu is held.
func (s *Service) probed() bool { return s.watched && s.Access.Health > 0 }

// dead reports whether the store is known to be out of reach.
func (s *Service) dead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.allDown() || s.failure != nil && !s.trust()
}

// allDown reports whether no path leads to the store. s.mu is held.
func (s *Service) allDown() bool {
	for _, c := range s.paths {
		if !c.down {
			return false
		}
	}
	return len(s.paths) > 0
}

// downNow says at once that the store is down, where somebody looks when it is up again, or nil.
func (s *Service) downNow() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.probed() || !s.allDown() {
		return nil
	}
	return fmt.Errorf("%w: %w", errDown, s.troubles())
}

// troubles says why no path leads to the store. s.mu is held.
func (s *Service) troubles() error {
	var errs []error
	for _, p := range slices.SortedFunc(maps.Keys(s.paths), func(a, b path) int { return strings.Compare(a.String(), b.String()) }) {
		errs = append(errs, fmt.Errorf("connecting to %s: %w", p, s.paths[p].err))
	}
	return errors.Join(errs...)
}

// inOrder sorts paths into the order in which a login tries them: one that has just failed comes last, one that is down not at all
// unless nobody looks when it is up again.
func (s *Service) inOrder(paths []path) []path {
	s.mu.Lock()
	defer s.mu.Unlock()
	var good, failed []path
	for _, p := range paths {
		c := s.entry(p)
		switch {
		case s.probed() && c.down:
		case c.streak >= 0 || !s.probed() && time.Since(c.seen) > avoidFor:
			good = append(good, p)
		default:
			failed = append(failed, p)
		}
	}
	return append(good, failed...)
}

// look goes all paths, side by side, and returns when one has led to the store, which is then tested if that is due.
func (s *Service) look(ctx context.Context) error {
	paths := s.resolve(ctx, true)
	s.only(paths)
	results := make(chan error, len(paths))
	for _, p := range paths {
		if !s.background(func() { s.check(p, results) }) {
			return errClosed
		}
	}
	var errs []error
	for range paths {
		if err := <-results; err != nil {
			errs = append(errs, err)
			continue
		}
		if user, due := s.testDue(); due {
			return s.testAs(ctx, user)
		}
		return nil
	}
	return errors.Join(errs...)
}

// check goes one path, tells what came of it, and comes back politely.
func (s *Service) check(p path, result chan<- error) {
	ctx, cancel := context.WithTimeoutCause(s.ctx, inspectLimit, errSlow)
	defer cancel()
	began := time.Now()
	raw, err := s.dial(ctx, p)
	if err != nil {
		result <- s.missed(ctx, p, err)
		return
	}
	defer raw.Close()
	conn, caps, err := s.prepare(ctx, raw, p.address, Opening{})
	s.note(ctx, p, err, time.Since(began))
	if err != nil {
		result <- fmt.Errorf("connecting to %s: %w", p, err)
		return
	}
	s.learn(caps)
	result <- nil
	s.store.Leave(conn)
}

// only drops what is known of paths that are there no more, and makes room for those that are new: as long as nothing is known of
// one, the store is not dead.
func (s *Service) only(paths []path) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.paths, func(p path, _ *condition) bool { return !slices.Contains(paths, p) })
	for _, p := range paths {
		s.entry(p)
	}
}

// note keeps what came of going a path. That a client had no time left, or went away, tells nothing of it, nor that we have no
// descriptors left. took is 0 where nobody has measured.
func (s *Service) note(ctx context.Context, p path, err error, took time.Duration) {
	if err != nil && ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSlow) {
		return
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, away := s.entry(p), s.allDown()
	c.seen = time.Now()
	if err != nil {
		c.err = err
		s.failed(p, c, fall)
		return
	}
	if took > 0 {
		c.latency = took
	}
	c.streak = max(c.streak, 0) + 1
	if c.since.IsZero() || c.down && c.streak >= rise && c.seen.After(c.until) {
		s.turn(p, c, false)
	}
	if !c.down {
		c.err = nil
	}
	if away && s.leading && !s.allDown() {
		s.door.returned(c.seen)
	}
}

// entry returns what is known of a path, to be changed. s.mu is held.
func (s *Service) entry(p path) *condition {
	c := s.paths[p]
	if c == nil {
		c = new(condition)
		s.paths[p] = c
	}
	return c
}

// failed counts a failure, of which so many make the path go down. s.mu is held.
func (s *Service) failed(p path, c *condition, enough int) {
	if c.streak = min(c.streak, 0) - 1; !c.down && (c.since.IsZero() || c.streak <= -enough) {
		s.turn(p, c, true)
	}
	if s.probed() && c.streak == -1 {
		s.again(retryFirst)
	}
}

// turn makes a path go up or down. s.mu is held.
func (s *Service) turn(p path, c *condition, down bool) {
	first := c.since.IsZero()
	c.down, c.since, c.doubts = down, c.seen, nil
	switch {
	case len(s.paths) == 1 || s.ctx.Err() != nil: // what becomes of the store as a whole is said elsewhere
	case down:
		s.log.Warn("way to the store is down", zap.Stringer("address", p), zap.Error(c.err))
	case !first:
		s.log.Info("way to the store is back", zap.Stringer("address", p))
	}
}

// ofOneUser are the codes of RFC 5530, RFC 2221 and RFC 2449 with which a store speaks of a user or a client, and not of itself.
var ofOneUser = []string{"INUSE", "IN-USE", "LOGIN-DELAY", "LIMIT", "OVERQUOTA", "CORRUPTION", "CONTACTADMIN", "CANNOT", "CLIENTBUG",
	"PRIVACYREQUIRED", "REFERRAL"}

// heard keeps what became of a login: whether the store can log in anybody at all. It can who refuses a password; and that it cannot
// log in a single user may have to do with his mailbox.
func (s *Service) heard(p path, user string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.entry(p)
	refusal, ok := errors.AsType[*Refusal](err)
	if c.down || err == nil || ok && (refusal.Denied || slices.Contains(ofOneUser, refusal.Code)) {
		c.doubts = nil
		return
	}
	if c.doubts == nil {
		c.doubts = make(map[string]struct{})
	}
	if c.doubts[user] = struct{}{}; len(c.doubts) >= doubtful {
		c.err, c.seen = err, time.Now()
		c.until = c.seen.Add(avoidFor)
		s.failed(p, c, 1)
		s.log.Error("store cannot log in anybody", zap.Stringer("address", p), zap.Error(err))
	}
}
