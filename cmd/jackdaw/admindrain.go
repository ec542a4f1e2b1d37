package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// emptied is a backend whose sessions are being ended.
type emptied struct {
	Backend string    `json:"backend"`
	Until   time.Time `json:"until"` // each has been told to end; whoever comes back is told again
}

// emptying are the backends whose sessions are being ended. Safe for concurrent use; the zero value is ready.
type emptying struct {
	mu    sync.Mutex
	all   map[string]*emptier
	tasks sync.WaitGroup
}

// emptier ends the sessions of one.
type emptier struct {
	emptied
	stop context.CancelFunc
}

// begin has a backend emptied, in place of whoever empties it by now.
func (e *emptying) begin(what emptied, empty func(context.Context)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drop(what.Backend)
	ctx, cancel := context.WithCancel(context.Background())
	if e.all == nil {
		e.all = make(map[string]*emptier)
	}
	one := &emptier{what, cancel}
	e.all[what.Backend] = one
	e.tasks.Go(func() {
		defer cancel()
		empty(ctx)
		e.mu.Lock()
		defer e.mu.Unlock()
		if ctx.Err() == nil && e.all[what.Backend] == one {
			delete(e.all, what.Backend)
		}
	})
}

// end stops emptying a backend, and reports whether that was under way.
func (e *emptying) end(backend string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.drop(backend)
}

// drop is end. e.mu is held.
func (e *emptying) drop(backend string) bool {
	one := e.all[backend]
	if one == nil {
		return false
	}
	one.stop()
	delete(e.all, backend)
	return true
}

// list returns what is being emptied, by name.
func (e *emptying) list() []emptied {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []emptied
	for _, name := range slices.Sorted(maps.Keys(e.all)) {
		all = append(all, e.all[name].emptied)
	}
	return all
}

// close stops all, and returns what was not empty yet when they have stopped.
func (e *emptying) close() []emptied {
	left := e.list()
	for _, one := range left {
		e.end(one.Backend)
	}
	e.tasks.Wait()
	return left
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
	if err := o.changes.pass(func() error { return o.router().Drain(backend, true) }); err != nil {
		return nil, err
	}
	o.tellOlder(ctx)
	report := o.drained(ctx, backend)
	if !q.Has("over") {
		return report, nil
	}
	what := emptied{backend, time.Now().Add(over).Round(0)}
	return report, o.changes.pass(func() error {
		if !slices.Contains(o.router().Drained(), backend) { // its sessions would be ended for as long as users come back
			return fmt.Errorf("%s was undrained in the meantime: no sessions are ended", backend)
		}
		o.resume([]emptied{what})
		return nil
	})
}

// resume ends the sessions of backends, over the time that is left for that.
func (o *operator) resume(all []emptied) {
	for _, one := range all {
		o.emptying.begin(one, func(ctx context.Context) { o.empty(ctx, one) })
	}
}

func (o *operator) undrain(ctx context.Context, q url.Values) (any, error) {
	if err := only(q, "backend"); err != nil {
		return nil, err
	}
	backend, err := drainable(q)
	if err != nil {
		return nil, err
	}
	err = o.changes.pass(func() error {
		if err := o.router().Drain(backend, false); err != nil {
			return err
		}
		if o.emptying.end(backend) {
			o.log.Info("sessions of a drained backend are ended no longer", zap.String("backend", backend))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	o.tellOlder(ctx)
	return o.drained(ctx, backend), nil
}

func (o *operator) drained(ctx context.Context, backend string) drainReport {
	there := o.everywhere(ctx, proxy.Selection{Backend: backend}, url.Values{"backend": {backend}})
	return drainReport{backend, len(there.Sessions), there.Missing}
}

// empty ends the sessions on a backend, user by user, evenly over a time: a user of a pool has to be gone before he can be on another
// member. At the end it looks who has come back in the meantime to what he had open there.
func (o *operator) empty(ctx context.Context, what emptied) {
	backend := what.Backend
	for {
		users, missing := o.usersOf(ctx, backend)
		rest := max(0, time.Until(what.Until))
		for i, user := range users {
			turn := time.NewTimer(rest / time.Duration(len(users)-i))
			select {
			case <-turn.C:
			case <-ctx.Done():
				turn.Stop()
				return
			}
			rest = max(0, time.Until(what.Until))
			o.emptying.tasks.Go(func() { o.remove(ctx, user, backend) })
		}
		if len(users) == 0 && len(missing) == 0 {
			o.log.Info("a drained backend has no sessions any more", zap.String("backend", backend))
			return
		}
		select {
		case <-time.After(farewellTime): // for those that are not quiet, and for a process that has not answered
		case <-ctx.Done():
			return
		}
	}
}

// usersOf lists the users who are on a backend, whichever process has them, and says which processes have not answered.
func (o *operator) usersOf(ctx context.Context, backend string) (users, missing []string) {
	there := o.everywhere(ctx, proxy.Selection{Backend: backend}, url.Values{"backend": {backend}})
	for _, one := range there.Sessions {
		users = append(users, one.User)
	}
	slices.Sort(users)
	return slices.Compact(users), there.Missing
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
