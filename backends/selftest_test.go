package backends

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestVerdict(t *testing.T) {
	distrust := func(err error) bool { _, ok := errors.AsType[*distrusted](err); return ok }
	for _, test := range []struct {
		what   string
		answer error
		pass   bool
		keep   bool // out, and not just away
	}{
		{"let in", nil, false, true},
		{"refused", &Refusal{Denied: true}, true, false},
		{"refused with a code", &Refusal{Code: "AUTHENTICATIONFAILED", Denied: true}, true, false},
		{"refused for another reason", &Refusal{Code: "UNAVAILABLE"}, false, true},
		{"refused behind the right password", &Refusal{Code: "AUTHORIZATIONFAILED", Denied: true}, false, true},
		{"refused behind the right, but old password", &Refusal{Code: "EXPIRED", Denied: true}, false, true},
		{"told of a mailbox in use", &Refusal{Code: "IN-USE"}, false, true},
		{"told to wait since the last login", &Refusal{Code: "LOGIN-DELAY"}, false, true},
		{"gone", io.EOF, false, false},
		{"talking nonsense", errNoise, false, false},
	} {
		err := verdict("x", test.answer)
		if (err == nil) != test.pass || distrust(err) != test.keep {
			t.Errorf("%s: the verdict is %v", test.what, err)
		}
	}
}

// A store is asked once before the first login, and once with the name of who logged in first.
func TestSelfTest(t *testing.T) {
	store := serve(t, onLoopback)
	s, logs := begin(t, way(store.address))
	mustLogin(t, s, "alice")
	eventually(t, "alice's name is tested", func() bool { return store.count(aliceTest) == 1 })
	mustLogin(t, s, "bob")
	mustLogin(t, s, "alice")
	want := []string{theTest, alice, aliceTest, "bob secret", alice}
	if got := store.logins(); !slices.Equal(got, want) {
		t.Errorf("the store heard %q, want %q", got, want)
	}
	if s.Problem() != nil || logged(logs, "store cannot be used") > 0 || logged(logs, "store is back") > 0 {
		t.Errorf("there is a problem: %v, %v", s.Problem(), logs.All())
	}
}

// invented passwords are not the same twice.
func TestInvented(t *testing.T) {
	if a, b := invented(), invented(); a == b || kind(a) != "invented" {
		t.Errorf("invented %q and %q", a, b)
	}
}

// Whatever the store answers but a plain refusal keeps it out, until it refuses.
func TestSelfTestKeepsOut(t *testing.T) {
	for _, test := range []struct {
		what   string
		answer string
		why    string
	}{
		{"a store that lets everybody in", granted, `kept out: the store let "jackdaw-self-test" in with an invented password; ` +
			`if that is meant to be, set accepts_any_password for it`},
		{"a store with a temporary problem", "NO [UNAVAILABLE] internal error", `kept out: the store does not refuse "jackdaw-self-test" ` +
			`with an invented password, but answers: refused with [UNAVAILABLE] "internal error"`},
		{"a store that found the password right", "NO [AUTHORIZATIONFAILED] not you", `answers: refused with [AUTHORIZATIONFAILED] "not you"`},
		{"a store that knows no AUTHENTICATE", "BAD what", `answers: refused with "what"`},
		{"a store that goes away", "drop", "testing the store with an invented password: EOF"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			answer := func(user, password string) string {
				if password == "secret" {
					return granted // for the right password everything looks well
				}
				return test.answer
			}
			store := serve(t, onLoopback, func(f *fakeStore) { f.verify = answer })
			s, logs := begin(t, way(store.address))
			err := login(t, s, "alice")
			if err == nil || Denied(err) || !strings.Contains(err.Error(), test.why) {
				t.Errorf("alice's login ends with %v, want %q", err, test.why)
			}
			if problem := s.Problem(); problem == nil || !strings.Contains(problem.Error(), test.why) {
				t.Errorf("the problem is %v, want %q", problem, test.why)
			}
			if _, known := s.Capabilities(); !known {
				t.Error("the capabilities are not known")
			}
			eventually(t, "the store is asked again", func() bool { return store.count(theTest) > 3 })
			if store.count(alice) > 0 {
				t.Error("alice's password went to the store")
			}
			told := logs.FilterMessage("store cannot be used")
			if test.answer != "drop" && told.Len() != 1 { // an address of our own may stand in an error of the network
				t.Errorf("the log tells %d times: %v", told.Len(), told.All())
			}
			store.set(func(f *fakeStore) { f.verify = honest })
			eventually(t, "the store is back", func() bool { return s.Problem() == nil })
			mustLogin(t, s, "alice")
			eventually(t, "the log tells", func() bool { return logged(logs, "store is back") == 1 })
		})
	}
}

