package main

import (
	"crypto/tls"
	"sync/atomic"
	"time"

	"jackdaw/integration/measure"
)

// manyClients are so many that a proxy never waits for one: to go to sleep and wake up costs as well.
const manyClients = 32

// handshakes connects up to the greeting, again and again.
func (t *trial) handshakes() error {
	c := t.client()
	cost, err := t.steady(manyClients, func(_ int, count *atomic.Int64) error { return c.shake(count) })
	t.figures[t.name] = cost * 1e6
	return err
}

func (c *client) shake(count *atomic.Int64) error {
	s, err := c.open()
	if err != nil {
		return err
	}
	count.Add(1)
	return s.Close()
}

// resumed is handshakes in which each client shows the ticket of its last one.
func (t *trial) resumed() error {
	clients := make([]*client, manyClients)
	for i := range clients {
		clients[i] = t.client()
		clients[i].tls.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		if err := clients[i].shake(new(atomic.Int64)); err != nil {
			return err
		}
		clients[i].resumes = true
	}
	cost, err := t.steady(manyClients, func(i int, count *atomic.Int64) error { return clients[i].shake(count) })
	t.figures[t.name] = cost * 1e6
	return err
}

// logins logs in and out.
func (t *trial) logins() error {
	c := t.client()
	var user atomic.Int64
	cost, err := t.steady(manyClients, func(_ int, count *atomic.Int64) error {
		s, err := c.login(int(user.Add(1)) % 10_000)
		if err != nil {
			return err
		}
		if err = s.leave(); err == nil {
			count.Add(1)
		}
		return err
	})
	t.figures[t.name] = cost * 1e6
	return err
}

// noops measures how dear a small question is, and how long its answer takes.
func (t *trial) noops(n int) error {
	sessions, close, err := t.sessions(t.client(), 0, n)
	defer close()
	if err != nil {
		return err
	}
	took := make([][]time.Duration, n)
	cost, err := t.steady(n, func(i int, count *atomic.Int64) error {
		began := time.Now()
		if err := sessions[i].ask("a NOOP", "a OK"); err != nil {
			return err
		}
		took[i] = append(took[i], time.Since(began))
		count.Add(1)
		return nil
	})
	if err != nil {
		return err
	}
	var all []time.Duration
	for _, one := range took {
		all = append(all, one[len(one)/5:]...) // without the time of getting warm
	}
	t.figures[t.name] = cost * 1e6
	t.figures[t.name+" p50"] = percentile(all, 0.50)
	t.figures[t.name+" p99"] = percentile(all, 0.99)
	return nil
}

// mover moves a message of a size in bytes.
type mover func(s *session, size int, count *atomic.Int64) error

// bulk moves messages of 16 MiB.
func (t *trial) bulk(n int, move mover) error {
	c := t.client()
	c.bulk = true
	sessions, close, err := t.sessions(c, 0, n)
	defer close()
	if err != nil {
		return err
	}
	cost, err := t.steady(n, func(i int, bytes *atomic.Int64) error {
		return move(sessions[i], 16<<20, bytes)
	})
	t.figures[t.name] = cost * 1e9 * 1e3
	return err
}

// megabyte is what each session moves both ways between the two measurements of its memory.
const megabyte = 1 << 20

// idle measures what sessions take in which nothing moves, first right after the login, and then after use.
func (t *trial) idle(n int) error {
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
	t.figures[t.name+" kernel"] = perSession(kernelFull-kernel, n)
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

// memory waits until the contender is at rest, and a while longer, in which it may give something back; then it
// reads what the contender takes, and what the kernel does.
func (t *trial) memory() (own, kernel int64, err error) {
	if _, _, err = measure.Rest(t.ctx, t.server.PID()); err != nil {
		return 0, 0, err
	}
	if err = measure.Sleep(t.ctx, 5*time.Second); err != nil {
		return 0, 0, err
	}
	m, err := measure.MemoryOf(t.server.PID())
	if err != nil {
		return 0, 0, err
	}
	kernel, err = measure.KernelMemory()
	return m.Proportional, kernel, err
}
