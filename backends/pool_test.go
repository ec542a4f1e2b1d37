package backends

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// farm is a pool of three members, of which a test says which are dead.
type farm struct {
	*testing.T
	pool *configs.Pool
	*seats
	dead, drained map[string]bool
	now           time.Time
}

func newFarm(t *testing.T, change func(*configs.Pool)) *farm {
	pool := &configs.Pool{Name: "farm", Members: []string{"s1", "s2", "s3"}, Hash: configs.HashUser, Sticky: 15 * time.Minute, OnFailure: configs.OnFailureNext}
	if change != nil {
		change(pool)
	}
	return &farm{T: t, pool: pool, seats: &seats{taken: make(map[string]*seat)}, dead: make(map[string]bool), drained: make(map[string]bool), now: time.Now()}
}

// sits takes a seat, which must be there to be had.
func (f *farm) sits(user string, evict context.CancelCauseFunc) (member string, leave func()) {
	f.Helper()
	q := asked(user)
	q.Evict = evict
	h, wait, err := f.take(f.pool, q, f.judge, f.now)
	if err != nil || wait != nil {
		f.Fatalf("%s: %v, waits: %v", user, err, wait != nil)
	}
	return h.member, func() { f.leave(q.User.String(), h.holder, f.pool.Sticky) }
}

func (f *farm) judge(member string) standing {
	switch {
	case f.drained[member]:
		return closed
	case f.dead[member]:
		return dead
	}
	return fit
}

// poolRouter is a router with a pool alone, whose members are up.
func poolRouter(pool configs.Pool) *Router {
	config := &configs.Config{Pools: []configs.Pool{pool}}
	r := &Router{config: config, log: zap.NewNop(), services: make(map[serviceKey]*Service), seats: poolSeats(config, nil), doors: &doors{all: make(map[string]*door)}}
	for _, name := range pool.Members {
		config.Backends = append(config.Backends, configs.Backend{Name: name})
		r.services[serviceKey{name, configs.IMAP}] = &Service{paths: map[path]*condition{{}: {}}}
	}
	return r
}

// While a user is there, and for a while after, he comes to the same member, whatever becomes of the others.
func TestUserSticksToMember(t *testing.T) {
	f := newFarm(t, nil)
	first, leave := f.sits("anna@a.example", nil)
	f.drained[first] = true
	again, leaveAgain := f.sits("anna@a.example", nil)
	if again != first {
		t.Errorf("on %s and %s at once", first, again)
	}
	leave()
	leave() // twice does no harm
	leaveAgain()
	f.now = time.Now().Add(14 * time.Minute)
	again, leave = f.sits("anna@a.example", nil)
	if again != first {
		t.Errorf("moved from %s to %s too soon", first, again)
	}
	leave()
	f.now = time.Now().Add(16 * time.Minute)
	if again, _ = f.sits("anna@a.example", nil); again == first {
		t.Error("still on the member that is drained")
	}
}

// When a member dies, its users' sessions end before anybody of them comes to another one.
func TestDeadMemberIsLeft(t *testing.T) {
	f := newFarm(t, nil)
	ctx, evict := context.WithCancelCause(t.Context())
	first, leave := f.sits("anna", evict)
	f.dead[first] = true
	_, wait, err := f.take(f.pool, asked("anna"), f.judge, f.now)
	if err != nil || wait == nil {
		t.Fatalf("does not wait for the session to end: %v", err)
	}
	if !errors.Is(context.Cause(ctx), ErrMoved) {
		t.Errorf("the session was told %v", context.Cause(ctx))
	}
	select {
	case <-wait:
		t.Error("the session is still there")
	default:
	}
	leave()
	<-wait
	second, _ := f.sits("anna", nil)
	if second == first {
		t.Error("back on the dead member")
	}
	f.dead[first] = false
	if again, _ := f.sits("anna", nil); again != second {
		t.Errorf("moved back to %s while on %s", again, second)
	}
}

// Who only asks where a user would go ends none of his sessions, and leaves no trace.
func TestAsking(t *testing.T) {
	f := newFarm(t, nil)
	would := func() string {
		t.Helper()
		member, err := f.would(f.pool, asked("anna").User, f.judge, f.now)
		if err != nil {
			t.Error(err)
		}
		return member
	}
	f.drained[would()] = true // so that his hash leads elsewhere from now on
	if len(f.taken) > 0 {
		t.Errorf("a question has taken %v", f.taken)
	}
	ctx, evict := context.WithCancelCause(t.Context())
	first, leave := f.sits("anna", evict)
	clear(f.drained)
	if got := would(); got != first {
		t.Errorf("he would be on %s, and is on %s", got, first)
	}
	f.dead[first] = true
	if got := would(); got == first || ctx.Err() != nil {
		t.Errorf("he would be on %s; his session has heard %v", got, context.Cause(ctx))
	}
	leave()
	f.pool.OnFailure = configs.OnFailureFail
	if member, err := f.would(f.pool, asked("anna").User, f.judge, f.now); !errors.Is(err, errDead) {
		t.Errorf("he would be on %q: %v", member, err)
	}
}

