package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"jackdaw/internal/inherit"
)

// ancestor is a generation in this process that answers with its name.
type ancestor struct {
	*generations
	name string
	gone chan int
}

func newAncestor(t *testing.T, name string, fails error) *ancestor {
	t.Helper()
	a := &ancestor{name: name, gone: make(chan int, 10)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /name", answerOther(func(_ context.Context, one placement) (string, error) { return one.User + name, fails }))
	var err error
	a.generations, err = newGenerations(zap.NewNop(), mux, func(pid int) { a.gone <- pid })
	must(t, err)
	t.Cleanup(a.close)
	return a
}

// bell is one of its own, as another process would have it.
func (a *ancestor) bell(t *testing.T) (bell *inherit.Bell) {
	t.Helper()
	there, err := inherit.NewDoor()
	must(t, err)
	there.Forwarded = func(b *inherit.Bell) {
		bell = b
		there.Close()
	}
	must(t, there.Bell().Forward(a.door.Bell()))
	if _, err := there.Accept(); bell == nil {
		t.Fatal(err)
	}
	return bell
}

// All older generations are asked; those that end are forgotten, and asked no more.
func TestEach(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	newest, first, second := newAncestor(t, "newest", nil), newAncestor(t, "first", nil), newAncestor(t, "second", nil)
	newest.adopt([]inherit.Process{{PID: 1, Bell: first.bell(t)}, {PID: 2, Bell: second.bell(t)}})
	names := func() []string {
		t.Helper()
		var mu sync.Mutex
		var all []string
		err := newest.Each(func(g *generation) error {
			var name string
			err := g.ask(t.Context(), "POST /name", placement{User: "the "}, &name)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, name)
			return err
		})
		must(t, err)
		slices.Sort(all)
		return all
	}
	if got := names(); !slices.Equal(got, []string{"the first", "the second"}) {
		t.Errorf("there answer %q", got)
	}
	first.close()
	if got := names(); !slices.Contains(got, "the second") { // whether or not it was noticed already
		t.Errorf("there answer %q", got)
	}
	if pid := <-newest.gone; pid != 1 {
		t.Errorf("process %d is gone, want 1", pid)
	}
	if got := names(); !slices.Equal(got, []string{"the second"}) {
		t.Errorf("there answer %q", got)
	}
}

// What a generation has against a question is said; a question that is not known is an error.
func TestAskRefused(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	a := newAncestor(t, "", errors.New("not today"))
	g := newGeneration(inherit.Process{PID: 7, Bell: a.bell(t)})
	defer g.close()
	if refused, ok := errors.AsType[*refusal](g.ask(t.Context(), "POST /name", placement{}, nil)); !ok || refused.reason != "not today" {
		t.Errorf("the error is %v", refused)
	}
	if err := g.ask(t.Context(), "POST /nonsense", nil, nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("the error is %v", err)
	}
}

// A question for the newest waits until there is one that answers: who has been replaced, or is gone, does not.
func TestAskNewest(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	old := newAncestor(t, "old", nil)
	replaced, gone, newest := newAncestor(t, "replaced", errNotServing), newAncestor(t, "gone", nil), newAncestor(t, "newest", nil)
	bell := gone.bell(t)
	gone.close()
	answer := make(chan string)
	go func() {
		var name string
		if err := old.askNewest(t.Context(), "POST /name", placement{}, &name); err != nil {
			t.Error(err)
		}
		answer <- name
	}()
	for _, b := range []*inherit.Bell{replaced.bell(t), bell, newest.bell(t)} {
		select {
		case name := <-answer:
			t.Fatalf("%s answers", name)
		case <-time.After(10 * time.Millisecond):
		}
		must(t, old.door.Bell().Forward(b))
		b.Close()
	}
	if name := <-answer; name != "newest" {
		t.Errorf("%s answers, want the newest", name)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	old.succeed(nil)
	if err := old.askNewest(ctx, "POST /name", placement{}, nil); !errors.Is(err, errNotServing) {
		t.Errorf("without a newest the error is %v", err)
	}
}
