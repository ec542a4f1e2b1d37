package main

import (
	"crypto/tls"
	"sync/atomic"
	"time"
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
func (t *trial) logins() (err error) {
	t.figures[t.name], err = t.loginCost()
	return err
}

// loginCost is the cost of a login and logout in microseconds.
func (t *trial) loginCost() (float64, error) {
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
	return cost * 1e6, err
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
