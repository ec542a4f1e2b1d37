package directories

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
)

// source is a directory that says what a test wants, and counts how often it is asked.
type source struct {
	mu     sync.Mutex
	asked  int
	answer Answer
	err    error
	wait   chan struct{} // nil, or what an answer waits for
}

func (s *source) Lookup(ctx context.Context, _ Query) (Answer, error) {
	s.mu.Lock()
	s.asked++
	answer, err, wait := s.answer, s.err, s.wait
	s.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		}
	}
	return answer, err
}

func (s *source) Close() {}

func (s *source) says(answer Answer, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer, s.err = answer, err
}

// clock is a cache before a source, at a time that a test sets.
type clock struct {
	*testing.T
	*source
	cache *cached
	at    time.Time
}

func newClock(t *testing.T, c configs.Directory, log *zap.Logger) *clock {
	k := &clock{T: t, source: &source{}, at: time.Unix(1e9, 0)}
	c.Cache, c.CacheMissing, c.Stale, c.Timeout = 30*time.Second, 5*time.Second, time.Hour, time.Minute
	k.cache = newCached(k.source, c, log)
	k.cache.now = func() time.Time { return k.at }
	return k
}

// asks wants an answer, after how many questions to the source since the last time.
func (k *clock) asks(q Query, backend string, err error, questions int) {
	k.Helper()
	before := k.asked
	answer, got := k.cache.Lookup(k.Context(), q)
	if answer.Backend != backend || !errors.Is(got, err) || (err == nil) != (got == nil) {
		k.Errorf("%+v: %+v, %v; want %q, %v", q, answer, got, backend, err)
	}
	if k.asked-before != questions {
		k.Errorf("%+v: asked %d times, want %d", q, k.asked-before, questions)
	}
}

var anna = Query{User: "anna@a.example", Local: "anna", Domain: "a.example", Service: configs.IMAP}

func TestAnswersAreKept(t *testing.T) {
	k := newClock(t, configs.Directory{Kind: configs.DirectorySQL}, zap.NewNop())
	k.says(Answer{Backend: "store1"}, nil)
	k.asks(anna, "store1", nil, 1)
	k.says(Answer{Backend: "store2"}, nil)
	k.at = k.at.Add(29 * time.Second)
	k.asks(anna, "store1", nil, 0)
	k.at = k.at.Add(time.Second)
	k.asks(anna, "store2", nil, 1)
	k.says(Answer{}, ErrNotFound)
	k.at = k.at.Add(30 * time.Second)
	k.asks(anna, "", ErrNotFound, 1)
	k.says(Answer{Backend: "store3"}, nil)
	k.at = k.at.Add(4 * time.Second)
	k.asks(anna, "", ErrNotFound, 0)
	k.at = k.at.Add(time.Second)
	k.asks(anna, "store3", nil, 1)
}

// Who asks hears how old an answer is, and since when nobody else has one.
func TestAnswersHaveAnAge(t *testing.T) {
	k := newClock(t, configs.Directory{Kind: configs.DirectorySQL}, zap.NewNop())
	bob := Query{User: "bob", Local: "bob", Service: configs.IMAP}
	begin := k.at
	ask := func(q Query, kept, down time.Time) {
		t.Helper()
		if answer, err := k.cache.Lookup(t.Context(), q); !answer.Kept.Equal(kept) || !answer.Down.Equal(down) {
			t.Errorf("%+v, %v; want kept %v, down %v", answer, err, kept, down)
		}
	}
	k.says(Answer{Backend: "store1"}, nil)
	ask(anna, time.Time{}, time.Time{})
	k.at = begin.Add(10 * time.Second)
	ask(anna, begin, time.Time{})
	k.says(Answer{}, ErrNotFound)
	ask(bob, time.Time{}, time.Time{})
	ask(bob, k.at, time.Time{})
	k.says(Answer{}, errDown)
	k.at = begin.Add(time.Minute)
	ask(anna, begin, k.at)
	k.at = begin.Add(time.Hour - time.Second)
	ask(anna, begin, begin.Add(time.Minute))
	k.says(Answer{Backend: "store1"}, nil)
	ask(anna, time.Time{}, time.Time{})
}

var errDown = errors.New("connection refused")

// While the source is down, what it said last is good for a while: but not that somebody is unknown, and no password.
func TestSourceIsDown(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	k := newClock(t, configs.Directory{Kind: configs.DirectorySQL}, zap.New(core))
	verifying := anna
	verifying.Verify, verifying.Secret = true, "secret"
	bob := Query{User: "bob", Local: "bob", Service: configs.IMAP}
	k.says(Answer{Backend: "store1"}, nil)
	k.asks(anna, "store1", nil, 1)
	k.asks(verifying, "store1", nil, 1)
	k.says(Answer{}, ErrNotFound)
	k.asks(bob, "", ErrNotFound, 1)

	k.says(Answer{}, errDown)
	k.at = k.at.Add(59 * time.Minute)
	k.asks(anna, "store1", nil, 1)
	k.asks(anna, "store1", nil, 1)
	k.asks(verifying, "", errDown, 1)
	k.asks(bob, "", errDown, 1)
	k.at = k.at.Add(time.Minute)
	k.asks(anna, "", errDown, 1)
	k.says(Answer{Backend: "store2"}, nil)
	k.asks(anna, "store2", nil, 1)
	for _, message := range []string{"directory cannot be asked", "directory answers again"} {
		if n := logs.FilterMessageSnippet(message).Len(); n != 1 {
			t.Errorf("%q was logged %d times", message, n)
		}
	}
}

