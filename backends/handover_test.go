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

// process is one of two in a row, each with a router of the same pool.
type process struct {
	*testing.T
	*Router
	id   int
	pool configs.Pool
	left chan string // users of whom it says that they have left
}

func newProcess(t *testing.T, id int, pool configs.Pool) *process {
	return &process{T: t, Router: poolRouter(pool), id: id, pool: pool, left: make(chan string, 10)}
}

// logsIn brings a user to a member.
func (p *process) logsIn(user string, evict context.CancelCauseFunc) (member string, leave func()) {
	p.Helper()
	q := asked(user)
	q.Evict = evict
	member, leave, err := p.seat(p.Context(), &p.pool, q)
	if err != nil {
		p.Fatal(err)
	}
	return member, leave
}

// handsOverTo has another process take over, as the two would do it over a socket.
func (p *process) handsOverTo(next *process) {
	evict := func(process int, pool, user string) {
		if process == p.id {
			p.Evict(pool, user)
		}
	}
	next.Inherit(p.HandOver(p.id, &Successor{
		Claim: func(ctx context.Context, pool string, user User) (string, error) {
			return next.ClaimFor(ctx, p.id, pool, user, func(error) { p.Evict(pool, user.String()) })
		},
		Left: func(_, user string) { p.left <- user },
	}), evict)
}

// hears passes on that a user has left.
func (p *process) hears(from *process, user string) {
	p.Helper()
	if got := <-from.left; got != user {
		p.Errorf("%s has left, want %s", got, user)
	}
	p.Vacate(from.id, "farm", user)
}

var twoMembers = configs.Pool{Name: "farm", Members: []string{"s1", "s2"}, Hash: configs.HashUser, OnFailure: configs.OnFailureNext}

// preferring is the pool with a member to which new users go.
func preferring(member string) configs.Pool {
	pool := twoMembers
	pool.Weights = map[string]int{member: 1_000_000}
	return pool
}

// A user stays on his member as long as any process has a session of his, be it the one before the last.
func TestHandOverHeld(t *testing.T) {
	const user = "anna@a.example"
	first, second, third := newProcess(t, 1, preferring("s1")), newProcess(t, 2, preferring("s2")), newProcess(t, 3, preferring("s2"))
	member, leave := first.logsIn(user, nil)
	first.handsOverTo(second)
	again, leaveSecond := second.logsIn(user, nil)
	second.handsOverTo(third)
	leaveSecond()
	third.hears(second, user)
	at, leaveThird := third.logsIn(user, nil)
	leaveThird()
	if member != "s1" || again != member || at != member {
		t.Errorf("he is on %s, %s and %s", member, again, at)
	}
	leave()
	third.hears(first, user)
	if at, _ := third.logsIn(user, nil); at != "s2" {
		t.Errorf("nobody holds him any more, and he is on %s", at)
	}
}

// A user stays on his member for a while after his last session, whatever process that was in; a process that is gone holds none.
func TestHandOverSticky(t *testing.T) {
	sticky := preferring("s1")
	sticky.Sticky = time.Hour
	first, second := newProcess(t, 1, sticky), newProcess(t, 2, preferring("s2"))
	_, leave := first.logsIn("anna@a.example", nil)
	leave()
	_, _ = first.logsIn("bert@a.example", nil)
	first.handsOverTo(second)
	if at, _ := second.logsIn("anna@a.example", nil); at != "s1" {
		t.Errorf("a while later anna is on %s", at)
	}
	second.Vacate(first.id, "", "") // its stay is over at once: this pool is not sticky
	if at, _ := second.logsIn("bert@a.example", nil); at != "s2" {
		t.Errorf("when the process is gone bert is on %s", at)
	}
}

