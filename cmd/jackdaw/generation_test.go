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

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/internal/inherit"
	"jackdaw/proxy"
)

// ancestor is a generation in this process that answers with its name, and tells what its tests want it to.
type ancestor struct {
	*generations
	name         string
	says         chan *tidings // nil breaks off
	heard        chan tidings
	silent, gone chan int
}

func newAncestor(t *testing.T, name string, fails error) *ancestor {
	t.Helper()
	a := &ancestor{name: name, says: make(chan *tidings), heard: make(chan tidings, 10), silent: make(chan int, 10), gone: make(chan int, 10)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /name", answerOther(func(_ context.Context, one placement) (string, error) { return one.User + name, fails }))
	var err error
	a.generations, err = newGenerations(zap.NewNop(), mux, kin{
		tell:   a.tell,
		heard:  func(_ int, news tidings) { a.heard <- news },
		silent: func(pid int) { a.silent <- pid },
		gone:   func(pid int) { a.gone <- pid },
	})
	must(t, err)
	t.Cleanup(a.close)
	return a
}

func (a *ancestor) tell(ctx context.Context, say func(tidings) error) {
	for {
		select {
		case news := <-a.says:
			if news == nil || say(*news) != nil {
				return
			}
		case <-ctx.Done():
			_ = say(tidings{Flow: []byte("last")})
			return
		}
	}
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

// A process that opens to nobody, having no descriptors left, still has its sessions: only one that has ended is gone.
func TestAskInVain(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	door, err := inherit.NewDoor()
	must(t, err)
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for conn, err := door.Accept(); err == nil; conn, err = door.Accept() {
			conn.Close()
		}
	}()
	g := newGeneration(inherit.Process{PID: 7, Bell: door.Bell()})
	defer g.close()
	if err := g.ask(t.Context(), "GET /sessions", nil, nil); err == nil || errors.Is(err, errGone) || !strings.Contains(err.Error(), "process 7") {
		t.Errorf("the error is %v", err)
	}
	door.Close()
	<-closed
	if err := g.ask(t.Context(), "GET /sessions", nil, nil); !errors.Is(err, errGone) {
		t.Errorf("when it has ended, the error is %v", err)
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

// What an older generation tells is heard as it comes, the last word included; then it is gone.
func TestListen(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	newest, old := newAncestor(t, "newest", nil), newAncestor(t, "old", nil)
	newest.adopt([]inherit.Process{{PID: 7, Bell: old.bell(t)}})
	settled := make(chan struct{})
	go func() { newest.settle(t.Context()); close(settled) }()
	one, two := proxy.Holds{Users: map[string]int32{"anna": 1}}, proxy.Holds{Users: map[string]int32{"anna": 2}}
	old.says <- &tidings{Sessions: one, More: true}
	if diff := cmp.Diff(tidings{Sessions: one, More: true}, <-newest.heard); diff != "" {
		t.Error(diff)
	}
	select {
	case <-settled:
		t.Error("settled before all was told")
	case <-time.After(10 * time.Millisecond):
	}
	old.says <- &tidings{Sessions: two}
	if diff := cmp.Diff(tidings{Sessions: two}, <-newest.heard); diff != "" {
		t.Error(diff)
	}
	<-settled
	old.close()
	if news := <-newest.heard; string(news.Flow) != "last" {
		t.Errorf("the last word is %+v", news)
	}
	if silent, gone := <-newest.silent, <-newest.gone; silent != 7 || gone != 7 {
		t.Errorf("silent is %d, gone is %d", silent, gone)
	}
}

// A generation that lives, and whose word breaks off, is listened to anew; it is not taken for gone.
func TestListenAnew(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	newest, old := newAncestor(t, "newest", nil), newAncestor(t, "old", nil)
	newest.adopt([]inherit.Process{{PID: 7, Bell: old.bell(t)}})
	old.says <- &tidings{Presence: backends.Presence{"s1": nil}}
	<-newest.heard
	old.says <- nil
	if pid := <-newest.silent; pid != 7 {
		t.Errorf("silent is %d", pid)
	}
	old.says <- &tidings{Presence: backends.Presence{"s2": nil}}
	if _, ok := (<-newest.heard).Presence["s2"]; !ok || len(newest.all()) != 1 {
		t.Error("it is not heard, or taken for gone")
	}
}
