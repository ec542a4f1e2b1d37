package backends

import (
	"errors"
	"maps"
	"testing"

	"jackdaw/configs"
)

// storeRouter has a backend for a pool of its own, and for whoever is led there.
func storeRouter() *Router {
	return &Router{config: &configs.Config{}, doors: &doors{all: make(map[string]*door)}}
}

// tells passes on what is new at one process to the next.
func (w *PresenceWatch) tells(process int, next *Router) {
	for news, some := w.Take(2); some; news, some = w.Take(2) {
		next.LearnPresence(process, news)
	}
}

// The sessions of a former process count, as they come and go, until it is gone; a drained backend knows its users by them.
func TestPresence(t *testing.T) {
	anna, bert, carl := User{"anna", "a.example"}, User{"bert", "a.example"}, User{"carl", "a.example"}
	old, next := storeRouter(), storeRouter()
	arrives := func(r *Router, backend string, user User, pooled bool) func() {
		t.Helper()
		depart, err := r.doors.of(backend).arrive(user, pooled, 4)
		if err != nil {
			t.Fatal(err)
		}
		return depart
	}
	refused := func(user User, want error) {
		t.Helper()
		if _, err := next.doors.of("s1").arrive(user, false, 4); !errors.Is(err, want) {
			t.Errorf("%s is told %v, want %v", user, err, want)
		}
	}
	leave := arrives(old, "s1", anna, false)
	arrives(old, "s1", bert, true)
	woken := 0
	w := old.WatchPresence(func() { woken++ })
	w.tells(7, next)
	arrives(old, "s1", bert, true)
	arrives(old, "s2", carl, false) // a store that nobody has known before
	if woken != 2 {
		t.Errorf("woken %d times", woken)
	}
	w.tells(7, next)
	d := next.doors.of("s1")
	if d.sessions.All() != 3 || d.sessions.Own() != 0 || next.doors.of("s2").sessions.All() != 1 || d.standing(3) != closed || d.standing(4) != fit {
		t.Errorf("there are %d and %d", d.sessions.All(), next.doors.of("s2").sessions.All())
	}
	d.drain(true)
	refused(carl, errDrained)
	refused(bert, errDrained)          // of whom a pool knows
	arrives(next, "s1", anna, false)() // who is there
	d.drain(false)
	arrives(next, "s1", carl, false)
	refused(carl, errFull)
	leave()
	w.tells(7, next)
	arrives(next, "s1", carl, false)
	refused(carl, errFull)
	next.ForgetPresence(7)
	if d.sessions.All() != 2 || d.sessions.Own() != 2 {
		t.Errorf("of %d there are left %d", d.sessions.All(), d.sessions.Own())
	}
	w.Stop()
	arrives(old, "s1", anna, false)
	if news, some := w.Take(2); some || woken != 3 {
		t.Errorf("told %v, woken %d times", maps.Collect(maps.All(news)), woken)
	}
}