// Where no other member can take a dead one's users, what they have open stays: it may work yet.
func TestNobodyIsEvictedForNothing(t *testing.T) {
	f := newFarm(t, nil)
	ctx, evict := context.WithCancelCause(t.Context())
	first, leave := f.sits("anna", evict)
	defer leave()
	for _, member := range f.pool.Members {
		f.dead[member], f.drained[member] = member == first, member != first
	}
	if _, wait, err := f.take(f.pool, asked("anna"), f.judge, f.now); !errors.Is(err, errNoMember) || wait != nil {
		t.Errorf("there is a seat: %v", err)
	}
	if ctx.Err() != nil {
		t.Error("the session was told to end")
	}
}

func TestOnFailureFail(t *testing.T) {
	f := newFarm(t, func(p *configs.Pool) { p.OnFailure = configs.OnFailureFail })
	member, leave := f.sits("anna", nil)
	leave()
	f.dead[member] = true
	for _, when := range []time.Duration{0, time.Hour} {
		if _, _, err := f.take(f.pool, asked("anna"), f.judge, time.Now().Add(when)); !errors.Is(err, errDead) {
			t.Errorf("after %v: %v", when, err)
		}
	}
	f.dead[member] = false
	if again, _ := f.sits("anna", nil); again != member {
		t.Errorf("came back to %s, not %s", again, member)
	}
}

func TestNoMemberLeft(t *testing.T) {
	f := newFarm(t, nil)
	f.dead = map[string]bool{"s1": true, "s2": true}
	f.drained["s3"] = true
	if _, _, err := f.take(f.pool, asked("anna"), f.judge, f.now); err == nil {
		t.Error("a seat was found")
	}
}

// Users spread by weight, and a member that dies moves its own alone.
func TestRendezvous(t *testing.T) {
	f := newFarm(t, func(p *configs.Pool) { p.Weights = map[string]int{"s3": 2} })
	const users = 8000
	count, at := make(map[string]int), make([]string, users)
	for i := range users {
		at[i], _ = f.sits(fmt.Sprintf("user%d@a.example", i), nil)
		count[at[i]]++
	}
	for member, want := range map[string]int{"s1": users / 4, "s2": users / 4, "s3": users / 2} {
		if diff := count[member] - want; diff < -users/40 || diff > users/40 {
			t.Errorf("%s has %d users, want about %d", member, count[member], want)
		}
	}
	g := newFarm(t, func(p *configs.Pool) { p.Weights = map[string]int{"s3": 2} })
	g.dead["s1"] = true
	for i := range users {
		if member, _ := g.sits(fmt.Sprintf("user%d@a.example", i), nil); member != at[i] && at[i] != "s1" {
			t.Fatalf("user%d moved from %s to %s", i, at[i], member)
		}
	}
}

func TestHashOfDomain(t *testing.T) {
	f := newFarm(t, func(p *configs.Pool) { p.Hash = configs.HashDomain })
	anna, _ := f.sits("anna@a.example", nil)
	for i := range 20 {
		if member, _ := f.sits(fmt.Sprintf("user%d@a.example", i), nil); member != anna {
			t.Errorf("the domain is on %s and %s", anna, member)
		}
	}
}

// Whatever happens to members, and however sessions come and go, no user is ever on two of them.
func TestNeverOnTwoMembers(t *testing.T) {
	pool := configs.Pool{Name: "farm", Members: []string{"s1", "s2", "s3"}, Hash: configs.HashUser, OnFailure: configs.OnFailureNext}
	r := poolRouter(pool)
	const users = 4
	var here [users]struct {
		sync.Mutex
		member string
		count  int
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	var seated atomic.Int64
	for i := range 4 * users {
		all.Go(func() {
			user := i % users
			for {
				select {
				case <-stop:
					return
				default:
				}
				ctx, evict := context.WithCancelCause(t.Context())
				q := asked(fmt.Sprint("user", user))
				q.Evict = evict
				member, leave, err := r.seat(ctx, &pool, q)
				if err != nil {
					evict(nil)
					continue
				}
				seat := &here[user]
				seat.Lock()
				if seat.count > 0 && seat.member != member {
					t.Errorf("user%d is on %s and %s", user, seat.member, member)
				}
				seat.member = member
				seat.count++
				seat.Unlock()
				seated.Add(1)
				select {
				case <-ctx.Done():
				case <-time.After(time.Millisecond):
				}
				seat.Lock()
				seat.count--
				seat.Unlock()
				leave()
				evict(nil)
			}
		})
	}
	for i := range 200 {
		s := r.services[serviceKey{pool.Members[i%3], configs.IMAP}]
		s.mu.Lock()
		s.paths[path{}].down = i%2 == 0
		s.mu.Unlock()
		if i%10 == 0 {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			_ = r.Move(ctx, "farm", User{Local: fmt.Sprint("user", i%users)}, pool.Members[i%3])
			cancel()
		}
		_ = r.Drain(pool.Members[(i+1)%3], i%3 == 0)
		time.Sleep(time.Millisecond)
	}
	close(stop)
	all.Wait()
	if seated.Load() < 100 {
		t.Errorf("only %d sessions came about", seated.Load())
	}
}
