package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// The watch is a client of its own, since the one that makes a storm has no time to look at the clock. It asks with some
// sessions, each of them at fixed times: who has to wait for an answer asks the next question late, and it counts from the
// time at which that was due.
const (
	watchSessions = 16
	watchEvery    = 20 * time.Millisecond
)

// waits is how long answers took, in ms.
type waits struct {
	Median float64 `json:"p50"`
	Most   float64 `json:"p99"`
}

// watcher is a watch that runs.
type watcher struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// startWatch starts a watch of the contender, ahead of others in the queue for processors where that is allowed.
func (t *trial) startWatch() (*watcher, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &watcher{cmd: exec.CommandContext(t.ctx, "nice", "-n", "-20", self, "watch", t.addresses[t.service])}
	w.cmd.Stderr = os.Stderr
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err == nil {
		err = w.cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("starting the watch: %w", err)
	}
	w.out = json.NewDecoder(out)
	return w, nil
}

// stop ends the watch.
func (w *watcher) stop() {
	w.in.Close()
	_ = w.cmd.Wait()
}

// lap returns the waits since the last lap.
func (w *watcher) lap() (found waits, err error) {
	if _, err = io.WriteString(w.in, "\n"); err == nil {
		err = w.out.Decode(&found)
	}
	if err != nil {
		err = fmt.Errorf("asking the watch: %w", err)
	}
	return found, err
}

// asked is what the watch has found since the last lap.
type asked struct {
	mu     sync.Mutex
	took   []time.Duration
	failed error
}

// watch is the watch itself: for each line that it reads it writes one, until there are no more.
func watch(address string) error {
	c := &client{script: scriptFor("imaps"), address: address, tls: secure(tls.VersionTLS13, tls.X25519)}
	found := new(asked)
	for i := range watchSessions {
		s, err := c.login(i)
		if err != nil {
			return err
		}
		go found.keepAsking(s)
	}
	out := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		w, err := found.lap()
		if err == nil {
			err = out.Encode(w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *asked) keepAsking(s *session) {
	for due := time.Now(); ; due = due.Add(watchEvery) {
		time.Sleep(time.Until(due))
		err := s.ask("a NOOP", "a OK")
		a.mu.Lock()
		a.took = append(a.took, time.Since(due))
		if err != nil {
			a.failed = err
		}
		a.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (a *asked) lap() (waits, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil || len(a.took) == 0 {
		return waits{}, a.failed
	}
	w := waits{percentile(a.took, 0.50), percentile(a.took, 0.99)}
	a.took = nil
	return w, nil
}
