package orders

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

const (
	lookEvery  = time.Hour        // at all that lies in the cache: other frontends change it
	leaseRetry = 5 * time.Second  // while another frontend has the lease
	askLimit   = 10 * time.Second // of one question whether a domain is known
	lookLimit  = time.Minute      // of all such questions about what lies in the cache

	maxNewNames = 20                  // in an hour, of those that clients ask for; Let's Encrypt takes 100 of an account
	forget      = 30 * 24 * time.Hour // after a certificate has expired that nobody wants
)

// entry is what the goroutine knows of a name.
type entry struct {
	Status
	asked bool // by a client, since it was tried last
}

func (e entry) due(now time.Time) bool {
	return !e.Next.IsZero() && !e.Next.After(now) && (!e.OnDemand || e.asked)
}

// run orders what is due, one name after the other, until ctx ends.
func (m *Manager) run(ctx context.Context) {
	defer close(m.done)
	var looked time.Time
	for ctx.Err() == nil {
		if m.stale.Swap(false) || time.Since(looked) >= lookEvery {
			m.lookAround(ctx)
			looked = time.Now()
		}
		m.admit(ctx)
		wait := min(m.orderNext(ctx), time.Until(looked.Add(lookEvery)))
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-time.After(wait):
		}
	}
}

// lookAround finds out about all names anew, and throws away what is of no use.
func (m *Manager) lookAround(ctx context.Context) {
	list, err := m.look(ctx)
	fresh := make(map[string]entry, len(list))
	problems := []error{err}
	for _, s := range list {
		if s.useless(time.Now()) {
			problems = append(problems, m.cache.remove(certificates, s.Name+".pem"), m.cache.clearFailure(s.Name))
		}
		if s.Problem != "" {
			problems = append(problems, errors.New(s.Problem))
		}
		fresh[s.Name] = entry{s, m.entries[s.Name].asked}
	}
	for name, e := range m.entries {
		if _, found := fresh[name]; e.asked && !found { // nothing of it lies in the cache yet
			fresh[name] = e
		}
	}
	m.report(errors.Join(problems...))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries = fresh
}

// report logs what is wrong with the cache, unless it was logged before.
func (m *Manager) report(err error) {
	problem := ""
	if err != nil {
		problem = oneLine(err)
	}
	if problem != "" && problem != m.problem {
		m.Log.Warn("problem with the cache of certificates", zap.String("problem", problem))
	}
	m.problem = problem
}

// useless tells whether there are files of a name that can be thrown away: the certificate has expired long ago, or there
// is none and long ago was the last order that has failed; and nobody but clients can want another.
func (s Status) useless(now time.Time) bool {
	last := s.NotAfter
	if last.IsZero() {
		last = s.Failed
	}
	return (s.By != s.Name || s.Held) && !last.IsZero() && now.After(last.Add(forget))
}

// admit takes in the names that clients have asked for, if they are wanted and not too many.
func (m *Manager) admit(ctx context.Context) {
	m.mu.Lock()
	asked := m.asked
	m.asked = make(map[string]bool)
	m.mu.Unlock()
	for name := range asked {
		by, err := m.wanting(ctx, name)
		if err != nil {
			m.Log.Debug("a certificate may be wanted or not", zap.String("name", name), zap.Error(err))
		}
		if err != nil || by == "" {
			continue
		}
		s := m.lookAt(name, by)
		isNew := s.OnDemand && s.Failures == 0
		if !isNew || m.admitNew(name) {
			m.set(entry{s, true})
		}
	}
}

// wanting asks a directory no longer than others can wait for it.
func (m *Manager) wanting(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	return m.wishes.wanting(ctx, name)
}

// admitNew tells whether one more name may come that never had a certificate. The first that may not is logged.
func (m *Manager) admitNew(name string) bool {
	now := time.Now()
	oldest := &m.newNames[m.newest%maxNewNames]
	if now.Sub(*oldest) >= time.Hour {
		*oldest = now
		m.newest++
		m.crowded = false
		return true
	}
	if !m.crowded {
		m.Log.Warn("clients ask for more new names than are ordered in an hour",
			zap.String("name", name), zap.Int("limit", maxNewNames))
	}
	m.crowded = true
	return false
}

func (m *Manager) set(e entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries[e.Name] = e
}

// orderNext orders the name that is due, and returns how long to wait for the next one. Among several it takes the one that
// has failed the fewest times: a hundred names without hope do not keep a good one waiting.
func (m *Manager) orderNext(ctx context.Context) time.Duration {
	now := time.Now()
	if now.Before(m.pause) {
		return m.pause.Sub(now)
	}
	var next entry
	wait := lookEvery
	for _, e := range m.entries {
		switch {
		case !e.due(now):
			if !e.Next.IsZero() && (!e.OnDemand || e.asked) {
				wait = min(wait, e.Next.Sub(now))
			}
		case next.Name == "" || e.Failures < next.Failures || e.Failures == next.Failures && e.Next.Before(next.Next):
			next = e
		}
	}
	if next.Name == "" {
		return wait
	}
	return m.attempt(ctx, next)
}
