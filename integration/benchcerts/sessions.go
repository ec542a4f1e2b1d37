package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"jackdaw/integration/measure"
)

const (
	idle     = 1000 // sessions that are open while certificates are renewed
	renewals = 5    // one after the other
	logins   = 16   // at a time
)

// services are where a certificate is shown, at once or in STARTTLS.
var services = []string{"imaps", "submission", "sieve"}

// sessions prints what jackdaw alone does with many names and many sessions: the memory for each, and how a renewal comes to
// all services, while the sessions notice nothing.
func (b *bench) sessions(count int) error {
	few, err := b.emptyMemory()
	if err != nil {
		return err
	}
	many, err := b.openSet(combined, count)
	if err != nil {
		return err
	}
	store, stop, err := startStore()
	if err != nil {
		return err
	}
	defer stop()
	t := b.newTrial(many)
	if t.server, err = b.startJackdaw(many, store); err != nil {
		return err
	}
	defer t.server.Stop()
	if err = inTurn(t.start, t.rest); err != nil {
		return err
	}
	fmt.Printf("%d certificates and %d sessions\n\n", count, idle)
	fmt.Printf("- memory (PSS) for each name: %.2f kB\n", 1000*(t.figures[restPSS]-few)/float64(count-1))
	return t.withSessions()
}

// emptyMemory is the memory of a jackdaw with one certificate, in MB.
func (b *bench) emptyMemory() (float64, error) {
	one, err := b.openSet(combined, 1)
	if err != nil {
		return 0, err
	}
	t := b.newTrial(one)
	if t.server, err = b.startJackdaw(one, ""); err != nil {
		return 0, err
	}
	defer t.server.Stop()
	err = inTurn(t.start, t.rest)
	return t.figures[restPSS], err
}

// withSessions renews certificates while clients are logged in.
func (t *trial) withSessions() error {
	open := make([]*session, idle)
	defer func() {
		for _, s := range open {
			if s != nil {
				s.Close()
			}
		}
	}()
	if err := t.open(open); err != nil {
		return err
	}
	before := t.figures[restPSS]
	if err := t.rest(); err != nil {
		return err
	}
	fmt.Printf("- memory (PSS) for each session: %.1f kB\n", 1000*(t.figures[restPSS]-before)/idle)

	quiet, err := open[0].slowest(t.ctx, func() error { return measure.Sleep(t.ctx, 5*time.Second) })
	if err != nil {
		return err
	}
	took := make(map[string][]float64)
	busy, err := open[0].slowest(t.ctx, func() error { return t.renewEverywhere(took) })
	if err != nil {
		return err
	}
	for _, service := range services {
		fmt.Printf("- new file to new certificate, %s: %s s (median of %d renewals), %s s (longest)\n", service,
			measure.Number(measure.Median(took[service])), renewals, measure.Number(slices.Max(took[service])))
	}
	fmt.Printf("- slowest answer to a session meanwhile: %v; while nothing was renewed: %v\n", busy, quiet)
	err = parallel(idle, logins, func(i int) error { return open[i].ask("NOOP") })
	if err == nil {
		fmt.Printf("- all %d sessions answer as before\n", idle)
	}
	return err
}

// open logs in with every session. The first one waits until jackdaw trusts its store.
func (t *trial) open(sessions []*session) error {
	err := t.server.Until(t.ctx, seldom, func() (err error) {
		sessions[0], err = t.login(t.nameOf(0))
		return err
	})
	if err != nil {
		return err
	}
	return parallel(len(sessions)-1, logins, func(i int) (err error) {
		sessions[i+1], err = t.login(t.nameOf(i % t.count))
		return err
	})
}

// renewEverywhere renews certificates, and adds to took for each service the seconds that it has shown the old ones.
func (t *trial) renewEverywhere(took map[string][]float64) error {
	for range renewals {
		r, err := t.renew()
		if err != nil {
			return err
		}
		if err = t.put(r); err != nil {
			return err
		}
		began := time.Now()
		seconds := make([]float64, len(services))
		err = parallel(len(services), len(services), func(i int) error {
			err := t.shown(services[i], r, often)
			seconds[i] = time.Since(began).Seconds()
			return err
		})
		if err != nil {
			return err
		}
		for i, service := range services {
			took[service] = append(took[service], seconds[i])
		}
	}
	return nil
}

// session is an IMAP session of the store's user.
type session struct{ *conn }

// login begins a session under a name.
func (t *trial) login(name string) (*session, error) {
	c, err := t.connect(t.ctx, t.server, "imaps", name)
	if err != nil {
		return nil, err
	}
	s := &session{c}
	if err = s.ask("LOGIN " + user + " " + password); err != nil {
		c.Close()
		return nil, err
	}
	return s, nil
}

// ask fails unless the answer to a command is OK.
func (s *session) ask(command string) error {
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s, "a %s\r\n", command); err != nil {
		return err
	}
	answer, err := s.await("a ")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(answer, "a OK") {
		return fmt.Errorf("the answer to %q is %q", command, answer)
	}
	return s.SetDeadline(time.Time{})
}

// slowest asks again and again while something is done, and returns how long the slowest answer took.
func (s *session) slowest(ctx context.Context, do func() error) (time.Duration, error) {
	done := make(chan error, 1)
	go func() { done <- do() }()
	var slowest time.Duration
	for {
		began := time.Now()
		if err := s.ask("NOOP"); err != nil {
			return 0, err
		}
		slowest = max(slowest, time.Since(began))
		select {
		case err := <-done:
			return slowest.Round(100 * time.Microsecond), err
		case <-time.After(2 * often):
		}
	}
}