// A store may refuse a name that it does not know and let in with any password whom it knows.
func TestSelfTestWithRealUser(t *testing.T) {
	t.Parallel()
	store := serve(t, onLoopback, func(f *fakeStore) {
		f.verify = func(user, _ string) string {
			if user == "alice" || user == "bob" {
				return granted
			}
			return refused
		}
	})
	s, logs := begin(t, way(store.address))
	mustLogin(t, s, "alice")
	eventually(t, "the store is kept out", func() bool { return s.Problem() != nil })
	if err := s.Problem(); !strings.Contains(err.Error(), `let "alice" in`) {
		t.Errorf("the problem is %v", err)
	}
	for _, user := range []string{"alice", "bob"} {
		if err := login(t, s, user); err == nil || Denied(err) {
			t.Errorf("%s's login ends with %v", user, err)
		}
	}
	// To be refused with an unknown name is not enough to come back. Logins have the store asked.
	tests := store.count(theTest)
	eventually(t, "the store is asked again for alice", func() bool {
		if err := login(t, s, "bob"); err == nil {
			t.Fatal("bob is let in")
		}
		return store.count(aliceTest) > 3
	})
	if store.count(theTest) != tests || s.Problem() == nil || logged(logs, "store is back") > 0 {
		t.Errorf("the store is back: %q", store.logins())
	}
	store.set(func(f *fakeStore) { f.verify = honest })
	eventually(t, "the store is back", func() bool { return login(t, s, "alice") == nil })
	if s.Problem() != nil || logged(logs, "store is back") != 1 {
		t.Errorf("the problem is %v, and the log says %v", s.Problem(), logs.All())
	}
}

// If the store is not to be had for the test with a real user's name, the next login makes up for it.
func TestSelfTestWithRealUserLater(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	away := 2
	store := serve(t, onLoopback, func(f *fakeStore) {
		f.verify = func(user, password string) string {
			mu.Lock()
			defer mu.Unlock()
			if user == "alice" && password != "secret" && away > 0 {
				away--
				return "drop"
			}
			return honest(user, password)
		}
	})
	s, _ := begin(t, way(store.address))
	eventually(t, "alice's name is tested", func() bool {
		mustLogin(t, s, "alice")
		return store.count(aliceTest) == 3
	})
	tested := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.userTested
	}
	if !tested() || s.Problem() != nil {
		t.Errorf("tested: %v, problem: %v", tested(), s.Problem())
	}
}

// The test with a real user's name and an inspection do not run at the same time: the one that ends last would say whether the
// store is trusted.
func TestSelfTestOneAtATime(t *testing.T) {
	store := serve(t, onLoopback)
	s, _ := begin(t, way(store.address))
	mustLogin(t, s, "alice")
	eventually(t, "alice's name is tested", func() bool { return store.count(aliceTest) == 1 })
	s.gate <- struct{}{} // an inspection is under way
	s.mu.Lock()
	s.userTested = false
	s.mu.Unlock()
	const logins = 20 // long enough for a test that does not wait
	for range logins {
		mustLogin(t, s, "bob")
	}
	if got := store.count("bob invented"); got > 0 {
		t.Errorf("bob's name was tested %d times beside an inspection", got)
	}
	<-s.gate
	eventually(t, "bob's name is tested", func() bool { return store.count("bob invented") == 1 })
}

func TestAcceptsAnyPassword(t *testing.T) {
	store := serve(t, onLoopback, func(f *fakeStore) { f.verify = careless })
	access := way(store.address)
	access.AcceptsAnyPassword = true
	s, _ := begin(t, access)
	eventually(t, "the capabilities are known", func() bool { _, known := s.Capabilities(); return known })
	mustLogin(t, s, "alice")
	mustLogin(t, s, "mallory")
	if got, want := store.logins(), []string{alice, "mallory secret"}; !slices.Equal(got, want) {
		t.Errorf("the store heard %q, want %q", got, want)
	}
}

