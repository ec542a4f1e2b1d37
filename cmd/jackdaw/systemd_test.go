package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
)

// The watchdog hears of us as long as we are alive, and not while anything hangs that sessions need.
func TestBeat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	hears := func(limit time.Duration) bool {
		t.Helper()
		must(t, conn.SetReadDeadline(time.Now().Add(limit)))
		text := make([]byte, 100)
		n, err := conn.Read(text)
		if err == nil && string(text[:n]) != "WATCHDOG=1" || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("heard %q, %v", text[:n], err)
		}
		return err == nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	alive, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		manager{zap.NewNop()}.beat(ctx, func() { <-alive })
	}()
	if hears(100 * time.Millisecond) {
		t.Error("what hangs is said to be alive")
	}
	close(alive)
	for range 3 {
		if !hears(10 * time.Second) {
			t.Error("nothing is said")
		}
	}
	cancel()
	<-done
}

// Without a service manager nothing is said to anybody, and without a watchdog there is no beat.
func TestNoManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	m := manager{zap.NewNop()}
	m.serving("Serving")
	m.beat(t.Context(), func() { t.Error("somebody wants to know") })
}
