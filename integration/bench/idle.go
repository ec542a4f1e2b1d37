package main

import (
	"sync/atomic"
	"time"

	"jackdaw/integration/measure"
)

// megabyte is what each session moves both ways between the two measurements of its memory.
const megabyte = 1 << 20

// idle measures what sessions take in which nothing moves, first right after the login, and then after use.
func (t *trial) idle(n int) error {
	if err := t.withoutProxy(n); err != nil {
		return err
	}
	empty, kernel, err := t.memory()
	if err != nil {
		return err
	}
	sessions, close, err := t.sessions(t.client(), 0, n)
	defer close()
	if err != nil {
		return err
	}
	if err = sleepAll(sessions); err != nil {
		return err
	}
	full, kernelFull, err := t.memory()
	if err != nil {
		return err
	}
	t.figures[t.name] = perSession(full-empty, n)
	t.figures[t.name+" kernel"] = perSession(kernelFull-kernel, n) - t.alone[n]
	err = parallel(n, 16, func(i int) error { return sessions[i].use() })
	if err != nil {
		return err
	}
	if err = sleepAll(sessions); err != nil {
		return err
	}
	full, _, err = t.memory()
	t.figures[t.name+" used"] = perSession(full-empty, n)
	return err
}

// withoutProxy measures, once for all, what the kernel takes for each of n sessions of our client at our store.
func (t *trial) withoutProxy(n int) error {
	if _, ok := t.alone[n]; ok {
		return nil
	}
	c := &client{script: scriptFor("imaps"), address: t.stores["imap"]}
	_, before, err := t.memory()
	if err != nil {
		return err
	}
	sessions, close, err := t.sessions(c, 0, n)
	defer close()
	if err == nil {
		err = sleepAll(sessions)
	}
	if err != nil {
		return err
	}
	_, after, err := t.memory()
	t.alone[n] = perSession(after-before, n)
	return err
}

func perSession(bytes int64, n int) float64 { return float64(bytes) / 1024 / float64(n) }

// sleepAll has sessions wait in IDLE (RFC 2177).
func sleepAll(sessions []*session) error {
	return parallel(len(sessions), manyClients, func(i int) error { return sessions[i].ask("a IDLE", "+ idling") })
}

// use wakes a session and moves what is to be moved.
func (s *session) use() error {
	if err := s.ask("DONE", "a OK"); err != nil {
		return err
	}
	if err := s.fetch(megabyte, new(atomic.Int64)); err != nil {
		return err
	}
	return s.append(megabyte, new(atomic.Int64))
}

// settled is how long a contender has to give memory back that it needs no more.
const settled = 20 * time.Second

// memory waits until the contender is at rest and has settled; then it reads what the contender takes, and what the kernel does.
func (t *trial) memory() (own, kernel int64, err error) {
	if _, _, err = measure.Rest(t.ctx, t.server.PID()); err != nil {
		return 0, 0, err
	}
	if err = measure.Sleep(t.ctx, settled); err != nil {
		return 0, 0, err
	}
	m, err := measure.MemoryOf(t.server.PID())
	if err != nil {
		return 0, 0, err
	}
	kernel, err = measure.KernelMemory()
	return m.Proportional, kernel, err
}
