package main

import (
	"math/rand/v2"
	"time"

	"jackdaw/integration/measure"
)

// contender is a column of the tables: a program, and how its certificates lie.
type contender struct {
	name    string // by which -only knows it, too
	layout  layout
	haproxy bool
}

var contenders = []contender{
	{"haproxy", combined, true},
	{"jackdaw", combined, false},
	{"certbot", certbot, false},
	{"rsa", rsaKeys, false},
}

// clients are so many that the server never waits for one: to go to sleep and wake up costs as well.
const clients = 32

// How long to wait before the same question is asked again.
const (
	often  = 5 * time.Millisecond
	seldom = time.Second
)

// trial is a contender's part of one round: its server from the start to the end, and what was measured.
type trial struct {
	*bench
	*set
	server  *measure.Server
	unasked []int // certificates that nobody has asked the server for, in no order
	figures figures
}

// try has a contender run once, with a set of certificates.
func (b *bench) try(c contender, s *set) (figures, error) {
	t := b.newTrial(s)
	var err error
	last := t.notice
	if c.haproxy {
		last = t.reload
		t.server, err = b.startHAProxy(s, nil)
	} else {
		t.server, err = b.startJackdaw(s, "")
	}
	if err != nil {
		return nil, err
	}
	defer func() { t.server.Stop() }()
	return t.figures, inTurn(t.start, t.rest, t.handshakes, last)
}

func (b *bench) newTrial(s *set) *trial {
	return &trial{bench: b, set: s, unasked: rand.Perm(s.count), figures: make(figures)}
}

// inTurn takes one step after the other, up to the first that fails.
func inTurn(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// next is a certificate that the server was not asked for yet.
func (t *trial) next() int {
	i := t.unasked[0]
	t.unasked = t.unasked[1:]
	return i
}

// renew issues the certificate that is to take the place of one that was served a moment ago.
func (t *trial) renew() (renewed, error) {
	i := t.next()
	if _, err := t.shake(t.ctx, t.server, "imaps", t.nameOf(i)); err != nil {
		return renewed{}, err
	}
	return t.issue(i)
}

// start waits for the first handshake.
func (t *trial) start() error {
	name := t.nameOf(t.next())
	err := t.server.Until(t.ctx, time.Millisecond, func() error {
		_, err := t.shake(t.ctx, t.server, "imaps", name)
		return err
	})
	if err != nil {
		return err
	}
	t.figures[startTime] = time.Since(t.server.Began).Seconds()
	spent, err := measure.CPU(t.server.PID())
	t.figures[startCPU] = spent.Seconds()
	return err
}

// rest looks at the server when it has nothing more to do.
func (t *trial) rest() error {
	spent, share, err := measure.Rest(t.ctx, t.server.PID())
	if err != nil {
		return err
	}
	m, err := measure.MemoryOf(t.server.PID())
	if err != nil {
		return err
	}
	n, err := measure.Watches(t.server.PID())
	if n > 0 {
		t.figures[watches] = float64(n)
	}
	if share > 0 {
		t.figures[restShare] = 100 * share
	}
	t.figures[restCPU] = spent.Seconds()
	t.figures[restRSS] = megabytes(m.Resident)
	t.figures[restPSS] = megabytes(m.Proportional)
	t.figures[restPeak] = megabytes(m.Peak)
	return err
}

// handshakes compares a name that is asked for all the time with names that nobody has asked for.
func (t *trial) handshakes() error {
	const most = 1000
	hot := make([]string, most)
	hot[0] = t.nameOf(t.next())
	for i := range hot {
		hot[i] = hot[0]
	}
	if _, err := t.cost(hot[:100]); err != nil {
		return err
	}
	var err error
	if t.figures[hotCPU], err = t.cost(hot); err != nil {
		return err
	}
	cold := make([]string, min(most, t.count/2))
	for i := range cold {
		cold[i] = t.nameOf(t.next())
	}
	t.figures[coldCPU], err = t.cost(cold)
	return err
}

// cost is the processor time of one handshake at the server in microseconds, the mean over these names.
func (t *trial) cost(names []string) (float64, error) {
	before, err := measure.CPU(t.server.PID())
	if err != nil {
		return 0, err
	}
	err = parallel(len(names), clients, func(i int) error {
		_, err := t.shake(t.ctx, t.server, "imaps", names[i])
		return err
	})
	if err != nil {
		return 0, err
	}
	if err := measure.Sleep(t.ctx, 50*time.Millisecond); err != nil {
		return 0, err // the last connection is being closed
	}
	after, err := measure.CPU(t.server.PID())
	return float64((after - before).Microseconds()) / float64(len(names)), err
}

// shown waits until a service shows a new certificate.
func (t *trial) shown(service string, r renewed, pause time.Duration) error {
	return t.server.Until(t.ctx, pause, func() error { return t.expect(t.ctx, t.server, service, r) })
}
