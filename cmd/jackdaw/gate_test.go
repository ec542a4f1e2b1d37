package main

import (
	"errors"
	"net/url"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/inherit"
	"jackdaw/proxy"
)

// What is to change while another process takes over is refused, and has changed nothing; when it did not come to that, it is done.
func TestGate(t *testing.T) {
	router, err := backends.PrepareRouter(&configs.Config{Backends: []configs.Backend{{Name: "s1"}}}, nil, zap.NewNop())
	must(t, err)
	o := &operator{log: zap.NewNop(), server: proxy.NewServer(zap.NewNop(), inherit.NewSockets()), level: newLogLevel(),
		router: func() *backends.Router { return router }}
	t.Cleanup(o.close)
	usual := o.level.Level()
	orders := func(want error) {
		t.Helper()
		_, drain := o.drain(t.Context(), url.Values{"backend": {"s1"}, "over": {"1h"}})
		_, block := o.block(t.Context(), url.Values{"network": {"192.0.2.0/24"}})
		_, log := o.setLevel(t.Context(), url.Values{"level": {"error"}})
		for what, err := range map[string]error{"drain": drain, "block": block, "log": log} {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
	}
	o.changes.shut()
	orders(errNotServing)
	if len(router.Drained()) > 0 || len(o.server.Blocked()) > 0 || o.level.Level() != usual || len(o.emptying.list()) > 0 {
		t.Error("something has changed")
	}
	o.changes.open()
	orders(nil)
	if !slices.Equal(router.Drained(), []string{"s1"}) || len(o.server.Blocked()) != 1 || o.level.Level() != zap.ErrorLevel {
		t.Error("something has not changed")
	}
	o.changes.shut()
	_, undrain := o.undrain(t.Context(), url.Values{"backend": {"s1"}})
	_, unblock := o.unblock(t.Context(), url.Values{"network": {"192.0.2.0/24"}})
	if !errors.Is(undrain, errNotServing) || !errors.Is(unblock, errNotServing) || len(router.Drained()) != 1 || len(o.server.Blocked()) != 1 {
		t.Errorf("undrain: %v, unblock: %v", undrain, unblock)
	}
}

// Whoever shuts a gate waits for what is passing.
func TestGateWaits(t *testing.T) {
	var g gate
	inside, done, shut := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() { _ = g.pass(func() error { close(inside); <-done; return nil }) }()
	<-inside
	go func() { g.shut(); close(shut) }()
	select {
	case <-shut:
		t.Error("it is shut, and something passes")
	case <-time.After(10 * time.Millisecond):
	}
	close(done)
	<-shut
}