// Who logs in late at the old process goes where the new one has him.
func TestHandOverLate(t *testing.T) {
	const user = "anna@a.example"
	first, second := newProcess(t, 1, preferring("s1")), newProcess(t, 2, preferring("s2"))
	first.handsOverTo(second)
	at, leave := second.logsIn(user, nil)
	late, leaveLate := first.logsIn(user, nil)
	_, leaveSecondLate := first.logsIn(user, nil)
	leave()
	if at != "s2" || late != at {
		t.Errorf("he is on %s and %s", at, late)
	}
	if stays := second.Where(asked(user).User); stays[0].Held != 1 {
		t.Errorf("the new process knows of %v, want the old process alone", stays)
	}
	leaveLate()
	leaveSecondLate()
	second.hears(first, user)
	if stays := second.Where(asked(user).User); stays != nil {
		t.Errorf("left is %v", stays)
	}
}

// fails says that a member is dead, as far as this process knows.
func (p *process) fails(member string) {
	p.services[serviceKey{member, configs.IMAP}].paths[path{}].down = true
}

// waits has a user try to log in for a moment, in vain, and says why.
func (p *process) waits(user string) error {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), time.Second)
	defer cancel()
	member, _, err := p.seat(ctx, &p.pool, asked(user))
	if err == nil {
		p.Errorf("%s is on %s", user, member)
	}
	return err
}

// The old process puts nobody on another member than the new one has said, whatever it knows of members itself. Whom it can bring
// nowhere it does not hold.
func TestHandOverDisagree(t *testing.T) {
	const user = "anna@a.example"
	wider := preferring("s3")
	wider.Members = []string{"s1", "s2", "s3"}
	for _, c := range []struct {
		what string
		next configs.Pool
	}{
		{"the old process finds the member dead", preferring("s1")},
		{"the old process does not have the member", wider},
	} {
		first, second := newProcess(t, 1, preferring("s1")), newProcess(t, 2, c.next)
		first.fails("s1")
		first.handsOverTo(second)
		at, leave := second.logsIn(user, nil)
		if err := first.waits(user); !errors.Is(err, errElsewhere) {
			t.Errorf("%s: %v", c.what, err)
		}
		second.hears(first, user)
		if stays := second.Where(asked(user).User); stays[0].Member != at || stays[0].Held != 1 {
			t.Errorf("%s: the new process knows of %v", c.what, stays)
		}
		leave()
	}
}

// Where a member dies the new process says where its users go, and the sessions of the old one end first.
func TestHandOverDead(t *testing.T) {
	const user = "anna@a.example"
	first, second := newProcess(t, 1, preferring("s1")), newProcess(t, 2, preferring("s1"))
	evicted := make(chan error, 1)
	_, leave := first.logsIn(user, func(err error) { evicted <- err })
	first.handsOverTo(second)
	first.fails("s1")
	second.fails("s1")
	var ending sync.WaitGroup
	ending.Go(func() {
		<-evicted
		leave()
		second.hears(first, user)
	})
	late, _ := first.logsIn(user, nil)
	ending.Wait()
	if stays := second.Where(asked(user).User); late != "s2" || stays[0].Member != late || stays[0].Held != 1 {
		t.Errorf("he is on %s, and the new process knows of %v", late, stays)
	}
}

// What a process knew of those before it is not true any more when another one has taken over.
func TestHandOverStale(t *testing.T) {
	const user = "anna@a.example"
	first, second, third := newProcess(t, 1, preferring("s1")), newProcess(t, 2, preferring("s2")), newProcess(t, 3, preferring("s2"))
	_, leave := first.logsIn(user, nil)
	first.handsOverTo(second)
	second.handsOverTo(third)
	leave()
	third.hears(first, user)
	at, _ := third.logsIn(user, nil)
	if late, _ := second.logsIn(user, nil); at != "s2" || late != at {
		t.Errorf("he is on %s and %s", at, late)
	}
}

// awaited tells when somebody waits for its end.
type awaited struct {
	context.Context
	waits func()
}

func (a awaited) Done() <-chan struct{} {
	a.waits()
	return a.Context.Done()
}

