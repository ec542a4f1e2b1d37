package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"jackdaw/integration/measure"
	"jackdaw/internal/devca"
)

// How long to wait before the same question is asked again.
const often = 20 * time.Millisecond

// trial is a contender's part of one round: a fresh process of it, a fresh store behind it, and what was measured.
type trial struct {
	*bench
	*mode
	contender *contender
	leaf      devca.Leaf
	dir       string            // of its files
	stores    map[string]string // addresses by protocols
	addresses map[string]string // of the contender, by services
	server    *measure.Server
	figures   map[string]float64 // by rows
	busy      float64            // the share of its processor that the contender took under steady load
}

// try has a contender run once.
func (b *bench) try(c *contender, m *mode) (*trial, error) {
	t := &trial{bench: b, mode: m, contender: c, leaf: b.leaves[m.rsa], figures: make(map[string]float64)}
	var err error
	if t.dir, err = os.MkdirTemp(b.temp, ""); err != nil {
		return nil, err
	}
	defer os.RemoveAll(t.dir)
	store, err := t.startStore()
	if err != nil {
		return nil, err
	}
	defer store.Stop()
	defer func() {
		if t.server != nil {
			t.server.Stop()
		}
	}()
	if err := t.start(); err != nil {
		return nil, err
	}
	return t, m.run(t)
}

func (t *trial) startStore() (*measure.Server, error) {
	var err error
	if t.stores, err = measure.FreeAddresses(protocols...); err != nil {
		return nil, err
	}
	var args []string
	for protocol, address := range t.stores {
		args = append(args, protocol+"="+address)
	}
	store, err := t.own(t.dir, "store", args...)
	if err != nil {
		return nil, err
	}
	err = store.Until(t.ctx, often, func() error {
		for _, address := range t.stores {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return err
			}
			conn.Close()
		}
		return nil
	})
	if err != nil {
		store.Stop()
		return nil, err
	}
	return store, nil
}

// client is one for the mode's service.
func (t *trial) client() *client {
	version, groups := t.version, t.groups
	if version == 0 {
		version = tls.VersionTLS13
	}
	if groups == nil {
		groups = []tls.CurveID{tls.X25519}
	}
	return &client{script: scriptFor(t.service), address: t.addresses[t.service], tls: secure(version, groups...)}
}

// visit logs in and out.
func (t *trial) visit(user int) error {
	s, err := t.client().login(user)
	if err != nil {
		return err
	}
	return s.leave()
}

// steady has workers work all the time, and returns the seconds of processor time that the contender spends on each unit of
// their work, which they count.
func (t *trial) steady(workers int, work func(worker int, count *atomic.Int64) error) (float64, error) {
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	var done atomic.Int64
	for worker := range workers {
		group.Go(func() error {
			for ctx.Err() == nil {
				if err := work(worker, &done); err != nil {
					return err
				}
			}
			return nil
		})
	}
	cost, err := t.window(ctx, &done)
	cancel()
	if failed := group.Wait(); failed != nil {
		return 0, failed
	}
	return cost, err
}

// window is the time that is measured, after a quarter as much for getting warm. It lasts until something was done.
func (t *trial) window(ctx context.Context, done *atomic.Int64) (float64, error) {
	length := time.Duration(t.seconds * float64(time.Second))
	if err := measure.Sleep(ctx, length/4); err != nil {
		return 0, err
	}
	profiled := t.profile(ctx, length)
	began, first := time.Now(), done.Load()
	before, err := measure.CPU(t.server.PID())
	if err != nil {
		return 0, err
	}
	var units int64
	for units == 0 {
		if err = measure.Sleep(ctx, length); err != nil {
			return 0, err
		}
		units = done.Load() - first
	}
	after, err := measure.CPU(t.server.PID())
	if err != nil {
		return 0, err
	}
	t.busy = (after - before).Seconds() / time.Since(began).Seconds()
	return (after - before).Seconds() / float64(units), profiled()
}

// parallel does something a number of times, a few at once, up to the first error.
func parallel(n, atOnce int, do func(i int) error) error {
	group := new(errgroup.Group)
	group.SetLimit(atOnce)
	for i := range n {
		group.Go(func() error { return do(i) })
	}
	return group.Wait()
}

// summary is what was found, in a line.
func (t *trial) summary() string {
	var parts []string
	for _, r := range t.rows {
		if v, ok := t.figures[r.key]; ok {
			parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %s", measure.Number(v), r.unit)))
		}
	}
	if t.busy > 0 {
		parts = append(parts, fmt.Sprintf("core %.0f %% busy", 100*t.busy))
	}
	return strings.Join(parts, ", ")
}

// sessions logs in that many users. close must be called, also after an error.
func (t *trial) sessions(c *client, first, n int) (sessions []*session, close func(), err error) {
	sessions = make([]*session, n)
	return sessions, func() { closeAll(sessions) }, parallel(n, 16, func(i int) (err error) {
		sessions[i], err = c.login(first + i)
		return err
	})
}

// closeAll hangs up, wherever there is a session.
func closeAll(sessions []*session) {
	for _, s := range sessions {
		if s != nil {
			s.Close()
		}
	}
}

// fetch reads a message of that size.
func (s *session) fetch(size int, count *atomic.Int64) error {
	if err := s.ask(fmt.Sprintf("a FETCH %d", size), "* 1 FETCH"); err != nil {
		return err
	}
	scratch := make([]byte, 1<<14)
	for left := size; left > 0; {
		n, err := s.lines.Read(scratch[:min(left, len(scratch))])
		if err != nil {
			return err
		}
		left -= n
		count.Add(int64(n))
	}
	return s.converse([]string{"a OK"})
}

// append writes a message of that size.
func (s *session) append(size int, count *atomic.Int64) error {
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s, "a APPEND INBOX {%d+}\r\n", size); err != nil {
		return err
	}
	for left := size; left > 0; {
		n, err := s.Write(block[:min(left, 1<<16)])
		if err != nil {
			return err
		}
		left -= n
		count.Add(int64(n))
	}
	if _, err := io.WriteString(s, "\r\n"); err != nil {
		return err
	}
	return s.converse([]string{"a OK"})
}

// percentile of durations, in ms; p is from 0 to 1.
func percentile(took []time.Duration, p float64) float64 {
	slices.Sort(took)
	return float64(took[int(p*float64(len(took)-1))]) / float64(time.Millisecond)
}
