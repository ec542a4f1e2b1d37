package directories

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"jackdaw/configs"
)

// keeper is a cache before a verifier, at a time that a test sets.
type keeper struct {
	*testing.T
	*source
	cache *verifyCache
	at    time.Time
}

func newKeeper(t *testing.T) *keeper {
	k := &keeper{T: t, source: &source{}, at: time.Unix(1e9, 0)}
	k.cache = newVerifyCache(k.source, 30*time.Second)
	k.cache.now = func() time.Time { return k.at }
	return k
}

// asks wants an answer, after how many questions to the verifier.
func (k *keeper) asks(q Query, want Answer, err error, questions int) {
	k.Helper()
	before := k.asked
	answer, got := k.cache.Lookup(k.Context(), q)
	if answer != want || !errors.Is(got, err) || (err == nil) != (got == nil) {
		k.Errorf("%+v, %v; want %+v, %v", answer, got, want, err)
	}
	if k.asked-before != questions {
		k.Errorf("asked %d times, want %d", k.asked-before, questions)
	}
}

func TestRightPasswordsAreKept(t *testing.T) {
	k := newKeeper(t)
	yes := Answer{Verified: true, User: "robert", Backend: "store1"}
	k.says(yes, nil)
	k.asks(login("right"), yes, nil, 1)
	k.says(Answer{}, ErrDenied)
	k.at = k.at.Add(30*time.Second - 1)
	k.asks(login("right"), yes, nil, 0)
	k.asks(login("wrong"), Answer{}, ErrDenied, 1)
	k.at = k.at.Add(1)
	k.asks(login("right"), Answer{}, ErrDenied, 1)
	k.says(yes, nil)
	k.asks(login("right"), yes, nil, 1) // a no is not kept
}

// A verifier that is down is asked each time, and no old answer stands in for it.
func TestFailuresAreNotKept(t *testing.T) {
	k := newKeeper(t)
	yes := Answer{Verified: true}
	k.says(yes, nil)
	k.asks(login("right"), yes, nil, 1)
	k.says(Answer{}, errDown)
	k.asks(login("right"), yes, nil, 0)
	k.at = k.at.Add(30 * time.Second)
	k.asks(login("right"), Answer{}, errDown, 1)
	k.asks(login("right"), Answer{}, errDown, 1)
}

// slow is a verifier that takes its time.
type slow struct{ k *keeper }

func (s slow) Lookup(ctx context.Context, q Query) (Answer, error) {
	s.k.at = s.k.at.Add(29 * time.Second)
	return s.k.source.Lookup(ctx, q)
}

func (slow) Close() {}

// The time counts from the question, not from the answer.
func TestSlowAnswersAreOld(t *testing.T) {
	k := newKeeper(t)
	k.cache.Directory = slow{k}
	k.says(Answer{Verified: true}, nil)
	k.asks(login("right"), Answer{Verified: true}, nil, 1)
	k.asks(login("right"), Answer{Verified: true}, nil, 0)
	k.at = k.at.Add(time.Second)
	k.asks(login("right"), Answer{Verified: true}, nil, 1)
}

// Whatever the verifier is told makes another question.
func TestEverythingCounts(t *testing.T) {
	k := newKeeper(t)
	yes := Answer{Verified: true}
	k.says(yes, nil)
	k.asks(login("right"), yes, nil, 1)
	for what, change := range map[string]func(*Query){
		"user":        func(q *Query) { q.User = "bob@a.example" },
		"secret":      func(q *Query) { q.Secret = "righ" },
		"both":        func(q *Query) { q.User, q.Secret = "anna@a.exampler", "ight" },
		"mechanism":   func(q *Query) { q.Mechanism = "OAUTHBEARER" },
		"service":     func(q *Query) { q.Service = configs.POP3 },
		"client":      func(q *Query) { q.Client = netip.MustParseAddr("203.0.113.5") },
		"own address": func(q *Query) { q.Address = netip.MustParseAddrPort("192.0.2.1:143") },
		"SNI":         func(q *Query) { q.SNI = "mail.b.example" },
		"TLS":         func(q *Query) { q.TLS = 0x304 },
	} {
		q := login("right")
		change(&q)
		before := k.asked
		if _, err := k.cache.Lookup(t.Context(), q); err != nil || k.asked != before+1 {
			t.Errorf("another %s is no other question", what)
		}
	}
	same := login("right")
	same.Service, same.Port, same.Session, same.Attempt = configs.IMAP, 4321, "other", 2
	k.asks(same, yes, nil, 0)
}

// Neither the password nor anything that it could be guessed by without the key is in memory, and no one else's password is.
func TestNoPasswordIsKept(t *testing.T) {
	k := newKeeper(t)
	k.says(Answer{Verified: true}, nil)
	k.asks(login("right"), Answer{Verified: true}, nil, 1)
	if kept := fmt.Sprintf("%q", fmt.Sprint(k.cache.kept)); strings.Contains(kept, "right") || len(k.cache.kept) != 1 {
		t.Error(kept)
	}
	if k.cache.hash(login("right")) == newKeeper(t).cache.hash(login("right")) {
		t.Error("another process has the same hash")
	}
	k = newKeeper(t)
	for _, answer := range []Answer{{Verified: true, Password: "other"}, {Verified: true, Refuse: "no IMAP"}, {}} {
		k.says(answer, nil)
		k.asks(login("right"), answer, nil, 1)
	}
}

func TestVerifyCacheIsBounded(t *testing.T) {
	k := newKeeper(t)
	for i := range maxKept + 100 {
		k.cache.keep(k.cache.hash(login(fmt.Sprint(i))), verified{Answer{Verified: true}, k.at.Add(time.Second)})
	}
	if n := len(k.cache.kept); n != maxKept {
		t.Errorf("%d answers are kept", n)
	}
	k.cache.Close()
	if n := len(k.cache.kept); n != 0 {
		t.Errorf("%d answers are kept by what is closed", n)
	}
}