// Who waits for a seat while another process takes over is told by that one where he goes.
func TestHandOverMeanwhile(t *testing.T) {
	const user = "anna@a.example"
	sticky := preferring("s1")
	sticky.Sticky = time.Hour
	first, second := newProcess(t, 1, sticky), newProcess(t, 2, sticky)
	evicted, waits := make(chan error, 1), make(chan struct{})
	_, leave := first.logsIn(user, func(err error) { evicted <- err })
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := first.Move(t.Context(), "farm", asked(user).User, "s2"); err != nil {
			t.Error(err)
		}
	})
	<-evicted
	var late string
	tasks.Go(func() {
		late, _, _ = first.seat(awaited{t.Context(), sync.OnceFunc(func() { close(waits) })}, &first.pool, asked(user))
	})
	<-waits
	first.handsOverTo(second)
	leave()
	tasks.Wait()
	if stays := second.Where(asked(user).User); late != stays[0].Member {
		t.Errorf("he is on %s, and the new process knows of %v", late, stays)
	}
}

// A user who has to leave a member loses his sessions in all processes first.
func TestHandOverMove(t *testing.T) {
	const user = "anna@a.example"
	sticky := preferring("s1")
	sticky.Sticky = time.Hour
	first, second := newProcess(t, 1, sticky), newProcess(t, 2, sticky)
	evicted := make(chan error, 1)
	_, leave := first.logsIn(user, func(err error) { evicted <- err })
	first.handsOverTo(second)
	var moving sync.WaitGroup
	moving.Go(func() {
		if err := second.Move(t.Context(), "farm", asked(user).User, "s2"); err != nil {
			t.Error(err)
		}
	})
	if err := <-evicted; !errors.Is(err, ErrMoved) {
		t.Errorf("he hears %v", err)
	}
	leave()
	second.hears(first, user)
	moving.Wait()
	if at := second.Where(asked(user).User)[0].Member; at != "s2" {
		t.Errorf("he is on %s", at)
	}
}

// Who logs in at the old process while a user has to leave a member does not join those who are told to end.
func TestHandOverMoveLate(t *testing.T) {
	const user = "anna@a.example"
	sticky := preferring("s1")
	sticky.Sticky = time.Hour
	first, second := newProcess(t, 1, sticky), newProcess(t, 2, sticky)
	evicted, late := make(chan error, 1), make(chan string, 1)
	_, leave := first.logsIn(user, func(err error) { evicted <- err })
	first.handsOverTo(second)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		if err := second.Move(t.Context(), "farm", asked(user).User, "s2"); err != nil {
			t.Error(err)
		}
	})
	<-evicted
	tasks.Go(func() {
		member, _, err := first.seat(t.Context(), &first.pool, asked(user))
		if err != nil {
			t.Error(err)
		}
		late <- member
	})
	select {
	case member := <-late:
		t.Fatalf("he is on %s, and has to leave it", member)
	case <-time.After(50 * time.Millisecond):
	}
	leave()
	second.hears(first, user)
	tasks.Wait()
	if member := <-late; member != "s2" {
		t.Errorf("he is on %s", member)
	}
}

// A process whose successor could not begin decides by itself again.
func TestTakeBack(t *testing.T) {
	first, second := newProcess(t, 1, preferring("s1")), newProcess(t, 2, preferring("s2"))
	first.handsOverTo(second)
	first.TakeBack()
	at, leave := first.logsIn("anna@a.example", nil)
	leave()
	if at != "s1" || len(first.left) != 0 {
		t.Errorf("on %s, and %d messages", at, len(first.left))
	}
}

// What is drained stays drained, and what was taken back while the next process began is not drained there.
func TestInheritDrained(t *testing.T) {
	first, second := newProcess(t, 1, twoMembers), newProcess(t, 2, twoMembers)
	if err := first.Drain("s2", true); err != nil {
		t.Fatal(err)
	}
	second.doors.of("s1").drain(true) // as its file said
	second.InheritDrained(first.Drained())
	if got := second.Drained(); !slices.Equal(got, []string{"s2"}) {
		t.Errorf("drained: %q", got)
	}
}
