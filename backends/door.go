package backends

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"jackdaw/configs"
	"jackdaw/internal/census"
)

// A store that is back is let in on slowly, so that it has its caches warm before everybody is there: at first so many logins in a
// second, then twice as many every few seconds, and after a while as many as come. Variables, so that tests need not wait.
var (
	slowRate   = 10.0
	slowDouble = 5 * time.Second
	slowFor    = time.Minute
)

// Why a backend takes no user at the moment.
var (
	errDrained = errors.New("backend is drained")
	errFull    = errors.New("backend has all the sessions that it may have")
	errBusy    = errors.New("backend has more logins in progress than it may have, or is let in on slowly")
)

// door is the way in to one backend, for the users of all its services. It outlives a Router, as their sessions do. Safe for
// concurrent use.
type door struct {
	steps *Steps // of all doors

	mu       sync.Mutex
	drained  bool
	sessions census.Count[userKey] // and logins that are to become some, of all processes
	logins   int                   // in progress
	queue    list.List             // of *waiter, in the order in which they came
	timer    *time.Timer           // wakes the queue; nil: it never had to
	back     time.Time             // when the store came back; the zero time if it was never away
	tokens   float64               // logins that it can be let in on with now
	filled   time.Time             // when tokens was true
	counts   map[configs.Service]*LoginCounts
}

// waiter is a login that waits for its turn.
type waiter struct {
	most int
	turn chan struct{} // closed when it has come
}

func newDoor() *door {
	return &door{steps: new(Steps), counts: make(map[configs.Service]*LoginCounts)}
}

// userKey stands for a user at a door, in all processes.
type userKey uint64

// pooledUsers stands for all users of pools, whose seats know them.
const pooledUsers userKey = 0

func keyAt(user User, pooled bool) userKey {
	if pooled {
		return pooledUsers
	}
	sum := sha256.Sum256([]byte(user.String()))
	return userKey(binary.BigEndian.Uint64(sum[:]))
}

// arrive counts a session of a user, of whom a pool knows that he may be here, or refuses it. There are at most so many; 0 is no
// limit. depart must be called when the session has ended, once.
func (d *door) arrive(user User, pooled bool, most int) (depart func(), err error) {
	key := keyAt(user, pooled)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refuses(key, most); err != nil {
		return nil, err
	}
	d.sessions.Add(key)
	return func() { d.depart(key) }, nil
}

// takes says whether arrive would refuse a session, and counts none.
func (d *door) takes(user User, pooled bool, most int) error {
	key := keyAt(user, pooled)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refuses(key, most)
}

// refuses says why a session is not let in; nil if it is. d.mu is held.
func (d *door) refuses(key userKey, most int) error {
	switch {
	case key != pooledUsers && d.keepsOut(key):
		return errDrained
	case most > 0 && d.sessions.All() >= most:
		return fmt.Errorf("%w: %d", errFull, d.sessions.All())
	}
	return nil
}

func (d *door) depart(key userKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions.Remove(key)
}

// admits refuses mail for a user who is not here while the backend is drained.
func (d *door) admits(user User) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.keepsOut(keyAt(user, false)) {
		return errDrained
	}
	return nil
}

// keepsOut reports whether a user would be a new one on a backend that takes none. d.mu is held.
func (d *door) keepsOut(key userKey) bool { return d.drained && d.sessions.Of(key) == 0 }

// drain keeps new users out, or no longer.
func (d *door) drain(drained bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drained = drained
}

// standing says whether a pool can send a user here who has no seat.
func (d *door) standing(most int) standing {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.drained || most > 0 && d.sessions.All() >= most {
		return closed
	}
	return fit
}

// returned begins to let in slowly.
func (d *door) returned(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.slow(now) {
		d.back, d.filled, d.tokens = now, now, slowRate
	}
}

// slow reports whether not everybody is let in. d.mu is held.
func (d *door) slow(now time.Time) bool { return !d.back.IsZero() && now.Sub(d.back) < slowFor }

// enter waits for the turn of a login, of which at most so many are in progress; 0 is no limit. It waits for a part of the time
// that there is: the rest must do for the login, or for saying that it is not to be. leave must be called after the login.
func (d *door) enter(ctx context.Context, most int) error {
	d.mu.Lock()
	if d.queue.Len() == 0 && d.lets(most, time.Now()) {
		d.mu.Unlock()
		return nil
	}
	w := &waiter{most, make(chan struct{})}
	place := d.queue.PushBack(w)
	d.wake()
	d.mu.Unlock()
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, time.Now().Add(time.Until(end)*3/4), errBusy)
		defer cancel()
	}
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-w.turn: // at the last moment
		return nil
	default:
	}
	d.queue.Remove(place)
	d.wake() // whoever was behind may have another limit
	return fmt.Errorf("waiting behind %d logins: %w", d.logins, context.Cause(ctx))
}

// leave ends a login that was let in.
func (d *door) leave(service configs.Service, err error) {
	d.count(service, err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logins--
	d.wake()
}

// lets takes a login in, if that is possible now. d.mu is held.
func (d *door) lets(most int, now time.Time) bool {
	if most > 0 && d.logins >= most {
		return false
	}
	if d.slow(now) {
		rate := d.rate(now)
		d.tokens = min(d.tokens+now.Sub(d.filled).Seconds()*rate, rate)
		if d.filled = now; d.tokens < 1 {
			return false
		}
		d.tokens--
	}
	d.logins++
	return true
}

// rate is how many logins in a second a store takes that has come back. d.mu is held.
func (d *door) rate(now time.Time) float64 {
	return slowRate * math.Exp2(float64(now.Sub(d.back))/float64(slowDouble))
}

// wake lets in who waits, and sees to it that it is called again when more can be let in by the passing of time. d.mu is held.
func (d *door) wake() {
	now := time.Now()
	for first := d.queue.Front(); first != nil; first = d.queue.Front() {
		w := first.Value.(*waiter)
		if !d.lets(w.most, now) {
			break
		}
		d.queue.Remove(first)
		close(w.turn)
	}
	first := d.queue.Front()
	if first == nil || !d.slow(now) {
		return
	}
	if most := first.Value.(*waiter).most; most > 0 && d.logins >= most {
		return // the end of a login wakes it
	}
	soon := max(time.Duration(float64(time.Second)/d.rate(now)), time.Millisecond)
	if d.timer == nil {
		d.timer = time.AfterFunc(soon, d.again)
	} else {
		d.timer.Reset(soon)
	}
}

func (d *door) again() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wake()
}

// count keeps what became of a login.
func (d *door) count(service configs.Service, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	counts := d.counts[service]
	if counts == nil {
		counts = new(LoginCounts)
		d.counts[service] = counts
	}
	switch {
	case err == nil:
		counts.OK++
	case Denied(err):
		counts.Refused++
	default:
		counts.Temporary++
	}
}

// counted returns what became of logins.
func (d *door) counted(service configs.Service) LoginCounts {
	d.mu.Lock()
	defer d.mu.Unlock()
	if counts := d.counts[service]; counts != nil {
		return *counts
	}
	return LoginCounts{}
}

// doors has the door of each backend, by its name. Safe for concurrent use.
type doors struct {
	steps Steps

	mu      sync.Mutex
	all     map[string]*door
	watches map[*PresenceWatch]struct{}
}

func (d *doors) of(backend string) *door {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := d.all[backend]
	if found == nil {
		found = newDoor()
		found.steps = &d.steps
		d.all[backend] = found
		for w := range d.watches {
			w.add(backend, found)
		}
	}
	return found
}
