package backends

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"jackdaw/configs"
)

// probed makes the access to addresses that are looked at all the time.
func probed(addresses ...configs.Address) configs.Access {
	access := way(addresses...)
	access.Health = configs.Interval(10 * time.Millisecond)
	return access
}

// is tells what is known of the way to a store.
func (s *Service) is(f *fakeStore) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c := s.paths[path{f.address, f.address}]; {
	case c == nil || c.seen.IsZero():
		return "unknown"
	case c.down:
		return "down"
	}
	return "up"
}

// becomes waits until a way is up or down.
func becomes(t *testing.T, s *Service, f *fakeStore, want string) {
	t.Helper()
	eventually(t, "the way to the store is "+want, func() bool { return s.is(f) == want })
}

// A login goes where the store is known to be, and back to the first address when that has answered for a while.
func TestDeadAddressIsLeftOut(t *testing.T) {
	first, second := serve(t, onLoopback), serve(t, onLoopback)
	s, logs := begin(t, probed(first.address, second.address))
	becomes(t, s, first, "up")
	becomes(t, s, second, "up")
	eventually(t, "the self-test is over", s.trusted)
	leads := func(want configs.Address) {
		t.Helper()
		if got, err := open(t, s); err != nil || got != want {
			t.Fatalf("it leads to %v, %v; want %v", got, err, want)
		}
	}
	leads(first.address)
	first.close()
	leads(second.address) // before anybody knows, too
	becomes(t, s, first, "down")
	leads(second.address)
	first.listen(t)
	becomes(t, s, first, "up")
	leads(first.address)
	for _, line := range []string{"way to the store is down", "way to the store is back"} {
		if n := logged(logs, line); n != 1 {
			t.Errorf("the log says %d times that the %s", n, line)
		}
	}
	if n := logged(logs, "store cannot be used"); n > 0 {
		t.Error("the log says that the store cannot be used")
	}
}

// One failure is none: only what fails again is down, and only what answers again is up. Our own want of descriptors is no failure.
func TestRiseAndFall(t *testing.T) {
	store := serve(t, onLoopback)
	s := unstarted(t, probed(store.address))
	p, bad := path{store.address, store.address}, errors.New("bad")
	none := fmt.Errorf("socket: %w", syscall.EMFILE)
	for i, step := range []struct {
		err  error
		want string
	}{
		{none, "unknown"}, {nil, "up"}, {none, "up"}, {none, "up"}, {bad, "up"}, {nil, "up"}, {bad, "up"}, {bad, "down"}, {nil, "down"}, {bad, "down"}, {nil, "down"}, {nil, "up"},
	} {
		s.note(t.Context(), p, step.err, 0)
		if got := s.is(store); got != step.want {
			t.Errorf("after step %d it is %s, want %s", i, got, step.want)
		}
	}
	s = unstarted(t, probed(store.address))
	if s.note(t.Context(), p, bad, 0); s.is(store) != "down" {
		t.Error("what was never up is not down at once")
	}
}

// As long as nothing is known of one of the addresses, it is tried.
func TestFirstLogin(t *testing.T) {
	gone, slow := onSocket(t), serve(t, onLoopback, silent)
	access := probed(gone, slow.address)
	access.AcceptsAnyPassword = true
	s, _ := begin(t, access)
	eventually(t, "one look is through", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		c := s.paths[path{gone, gone}]
		return c != nil && c.down && slow.connections() > 0
	})
	slow.set(func(f *fakeStore) { f.greeting = "* OK ready" }) // for who comes after the first look
	mustLogin(t, s, "alice")
}

// Nobody waits for a store that is known to be dead, and it is found when it is back.
func TestDeadStoreAnswersAtOnce(t *testing.T) {
	store := serve(t, onLoopback)
	s, logs := begin(t, probed(store.address))
	mustLogin(t, s, "alice")
	store.set(silent) // the next one would wait for a greeting
	store.close()
	becomes(t, s, store, "down")
	store.set(func(f *fakeStore) { f.greeting = "" })
	store.listen(t)
	began := time.Now()
	for range 100 {
		if err := login(t, s, "alice"); !errors.Is(err, errDown) || Denied(err) || !strings.Contains(err.Error(), store.address.String()) {
			t.Fatalf("the login ended with %v", err)
		}
	}
	if took := time.Since(began); took > openLimit {
		t.Errorf("100 logins took %v", took)
	}
	if s.Problem() == nil || !s.dead() {
		t.Errorf("there is no problem, dead: %v", s.dead())
	}
	store.set(func(f *fakeStore) { f.greeting = "* OK ready" })
	becomes(t, s, store, "up")
	mustLogin(t, s, "alice")
	eventually(t, "the log tells", func() bool { return logged(logs, "store is back") == 1 })
	if logged(logs, "store cannot be used") == 0 {
		t.Error("the log did not tell of it")
	}
}

