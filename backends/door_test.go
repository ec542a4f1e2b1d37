package backends

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jackdaw/configs"
)

// Logins beyond the limit wait, and go in the order in which they came.
func TestLoginsWaitTheirTurn(t *testing.T) {
	d := newDoor()
	if err := d.enter(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	const waiting = 5
	in := make(chan int, waiting)
	var all sync.WaitGroup
	for i := range waiting {
		all.Go(func() {
			if err := d.enter(t.Context(), 1); err != nil {
				t.Error(err)
			}
			in <- i
		})
		eventually(t, "it waits", func() bool { return queued(d) == i+1 })
	}
	for i := range waiting {
		select {
		case who := <-in:
			t.Fatalf("%d is in beside another", who)
		default:
		}
		d.leave(configs.IMAP, nil)
		if who := <-in; who != i {
			t.Errorf("%d is in before %d", who, i)
		}
	}
	d.leave(configs.IMAP, &Refusal{Denied: true})
	all.Wait()
	if d.logins != 0 || queued(d) != 0 || *d.counts[configs.IMAP] != (LoginCounts{OK: waiting, Refused: 1}) {
		t.Errorf("in the end there are %d logins, %d wait, and %+v", d.logins, queued(d), d.counts[configs.IMAP])
	}
}

func queued(d *door) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queue.Len()
}

// Who waits in vain hears of it while there is time to tell the client, and nobody waits for a client that has left.
func TestWaitingEnds(t *testing.T) {
	d := newDoor()
	if err := d.enter(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := d.enter(ctx, 1); !errors.Is(err, errBusy) || Denied(err) || ctx.Err() != nil {
		t.Errorf("the login ended with %v, and there is no time left: %v", err, ctx.Err())
	}
	gone := errors.New("client has gone")
	leaving, leave := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.enter(leaving, 1) }()
	eventually(t, "it waits", func() bool { return queued(d) == 1 })
	leave(gone)
	if err := <-done; !errors.Is(err, gone) {
		t.Errorf("the login ended with %v", err)
	}
	d.leave(configs.IMAP, nil)
	if queued(d) != 0 || d.enter(t.Context(), 1) != nil {
		t.Error("the place of one who has gone is taken")
	}
}

// A limit that has been raised, or taken away, holds for the next, behind those who wait.
func TestLimitChanges(t *testing.T) {
	d := newDoor()
	_ = d.enter(t.Context(), 1)
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- d.enter(ctx, 1) }()
	eventually(t, "the first waits", func() bool { return queued(d) == 1 })
	go func() { second <- d.enter(t.Context(), 0) }()
	eventually(t, "the second waits behind it", func() bool { return queued(d) == 2 })
	cancel()
	if err := <-first; err == nil {
		t.Error("the first is in")
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
}

// A store that is back is let in on at a rate that grows, and after a while there is none.
func TestSlowStart(t *testing.T) {
	d, now := newDoor(), time.Now()
	d.returned(now)
	var perSecond []int
	for range 65 {
		count := 0
		for range 1000 {
			now = now.Add(time.Millisecond)
			for range 200 { // as many as come
				if !d.lets(0, now) {
					break
				}
				count++
			}
		}
		perSecond = append(perSecond, count)
	}
	for i, want := range map[int]int{1: 12, 5: 21, 10: 43, 20: 171, 30: 686} {
		if got := perSecond[i]; got < want-want/20-1 || got > want+want/20+1 {
			t.Errorf("in the second after %d s there are %d logins, want about %d", i, got, want)
		}
	}
	if perSecond[0] < 15 || perSecond[0] > 25 {
		t.Errorf("in the first second there are %d logins", perSecond[0])
	}
	if perSecond[64] != 200_000 {
		t.Errorf("after a minute there are only %d", perSecond[64])
	}
	d.returned(now)
	for range 30 {
		d.lets(0, now)
	}
	if d.returned(now); d.lets(0, now) {
		t.Error("what comes back again and again is let in on again and again")
	}
}