// Another password is another question, and a wrong one is not remembered.
func TestPasswordsAreNotMixedUp(t *testing.T) {
	k := newClock(t, configs.Directory{Kind: configs.DirectorySQL}, zap.NewNop())
	right, wrong := anna, anna
	right.Verify, right.Secret = true, "right"
	wrong.Verify, wrong.Secret = true, "wrong"
	k.says(Answer{Backend: "store1", Verified: true}, nil)
	k.asks(right, "store1", nil, 1)
	k.asks(right, "store1", nil, 0)
	k.says(Answer{}, ErrDenied)
	k.asks(wrong, "", ErrDenied, 1)
	k.asks(wrong, "", ErrDenied, 1)
	k.asks(right, "store1", nil, 0)
	k.says(Answer{Backend: "store1"}, nil)
	k.asks(anna, "store1", nil, 1) // who only asks for the place has no part in it
}

// What a query says decides what an answer depends on.
func TestKeys(t *testing.T) {
	elsewhere, inside := anna, anna
	elsewhere.SNI = "mail.b.example"
	inside.Address = netip.MustParseAddrPort("127.0.0.1:10143")
	for _, tt := range []struct {
		config configs.Directory
		again  int
	}{
		{configs.Directory{Kind: configs.DirectorySQL, Query: "SELECT :user"}, 0},
		{configs.Directory{Kind: configs.DirectorySQL, Query: "SELECT :user, :sni"}, 1},
		{configs.Directory{Kind: configs.DirectoryLDAP, Filter: "(&(mail=:user)(host=:sni))"}, 1},
		{configs.Directory{Kind: configs.DirectoryHTTP}, 1},
	} {
		k := newClock(t, tt.config, zap.NewNop())
		k.says(Answer{Backend: "store1"}, nil)
		k.asks(anna, "store1", nil, 1)
		k.asks(elsewhere, "store1", nil, tt.again)
		if tt.config.Kind == configs.DirectoryHTTP { // which may believe a webmail on its own port alone
			k.asks(inside, "store1", nil, 1)
		}
	}
}

// A question about a domain alone is about that domain.
func TestDomainsAreNotMixedUp(t *testing.T) {
	k := newClock(t, configs.Directory{Kind: configs.DirectorySQL}, zap.NewNop())
	k.says(Answer{Backend: "store1"}, nil)
	k.asks(Query{Domain: "a.example"}, "store1", nil, 1)
	k.says(Answer{}, ErrNotFound)
	k.asks(Query{Domain: "b.example"}, "", ErrNotFound, 1)
}

// Many who want to know the same ask once, and go on when the first of them leaves.
func TestOneQuestionAtATime(t *testing.T) {
	k := newClock(t, configs.Directory{Kind: configs.DirectorySQL}, zap.NewNop())
	k.wait = make(chan struct{})
	k.says(Answer{Backend: "store1"}, nil)
	impatient, leave := context.WithCancel(t.Context())
	var first, others sync.WaitGroup
	first.Go(func() {
		if _, err := k.cache.Lookup(impatient, anna); !errors.Is(err, context.Canceled) {
			t.Errorf("who has left was told %v", err)
		}
	})
	for k.count() == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 10 {
		others.Go(func() {
			if answer, err := k.cache.Lookup(t.Context(), anna); err != nil || answer.Backend != "store1" {
				t.Errorf("%+v, %v", answer, err)
			}
		})
	}
	leave()
	first.Wait()
	close(k.wait)
	others.Wait()
	if n := k.count(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// A password that a source hands out to log in with is asked for each time.
func TestPasswordsAreNotKept(t *testing.T) {
	k := newClock(t, configs.Directory{Kind: configs.DirectoryHTTP}, zap.NewNop())
	k.says(Answer{Backend: "store1", Password: "secret", Verified: true}, nil)
	k.asks(anna, "store1", nil, 1)
	k.asks(anna, "store1", nil, 1)
	if n := len(k.cache.kept); n != 0 {
		t.Errorf("%d answers are kept", n)
	}
}

func TestCacheIsBounded(t *testing.T) {
	k := newClock(t, configs.Directory{Kind: configs.DirectorySQL}, zap.NewNop())
	for i := range maxKept + 100 {
		k.cache.note(fmt.Sprint(i), kept{known: true, at: k.at})
	}
	if n := len(k.cache.kept); n != maxKept {
		t.Errorf("%d answers are kept", n)
	}
}

// BenchmarkCachedLookup is what an answer from memory costs, beside some 200 µs for a handshake.
func BenchmarkCachedLookup(b *testing.B) {
	c := newCached(&source{answer: Answer{Backend: "store1"}}, configs.Directory{Kind: configs.DirectorySQL, Cache: time.Hour, Timeout: time.Minute}, zap.NewNop())
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if answer, err := c.Lookup(b.Context(), anna); err != nil || answer.Backend != "store1" {
				b.Fatal(answer, err)
			}
		}
	})
}