// A store that is away at the beginning is found when it comes; one that was trusted and goes is trusted when it is back.
func TestStoreDownAndUp(t *testing.T) {
	address := onSocket(t)
	s, logs := begin(t, way(address))
	if err := login(t, s, "alice"); err == nil || Denied(err) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("alice's login ends with %v", err)
	}
	if _, known := s.Capabilities(); known {
		t.Error("capabilities of a store that was never there")
	}
	store := serve(t, address)
	eventually(t, "the store is found", func() bool { _, known := s.Capabilities(); return known && s.Problem() == nil })
	mustLogin(t, s, "alice")
	if told := logged(logs, "store cannot be used"); told != 1 {
		t.Errorf("the log told of it %d times", told)
	}
	eventually(t, "alice's name is tested", func() bool { return store.count(aliceTest) == 1 })
	store.close()
	if err := login(t, s, "alice"); err == nil || Denied(err) {
		t.Errorf("alice's login at no store ends with %v", err)
	}
	if caps, known := s.Capabilities(); !known || !caps.Has("IMAP4REV1") {
		t.Error("what was learned is forgotten")
	}
	store.listen(t)
	mustLogin(t, s, "alice")
	if store.count(theTest) != 1 {
		t.Errorf("the store was tested again: %q", store.logins())
	}
}

// After a day the store is tested again, and kept out if it has changed its mind.
func TestSelfTestAgain(t *testing.T) {
	t.Parallel()
	store := serve(t, onLoopback)
	s, _ := begin(t, way(store.address))
	mustLogin(t, s, "alice")
	eventually(t, "alice's name is tested", func() bool { return store.count(aliceTest) == 1 })
	aDayLater := func() {
		s.mu.Lock()
		s.passed = time.Now().Add(-testEvery - time.Second)
		s.inspected = time.Time{}
		s.mu.Unlock()
	}
	if err := s.inspect(context.Background()); err != nil || store.count(theTest) != 1 {
		t.Errorf("tested before it was due: %v, %q", err, store.logins())
	}
	aDayLater()
	if err := s.inspect(context.Background()); err != nil || store.count(theTest) != 2 {
		t.Errorf("not tested when it was due: %v, %q", err, store.logins())
	}
	store.set(func(f *fakeStore) { f.verify = careless })
	aDayLater()
	if err := s.inspect(context.Background()); err == nil {
		t.Error("passed with any password")
	}
	if err := login(t, s, "alice"); err == nil {
		t.Error("alice is let in")
	}
}

// Of many logins at a store that is not known yet one asks, and the others wait.
func TestOneInspection(t *testing.T) {
	const many = 30
	release := make(chan struct{})
	store := serve(t, onLoopback, func(f *fakeStore) {
		f.verify = func(user, password string) string {
			if user == TestUser {
				<-release
			}
			return honest(user, password)
		}
	})
	s, _ := begin(t, way(store.address))
	eventually(t, "the test has begun", func() bool { return store.count(theTest) == 1 })
	var begun, done sync.WaitGroup
	begun.Add(many)
	for range many {
		done.Go(func() {
			begun.Done()
			if err := login(t, s, "alice"); err != nil {
				t.Errorf("alice's login ends with %v", err)
			}
		})
	}
	begun.Wait()
	if store.count(alice) > 0 {
		t.Error("alice came in before the test had passed")
	}
	close(release)
	done.Wait()
	if store.count(theTest) != 1 || store.count(alice) != many {
		t.Errorf("the store heard %d tests and %d logins", store.count(theTest), store.count(alice))
	}
	eventually(t, "alice's name is tested", func() bool { return store.count(aliceTest) > 0 })
	if n := store.count(aliceTest); n != 1 {
		t.Errorf("alice's name is tested %d times", n)
	}
}

// The time that a refusal takes is what unknown users must wait for, too. The goodbye is no part of it.
func TestRefusalTimeOfTest(t *testing.T) {
	t.Parallel()
	store := serve(t, onLoopback, func(f *fakeStore) { f.lingers = true })
	s, _ := begin(t, way(store.address))
	mustLogin(t, s, "alice")
	if took := s.RefusalTime(); took <= 0 || took >= leaveLimit {
		t.Errorf("a refusal takes %v", took)
	}
}