// Who does not come in at first comes in when it is time.
func TestSlowStartWakes(t *testing.T) {
	d := newDoor()
	d.returned(time.Now())
	var all sync.WaitGroup
	for range int(slowRate) + 5 {
		all.Go(func() {
			if err := d.enter(t.Context(), 0); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if d.logins != int(slowRate)+5 {
		t.Errorf("%d are in", d.logins)
	}
}

// A store that was dead and answers again is let in on slowly; one that was there from the beginning is not, nor one of which only a
// lesser service was away.
func TestStoreIsBackSlowly(t *testing.T) {
	store, gone := serve(t, onLoopback), onSocket(t)
	config := &configs.Config{Backends: []configs.Backend{backend("a", probed(store.address))}, Routes: []configs.Route{{To: "a"}}}
	config.Backends[0].Access[configs.POP3] = way(gone)
	r, _ := run(t, config, nil)
	defer r.Retire(nil)
	slow := func() bool { return r.States()[0].Slow }
	imap, pop3 := r.services[serviceKey{"a", configs.IMAP}], r.services[serviceKey{"a", configs.POP3}]
	becomes(t, imap, store, "up")
	eventually(t, "there is no POP3", pop3.dead)
	for range rise {
		pop3.note(t.Context(), path{gone, gone}, nil, 0)
	}
	if slow() {
		t.Error("slow without having been away")
	}
	store.close()
	becomes(t, imap, store, "down")
	store.listen(t)
	becomes(t, imap, store, "up")
	eventually(t, "it begins slowly", slow)
}

// house is a router with a backend that has limits, and a user's way in.
func house(t *testing.T, store *fakeStore, change func(*configs.Config)) *Router {
	t.Helper()
	access := way(store.address)
	access.AcceptsAnyPassword = true
	config := &configs.Config{Backends: []configs.Backend{backend("a", access), backend("b", access)}}
	config.Backends[0].Access[configs.LMTP] = access
	config.Routes = []configs.Route{{To: "a"}}
	change(config)
	return prepared(t, config)
}

// stays places a user for a session.
func stays(t *testing.T, r *Router, user string, change ...func(*Query)) (where string, leave func()) {
	t.Helper()
	place, err := r.Place(t.Context(), asked(user, change...))
	if err != nil {
		return err.Error(), func() {}
	}
	return place.Service.Backend, place.Release
}

// wantsPlaces checks where users come to.
func wantsPlaces(t *testing.T, r *Router, want ...string) {
	t.Helper()
	for _, w := range want {
		user, where, _ := strings.Cut(w, ": ")
		got, leave := stays(t, r, user)
		if leave(); !strings.HasSuffix(got, where) {
			t.Errorf("%s comes to %q, want %q", user, got, where)
		}
	}
}

func mail(q *Query) { q.Service = configs.LMTP }

// One session too many is refused, until another has ended.
func TestMaxSessions(t *testing.T) {
	r := house(t, serve(t, onLoopback), func(c *configs.Config) { c.Backends[0].MaxSessions = 2 })
	_, leaveFirst := stays(t, r, "anna")
	_, leaveSecond := stays(t, r, "anna")
	wantsPlaces(t, r, "anna: a: backend has all the sessions that it may have: 2", "bob: a: backend has all the sessions that it may have: 2")
	if got, _ := stays(t, r, "bob", mail); got != "a" {
		t.Errorf("mail comes to %q", got)
	}
	leaveFirst()
	leaveFirst() // twice does no harm
	wantsPlaces(t, r, "bob: a")
	leaveSecond()
}

// Who asks where a user would go hears what he would hear, and is not counted.
func TestAskingIsNotCounted(t *testing.T) {
	r := house(t, serve(t, onLoopback), func(c *configs.Config) {
		c.Backends[0].MaxSessions = 1
		c.Pools = []configs.Pool{{Name: "farm", Members: []string{"a"}, Hash: configs.HashUser, Sticky: time.Hour, OnFailure: configs.OnFailureNext}}
		c.Routes = []configs.Route{{Domain: []string{"pool.example"}, To: "farm"}, {To: "a"}}
	})
	asks := func(q *Query) { q.Asks = true }
	wants := func(when string, want ...string) {
		t.Helper()
		for i, user := range []string{"anna", "anna@pool.example"} {
			if got, leave := stays(t, r, user, asks); got != want[i] {
				t.Errorf("%s, %s would come to %q, want %q", when, user, got, want[i])
			} else {
				leave()
			}
		}
	}
	wants("at first", "a", "a")
	wants("again", "a", "a")
	if stays := r.Where(asked("anna@pool.example").User); stays != nil {
		t.Errorf("a question has taken a seat: %v", stays)
	}
	_, leave := stays(t, r, "anna")
	wants("while it is full", "a: backend has all the sessions that it may have: 1", "pool farm: no member can be used")
	leave()
	if err := r.Drain("a", true); err != nil {
		t.Fatal(err)
	}
	wants("drained", "a: backend is drained", "pool farm: no member can be used")
}

// Of a pool a member that is full takes nobody who has no seat there; who has one hears that it is full.
func TestMaxSessionsOfMember(t *testing.T) {
	r := house(t, serve(t, onLoopback), func(c *configs.Config) {
		c.Backends[0].MaxSessions, c.Backends[1].MaxSessions = 2, 2
		c.Pools = []configs.Pool{{Name: "farm", Members: []string{"a", "b"}, Hash: configs.HashUser, Sticky: time.Hour, OnFailure: configs.OnFailureNext}}
		c.Routes[0].To = "farm"
	})
	count, first := make(map[string]int), ""
	for i := range 4 {
		where, leave := stays(t, r, fmt.Sprint("user", i))
		defer leave()
		if count[where]++; i == 0 {
			first = where
		}
	}
	if count["a"] != 2 || count["b"] != 2 {
		t.Errorf("users are at %v", count)
	}
	wantsPlaces(t, r, "user0: pool farm: "+first+": backend has all the sessions that it may have: 2", "anna: pool farm: no member can be used")
}

// Where many come at once there are never more than may be, and whoever finds a member full a moment too late gets another one.
func TestMaxSessionsOfMembersAtOnce(t *testing.T) {
	const users = 60
	r := house(t, serve(t, onLoopback), func(c *configs.Config) {
		c.Backends[0].MaxSessions, c.Backends[1].MaxSessions = users/2, users/2
		c.Pools = []configs.Pool{{Name: "farm", Members: []string{"a", "b"}, Hash: configs.HashUser, OnFailure: configs.OnFailureNext}}
		c.Routes[0].To = "farm"
	})
	var all sync.WaitGroup
	for i := range users {
		all.Go(func() {
			if _, err := r.Place(t.Context(), asked(fmt.Sprint("user", i))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

// A drained backend keeps those who are there, and takes no others.
func TestDrain(t *testing.T) {
	r := house(t, serve(t, onLoopback), func(c *configs.Config) {
		c.Backends = append(c.Backends, configs.Backend{Name: "*.stores.example", Access: c.Backends[1].Access})
		c.Routes = []configs.Route{{User: []string{"far"}, To: "s1.stores.example"}, {To: "a"}}
	})
	_, leave := stays(t, r, "anna")
	for _, name := range []string{"a", "s1.stores.example"} {
		if err := r.Drain(name, true); err != nil {
			t.Fatal(err)
		}
	}
	const refused = "backend is drained"
	wantsPlaces(t, r, "anna: a", "bob: a: "+refused, "far: s1.stores.example: "+refused)
	for user, want := range map[string]string{"anna": "a", "bob": "a: " + refused} {
		if got, _ := stays(t, r, user, mail); got != want {
			t.Errorf("mail for %s comes to %q, want %q", user, got, want)
		}
	}
	leave()
	wantsPlaces(t, r, "anna: a: "+refused)
	next, err := PrepareRouter(r.config, r, r.log) // a reload changes nothing
	if err != nil {
		t.Fatal(err)
	}
	defer next.Retire(nil)
	wantsPlaces(t, next, "anna: a: "+refused)
	if err := next.Drain("a", false); err != nil {
		t.Fatal(err)
	}
	wantsPlaces(t, next, "anna: a", "bob: a")
	for _, name := range []string{"c", "*.stores.example", ""} {
		if err := r.Drain(name, true); err == nil {
			t.Errorf("%q is drained", name)
		}
	}
}

// Logins of a placement wait at the door, and are counted.
func TestPlacementLogin(t *testing.T) {
	hold := make(chan struct{})
	store := serve(t, onLoopback, func(f *fakeStore) {
		f.verify = func(user, password string) string {
			if user == "anna" {
				<-hold
			}
			return honest(user, password)
		}
	})
	r := house(t, store, func(c *configs.Config) { c.Backends[0].MaxLogins = 1 })
	logsIn := func(user string) error {
		place, err := r.Place(t.Context(), asked(user))
		if err != nil {
			return err
		}
		defer place.Release()
		conn, err := place.Login(t.Context(), visit(user))
		if err == nil {
			err = conn.Conn.Close()
		}
		return err
	}
	anna, bob := make(chan error, 1), make(chan error, 1)
	go func() { anna <- logsIn("anna") }()
	eventually(t, "anna logs in", func() bool { return store.count("anna secret") == 1 })
	go func() { bob <- logsIn("bob") }()
	eventually(t, "bob waits", func() bool { return queued(r.doors.of("a")) == 1 })
	if slices.Contains(store.logins(), "bob secret") {
		t.Error("bob does not wait")
	}
	close(hold)
	if err := <-anna; !Denied(err) {
		t.Errorf("anna: %v", err)
	}
	if err := <-bob; err != nil {
		t.Errorf("bob: %v", err)
	}
	store.close()
	if err := logsIn("bob"); err == nil {
		t.Error("bob is let in by nobody")
	}
	if got := *r.doors.of("a").counts[configs.IMAP]; got != (LoginCounts{1, 1, 1}) {
		t.Errorf("counted %+v", got)
	}
}
