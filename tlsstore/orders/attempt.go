package orders

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/acme"

	"jackdaw/configs"
)

const (
	orderLimit = 5 * time.Minute // of one order, with all its waiting

	leastWait    = time.Minute        // before a name that has failed is tried again, doubled with each failure
	mostWait     = 24 * time.Hour     // where the authority says no
	mostUnheard  = time.Hour          // where it says nothing: whatever is wrong, it is not the name
	mostObedient = 7 * 24 * time.Hour // however long the authority asks us to wait
	mostPause    = time.Minute        // between two orders where one after the other fails, doubled from a second
)

// attempt orders a certificate, unless another frontend is ordering, and returns how long to wait before the next order.
func (m *Manager) attempt(ctx context.Context, e entry) time.Duration {
	started, due := time.Now(), false
	var orderErr error
	held, err := m.lease.hold(ctx, func(ctx context.Context) {
		// Another frontend may have ordered, or failed, since we have looked.
		if due = (entry{m.lookAt(e.Name, e.By), e.asked}).due(time.Now()); due {
			orderErr = m.order(ctx, e)
		}
	})
	err = errors.Join(orderErr, err)
	switch {
	case ctx.Err() != nil:
		return 0 // it is we who have broken it off
	case errors.Is(err, errLeaseLost):
		m.Log.Warn("order broken off", zap.String("name", e.Name), zap.Error(err))
		return leaseRetry
	case err != nil:
		m.fail(e.Name, err)
	case !held:
		return leaseRetry
	case due:
		m.failed, m.full = 0, false
		m.ordered.Add(1)
	}
	s := m.lookAt(e.Name, e.By)
	m.set(entry{Status: s})
	if due && err == nil {
		m.Log.Info("certificate ordered", zap.String("name", e.Name), zap.Time("not_after", s.NotAfter),
			zap.Time("renewal", s.Next), zap.Duration("took", time.Since(started)))
	}
	return max(time.Until(m.pause), 0)
}

// order places one order, and forgets what has failed before.
func (m *Manager) order(ctx context.Context, e entry) error {
	ctx, cancel := context.WithTimeoutCause(ctx, orderLimit, fmt.Errorf("not done after %v", orderLimit))
	defer cancel()
	err := m.cache.clearChallenges()
	if err == nil {
		err = m.place(ctx, e)
	}
	if err == nil {
		return m.cache.clearFailure(e.Name)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

func (m *Manager) place(ctx context.Context, e entry) error {
	if data := m.cache.recall(e.Name); data != nil { // the authority has done its part
		return m.cache.setCertificate(e.Name, data)
	}
	key, err := m.cache.accountKey()
	if err != nil {
		return err
	}
	transport := m.transport
	if transport == nil {
		network, err := newTransport(m.Config.CA)
		if err != nil {
			return err
		}
		defer network.CloseIdleConnections()
		transport = network
	}
	client, err := connect(ctx, &m.Config, key, transport)
	if err != nil {
		return err
	}
	return order{client, m.cache, e.Name, m.kinds(e.Failures)}.run(ctx)
}

// kinds are the challenges that can be answered. Where there are two, and one has failed, the other's turn has come.
func (m *Manager) kinds(failures int) []string {
	var kinds []string
	if m.Config.HTTP != (configs.Address{}) {
		kinds = append(kinds, http01)
	}
	if m.Config.TLSALPN != (configs.Address{}) {
		kinds = append(kinds, tlsALPN01)
	}
	if failures%2 == 1 {
		slices.Reverse(kinds)
	}
	return kinds
}

// fail remembers that an order has failed, and says so. Of a full disk, which keeps all names from being ordered, it speaks once.
func (m *Manager) fail(name string, err error) {
	now := time.Now()
	m.pause = now.Add(min(time.Second<<min(m.failed, 10), mostPause))
	m.failed++
	m.refused.Add(1)
	f, _ := m.cache.failure(name) // one that cannot be read is none, and is replaced
	f = failure{f.Count + 1, now, now.Add(backoff(f.Count+1, err)), oneLine(err)}
	unsaved := m.cache.setFailure(name, f)
	level, full := zap.WarnLevel, isFull(err)
	if full && m.full {
		level = zap.DebugLevel
	}
	m.full = full
	m.Log.Log(level, "certificate not ordered", zap.String("name", name), zap.String("error", f.Error),
		zap.Int("failures", f.Count), zap.Time("next_try", f.Next), zap.NamedError("not_remembered", unsaved))
}

// isFull reports whether an error means that a disk takes no more.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}

// backoff is how long to wait after the nth failure of a name.
func backoff(n int, err error) time.Duration {
	most, asked := mostUnheard, time.Duration(0)
	_, unauthorized := errors.AsType[*acme.AuthorizationError](err)
	_, disordered := errors.AsType[*acme.OrderError](err)
	if unauthorized || disordered {
		most = mostWait
	}
	if answer, ok := errors.AsType[*acme.Error](err); ok {
		asked = min(retryAfter(answer.Header), mostObedient)
		if answer.StatusCode < http.StatusInternalServerError {
			most = mostWait
		}
	}
	wait := min(leastWait<<min(n-1, 12), most)
	return max(wait+rand.N(wait/4), asked)
}
