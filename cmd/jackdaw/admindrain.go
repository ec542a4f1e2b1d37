package main

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/proxy"
)

// drainReport is the answer to POST /drain and POST /undrain.
type drainReport struct {
	Backend  string   `json:"backend"`
	Sessions int      `json:"sessions"` // that are there
	Missing  []string `json:"missing,omitempty"`
}

// emptying are the backends whose sessions are being ended. Safe for concurrent use; the zero value is ready.
type emptying struct {
	mu    sync.Mutex
	stops map[string]context.CancelFunc
	tasks sync.WaitGroup
}

// begin has a backend emptied, in place of whoever empties it by now.
func (e *emptying) begin(backend string, empty func(context.Context)) {
	e.end(backend)
	e.mu.Lock()
	defer e.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	if e.stops == nil {
		e.stops = make(map[string]context.CancelFunc)
	}
	e.stops[backend] = cancel
	e.tasks.Go(func() {
		defer cancel()
		empty(ctx)
	})
}

// end stops emptying a backend.
func (e *emptying) end(backend string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if stop := e.stops[backend]; stop != nil {
		stop()
		delete(e.stops, backend)
	}
}

// close stops all, and returns when they have stopped.
func (e *emptying) close() {
	e.mu.Lock()
	for _, stop := range e.stops {
		stop()
	}
	e.mu.Unlock()
	e.tasks.Wait()
}

// drainable is the backend that a question is about.
func drainable(q url.Values) (string, error) {
	if !q.Has("backend") {
		return "", badQuestion{errors.New("say which backend")}
	}
	return q.Get("backend"), nil
}

// drain lets nobody in who is not there already, and with `over` ends the sessions that there are.
func (o *operator) drain(ctx context.Context, q url.Values) (any, error) {
	if err := only(q, "backend", "over"); err != nil {
		return nil, err
	}
	backend, err := drainable(q)
	if err != nil {
		return nil, err
	}
	over, err := duration(q, "over", 0)
	if err != nil {
		return nil, err
	}
	if err := o.router().Drain(backend, true); err != nil {
		return nil, err
	}
	report := o.drained(ctx, backend)
	if q.Has("over") {
		o.emptying.begin(backend, func(ctx context.Context) { o.empty(ctx, backend, over) })
	}
	return report, nil
}

func (o *operator) undrain(ctx context.Context, q url.Values) (any, error) {
	if err := only(q, "backend"); err != nil {
		return nil, err
	}
	backend, err := drainable(q)
	if err != nil {
		return nil, err
	}
	if err := o.router().Drain(backend, false); err != nil {
		return nil, err
	}
	o.emptying.end(backend)
	return o.drained(ctx, backend), nil
}

func (o *operator) drained(ctx context.Context, backend string) drainReport {
	there := o.everywhere(ctx, proxy.Selection{Backend: backend}, url.Values{"backend": {backend}})
	return drainReport{backend, len(there.Sessions), there.Missing}
}

// empty ends the sessions on a backend, user by user, evenly over a time: a user of a pool has to be gone before he can be on another
// member. At the end it looks who has come back in the meantime to what he had open there.
func (o *operator) empty(ctx context.Context, backend string, over time.Duration) {
	begun := time.Now()
	for {
		users := o.usersOf(ctx, backend)
		rest := max(0, over-time.Since(begun))
		for i, user := range users {
			turn := time.NewTimer(rest / time.Duration(len(users)-i))
			select {
			case <-turn.C:
			case <-ctx.Done():
				turn.Stop()
				o.log.Info("sessions of a drained backend are ended no longer", zap.String("backend", backend))
				return
			}
			rest = max(0, over-time.Since(begun))
			o.emptying.tasks.Go(func() { o.remove(ctx, user, backend) })
		}
		if len(users) == 0 {
			o.log.Info("a drained backend has no sessions any more", zap.String("backend", backend))
			return
		}
		select {
		case <-time.After(farewellTime): // for those that are not quiet
		case <-ctx.Done():
			return
		}
	}
}

// usersOf lists the users who are on a backend, whichever process has them.
func (o *operator) usersOf(ctx context.Context, backend string) (users []string) {
	for _, one := range o.everywhere(ctx, proxy.Selection{Backend: backend}, url.Values{"backend": {backend}}).Sessions {
		users = append(users, one.User)
	}
	slices.Sort(users)
	return slices.Compact(users)
}

// remove ends a user's sessions on a backend.
func (o *operator) remove(ctx context.Context, user, backend string) {
	ctx, cancel := context.WithTimeout(ctx, moveLimit)
	defer cancel()
	if err := o.router().Leave(ctx, user, backend); err != nil && !errors.Is(err, context.Canceled) {
		o.log.Warn("a user stays on a drained backend", zap.String("backend", backend), zap.Error(err))
	}
	o.server.Kick(proxy.Selection{User: user, Backend: backend}, backends.ErrMoved)
	where := url.Values{"user": {user}, "backend": {backend}}
	for _, problem := range o.older(ctx, func(ctx context.Context, g *generation) error {
		return g.ask(ctx, questionOf("POST /leave", where), nil, nil)
	}) {
		o.log.Warn("a user may stay on a drained backend", zap.String("backend", backend), zap.String("error", problem))
	}
}

// leaveOwn ends sessions of this process whose user is to go to another store.
func (o *operator) leaveOwn(_ context.Context, q url.Values) (any, error) {
	which, err := o.selection(q)
	if err == nil && (which.User == "" || which.Backend == "") {
		err = errKickAll
	}
	if err != nil {
		return nil, err
	}
	return kickReport{Kicked: o.server.Kick(which, backends.ErrMoved)}, nil
}
