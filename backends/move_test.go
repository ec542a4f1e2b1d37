package backends

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"jackdaw/configs"
)

func TestWhereAndMove(t *testing.T) {
	pool := configs.Pool{Name: "farm", Members: []string{"s1", "s2"}, Hash: configs.HashUser, Sticky: time.Minute, OnFailure: configs.OnFailureNext}
	r := poolRouter(pool)
	anna := User{"anna", "a.example"}
	if stays := r.Where(anna); stays != nil {
		t.Errorf("before: %v", stays)
	}
	ctx, evict := context.WithCancelCause(t.Context())
	q := asked(anna.String())
	q.Evict = evict
	first, leave, err := r.seat(ctx, &pool, q)
	if err != nil {
		t.Fatal(err)
	}
	if stays := r.Where(anna); !slices.Equal(stays, []Stay{{Pool: "farm", Member: first, Held: 1}}) {
		t.Errorf("there: %v", stays)
	}
	other := map[string]string{"s1": "s2", "s2": "s1"}[first]
	go func() {
		<-ctx.Done()
		leave()
	}()
	if err := r.Move(t.Context(), "farm", anna, other); err != nil {
		t.Fatal(err)
	}
	if stays := r.Where(anna); len(stays) != 1 || stays[0].Member != other || stays[0].Held != 0 {
		t.Errorf("moved: %v", stays)
	}
	if second, _, err := r.seat(t.Context(), &pool, asked(anna.String())); second != other || err != nil {
		t.Errorf("after: %s, %v", second, err)
	}
	for _, err := range []error{r.Move(t.Context(), "farm", anna, "s3"), r.Drain("s3", true)} {
		if err == nil {
			t.Error("what is not there was moved or drained")
		}
	}
	if err := r.Drain("farm", true); err == nil || err.Error() != `no backend "farm"; valid: s1, s2` {
		t.Errorf("draining a pool: %v", err)
	}
}

// Who comes between a user's last session and the end of his move waits for that, however short his seat would have been kept.
func TestMoveIsNotSwept(t *testing.T) {
	f := newFarm(t, func(p *configs.Pool) { p.Sticky = 0 })
	_, leave := f.sits("anna", nil)
	f.taken["anna"].cleared = make(chan struct{}) // a move has begun
	leave()
	if _, wait, err := f.take(f.pool, asked("anna"), f.judge, f.now.Add(time.Hour)); wait == nil {
		t.Errorf("she does not wait: %v", err)
	}
}

// settled is a user with one session on a member of a pool, which ends when it is told to.
type settled struct {
	*Router
	t     *testing.T
	pool  *configs.Pool
	user  User
	at    string
	other string
	told  chan error
	leave func()
}

func settle(t *testing.T) *settled {
	pool := configs.Pool{Name: "farm", Members: []string{"s1", "s2"}, Hash: configs.HashUser, Sticky: time.Minute, OnFailure: configs.OnFailureNext}
	s := &settled{Router: poolRouter(pool), t: t, pool: &pool, user: User{"anna", "a.example"}, told: make(chan error, 1)}
	q := asked(s.user.String())
	q.Evict = func(cause error) { s.told <- cause }
	var err error
	if s.at, s.leave, err = s.seat(t.Context(), &pool, q); err != nil {
		t.Fatal(err)
	}
	s.other = map[string]string{"s1": "s2", "s2": "s1"}[s.at]
	return s
}

// comes has a session of the user come in, and returns the member that it comes to.
func (s *settled) comes() <-chan string {
	at := make(chan string, 1)
	go func() {
		member, _, err := s.seat(s.t.Context(), s.pool, asked(s.user.String()))
		if err != nil {
			s.t.Error(err)
		}
		at <- member
	}()
	return at
}

// Who comes while a user is moved waits, and comes to where the user is then, whatever his hash says.
func TestMoveIsWaitedFor(t *testing.T) {
	s := settle(t)
	moved := make(chan error, 1)
	go func() { moved <- s.Move(t.Context(), "farm", s.user, s.other) }()
	if err := <-s.told; !errors.Is(err, ErrMoved) {
		t.Errorf("the session is told %v", err)
	}
	at := s.comes()
	select {
	case member := <-at:
		t.Fatalf("on %s while %s has a session", member, s.at)
	case <-time.After(50 * time.Millisecond):
	}
	s.leave()
	if err := <-moved; err != nil {
		t.Error(err)
	}
	if member := <-at; member != s.other {
		t.Errorf("on %s, want %s", member, s.other)
	}
}

// Who leaves a drained member has to choose anew, although he was there a moment ago.
func TestLeave(t *testing.T) {
	s := settle(t)
	if err := s.Drain(s.at, true); err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() { left <- s.Leave(t.Context(), s.user.String(), s.at) }()
	<-s.told
	s.leave()
	if err := <-left; err != nil || s.Where(s.user) != nil {
		t.Errorf("left with %v, and is at %v", err, s.Where(s.user))
	}
	if member := <-s.comes(); member != s.other {
		t.Errorf("on %s, want %s", member, s.other)
	}
	if err := s.Leave(t.Context(), s.user.String(), s.at); err != nil || s.Where(s.user)[0].Held != 1 {
		t.Errorf("who is elsewhere has left: %v, %v", err, s.Where(s.user))
	}
}

// Who is moved from a member while it is emptied goes where he is moved.
func TestLeaveWhileMoved(t *testing.T) {
	s := settle(t)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := s.Move(t.Context(), "farm", s.user, s.other); err != nil {
			t.Error(err)
		}
	})
	<-s.told
	waits := make(chan struct{})
	tasks.Go(func() {
		if err := s.Leave(awaited{t.Context(), sync.OnceFunc(func() { close(waits) })}, s.user.String(), s.at); err != nil {
			t.Error(err)
		}
	})
	<-waits
	s.leave()
	tasks.Wait()
	if stays := s.Where(s.user); len(stays) != 1 || stays[0].Member != s.other {
		t.Errorf("he is at %v, want %s", stays, s.other)
	}
}

// A session that does not end keeps its user where he is.
func TestMoveInVain(t *testing.T) {
	s := settle(t)
	ctx, cancel := context.WithCancel(t.Context())
	moved := make(chan error, 1)
	go func() { moved <- s.Move(ctx, "farm", s.user, s.other) }()
	<-s.told
	at := s.comes()
	cancel()
	if err := <-moved; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if member := <-at; member != s.at {
		t.Errorf("on %s, want %s", member, s.at)
	}
}

// A member says which pool is meant, as long as it is in one, or the user is.
func TestPoolOf(t *testing.T) {
	s := settle(t)
	s.config.Pools = append(s.config.Pools, configs.Pool{Name: "other", Members: []string{"s1", "s3"}})
	s.seats = poolSeats(s.config, s.Router)
	anna, bob := s.user, User{"bob", "a.example"}
	for _, test := range []struct {
		member string
		user   User
		want   string
	}{{"s3", bob, "other"}, {"s2", bob, "farm"}, {"s1", anna, "farm"}, {"s1", bob, ""}, {"s4", anna, ""}} {
		if pool, err := s.PoolOf(test.member, test.user); pool != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s of %s: %q, %v", test.member, test.user, pool, err)
		}
	}
}