// A look says goodbye, and never logs in: the self-test is the only one who does.
func TestLooksArePolite(t *testing.T) {
	store := serve(t, onLoopback)
	begin(t, probed(store.address))
	eventually(t, "the store was looked at again and again", func() bool { return store.connections() > 5 })
	if got := store.logins(); len(got) != 1 || got[0] != theTest {
		t.Errorf("the store heard %q", got)
	}
	store.mu.Lock()
	defer store.mu.Unlock()
	if store.goodbyes < 4 {
		t.Errorf("of %d that came %d said goodbye", store.accepted, store.goodbyes)
	}
}

// A store that can log in nobody any more is down, although it greets. A user of whom that is true alone is none of its matter.
func TestStoreLogsInNobody(t *testing.T) {
	broken := func(user, password string) string {
		if password == "secret" && user != "bob" {
			return "NO [UNAVAILABLE] no disk"
		}
		return honest(user, password)
	}
	store := serve(t, onLoopback, func(f *fakeStore) { f.verify = broken })
	access := probed(store.address)
	access.Health = configs.Interval(time.Hour)
	s, logs := begin(t, access)
	becomes(t, s, store, "up")
	for range 3 * doubtful {
		_ = login(t, s, "carol")
	}
	if s.dead() {
		t.Fatal("one user has brought the store down")
	}
	tries := func() {
		for i := range doubtful - 1 { // beside carol's, if hers still count
			_ = login(t, s, fmt.Sprint("user", i))
		}
	}
	mustLogin(t, s, "bob")
	tries()
	if s.dead() {
		t.Fatal("what was before a login that went well still counts")
	}
	store.set(func(f *fakeStore) { // what has to do with a user alone is a sign of life
		f.verify = func(user, password string) string { return "NO [INUSE] " + user }
	})
	_ = login(t, s, "dave")
	store.set(func(f *fakeStore) { f.verify = broken })
	tries()
	if s.dead() {
		t.Fatal("what was before an answer about a user still counts")
	}
	_ = login(t, s, "carol")
	if err := login(t, s, "bob"); !errors.Is(err, errDown) {
		t.Errorf("after %d failures the login ends with %v", doubtful, err)
	}
	if logged(logs, "store cannot log in anybody") != 1 {
		t.Errorf("the log has %v", logs.All())
	}
	p := path{store.address, store.address}
	for range rise {
		s.note(t.Context(), p, nil, 0)
	}
	if !s.dead() {
		t.Error("its greeting alone has brought it back at once")
	}
	s.mu.Lock()
	s.paths[p].until = time.Time{}
	s.mu.Unlock()
	if s.note(t.Context(), p, nil, 0); s.dead() {
		t.Error("it does not come back")
	}
}

// Where nobody looks whether a store is back logins try it although it is down. Their users, of whom clients can name as many as they
// like, are not kept.
func TestDoubtsAreBounded(t *testing.T) {
	store := serve(t, onLoopback, func(f *fakeStore) {
		f.verify = func(user, password string) string {
			if password == "secret" {
				return "NO [UNAVAILABLE] no disk"
			}
			return honest(user, password)
		}
	})
	s, _ := begin(t, way(store.address))
	for i := range 3 * doubtful {
		_ = login(t, s, fmt.Sprint("user", i))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.paths[path{store.address, store.address}]; !c.down || len(c.doubts) >= doubtful {
		t.Errorf("down: %v, with %d doubts", c.down, len(c.doubts))
	}
}

// The families of a host's addresses take turns, so that one that leads nowhere costs little.
func TestAlternate(t *testing.T) {
	s := unstarted(t, way(tcp("both.example", "143")))
	host(t, "both.example", "127.0.0.1", "127.0.0.2", "::1")
	if got := fmt.Sprint(s.resolve(t.Context(), true)); got != "[both.example:143 (127.0.0.1:143) both.example:143 ([::1]:143) both.example:143 (127.0.0.2:143)]" {
		t.Errorf("resolved to %s", got)
	}
}
