package main

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/inherit"
	"jackdaw/proxy"
)

// older is a process that has handed over, as those after it know it; handler answers for it.
func older(t *testing.T, handler http.Handler) *generations {
	t.Helper()
	door, err := inherit.NewDoor()
	must(t, err)
	server := &http.Server{Handler: handler}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(door) })
	one := newGeneration(inherit.Process{PID: 7, Bell: door.Bell()})
	t.Cleanup(func() {
		one.close()
		server.Close()
		serving.Wait()
	})
	return &generations{log: zap.NewNop(), older: []*generation{one}}
}

// newOperator is that of a process that knows a backend s1, and has an older process before it.
func newOperator(t *testing.T, before *generations) *operator {
	t.Helper()
	router, err := backends.PrepareRouter(&configs.Config{Backends: []configs.Backend{{Name: "s1"}}}, nil, zap.NewNop())
	must(t, err)
	o := &operator{log: zap.NewNop(), server: proxy.NewServer(zap.NewNop(), inherit.NewSockets()), level: newLogLevel(),
		router: func() *backends.Router { return router }, generations: before}
	t.Cleanup(o.close)
	return o
}

// Who lets users in again while somebody else empties the backend is not overtaken: its users would be sent away as often as they come.
func TestUndrainedMeanwhile(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	asked, goOn := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(asked); <-goOn })
	o := newOperator(t, older(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		first()
		_, _ = w.Write([]byte(`{"sessions":[]}`))
	})))
	drained := make(chan error)
	go func() {
		_, err := o.drain(t.Context(), url.Values{"backend": {"s1"}, "over": {"1h"}})
		drained <- err
	}()
	<-asked
	undrained := make(chan error)
	go func() {
		_, err := o.undrain(t.Context(), url.Values{"backend": {"s1"}})
		undrained <- err
	}()
	for len(o.router().Drained()) > 0 {
		time.Sleep(time.Millisecond)
	}
	close(goOn)
	must(t, <-undrained)
	if err := <-drained; err == nil || err.Error() != "s1 was undrained in the meantime: no sessions are ended" {
		t.Errorf("the error is %v", err)
	}
	if all := o.emptying.list(); len(all) > 0 {
		t.Errorf("there is still emptied %v", all)
	}
}

// A backend is not empty as long as a process has not said that it has nobody there.
func TestEmptyAsFarAsKnown(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	var answered sync.WaitGroup
	answered.Add(2) // for the report, and for those who are to go
	o := newOperator(t, older(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not now", http.StatusInternalServerError)
		answered.Done()
	})))
	report, err := o.drain(t.Context(), url.Values{"backend": {"s1"}, "over": {"0s"}})
	must(t, err)
	if missing := report.(drainReport).Missing; len(missing) != 1 || !strings.Contains(missing[0], "not now") {
		t.Errorf("missing is %q", missing)
	}
	answered.Wait()
	ended := make(chan struct{})
	go func() { o.emptying.tasks.Wait(); close(ended) }()
	select {
	case <-ended:
		t.Error("it is taken for empty")
	case <-time.After(100 * time.Millisecond):
	}
	o.emptying.close()
	<-ended
}
