package main

import (
	"context"
	"errors"
	"iter"
	"net/url"
	"slices"
	"sync"

	"go.uber.org/zap"

	"jackdaw/proxy"
)

// selectors are the conditions on sessions that can be asked for.
var selectors = []string{"id", "user", "backend", "service", "client", "state"}

// listedSession is a session of one of the daemon's processes.
type listedSession struct {
	Process int `json:"process"`
	proxy.SessionInfo
}

// sessionsReport is the answer to GET /sessions.
type sessionsReport struct {
	Sessions []listedSession `json:"sessions"`          // the oldest process is the first, and so is the oldest session of each
	Missing  []string        `json:"missing,omitempty"` // former processes that could not be asked, and why
}

// kickReport is the answer to POST /kick.
type kickReport struct {
	Kicked  int      `json:"kicked"` // sessions that have been told to end
	Missing []string `json:"missing,omitempty"`
}

// selection reads conditions on sessions.
func (o *operator) selection(q url.Values) (which proxy.Selection, err error) {
	if err := only(q, selectors...); err != nil {
		return which, err
	}
	if err := checkSelection(q.Get("service"), q.Get("state")); err != nil {
		return which, badQuestion{err}
	}
	which = proxy.Selection{ID: q.Get("id"), Backend: q.Get("backend"), Service: q.Get("service"), State: proxy.SessionState(q.Get("state"))}
	if q.Has("client") {
		if which.Client, err = parseNetwork(q.Get("client")); err != nil {
			return which, badQuestion{err}
		}
	}
	if q.Has("user") {
		user, err := o.user(q)
		if err != nil {
			return which, err
		}
		which.User = user.String()
	}
	return which, nil
}

// chosen yields the sessions of this process that are chosen, the oldest first.
func (o *operator) chosen(which proxy.Selection) iter.Seq[listedSession] {
	return func(yield func(listedSession) bool) {
		for one := range o.server.Sessions(which) {
			if !yield(listedSession{ownProcess, one}) {
				return
			}
		}
	}
}

// everywhere lists the sessions of all processes that are chosen; q are the same conditions as they were asked for.
func (o *operator) everywhere(ctx context.Context, which proxy.Selection, q url.Values) sessionsReport {
	var mu sync.Mutex
	all := slices.AppendSeq([]listedSession{}, o.chosen(which))
	missing := o.older(ctx, func(ctx context.Context, g *generation) error {
		var answer sessionsReport
		err := g.ask(ctx, questionOf("GET /sessions", q), nil, &answer)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, answer.Sessions...)
		return err
	})
	slices.SortFunc(all, func(a, b listedSession) int { return a.Since.Compare(b.Since) })
	return sessionsReport{all, missing}
}

var errKickAll = badQuestion{errors.New("say which sessions are to end")}

// victims reads conditions on the sessions that are to end, of which there must be one.
func (o *operator) victims(q url.Values) (which proxy.Selection, err error) {
	which, err = o.selection(q)
	if err == nil && which == (proxy.Selection{}) {
		err = errKickAll
	}
	return which, err
}

func (o *operator) kickOwn(_ context.Context, q url.Values) (any, error) {
	which, err := o.victims(q)
	if err != nil {
		return nil, err
	}
	return kickReport{Kicked: o.server.Kick(which, proxy.ErrKicked)}, nil
}

func (o *operator) kick(ctx context.Context, q url.Values) (any, error) {
	which, err := o.victims(q)
	if err != nil {
		return nil, err
	}
	return o.kickEverywhere(ctx, which, q), nil
}

// kickEverywhere ends the sessions of all processes that are chosen, and says so in the log.
func (o *operator) kickEverywhere(ctx context.Context, which proxy.Selection, q url.Values) kickReport {
	var mu sync.Mutex
	kicked := o.server.Kick(which, proxy.ErrKicked)
	missing := o.older(ctx, func(ctx context.Context, g *generation) error {
		var answer kickReport
		err := g.ask(ctx, questionOf("POST /kick", q), nil, &answer)
		mu.Lock()
		defer mu.Unlock()
		kicked += answer.Kicked
		return err
	})
	o.log.Info("kicked", zap.String("conditions", q.Encode()), zap.Int("sessions", kicked))
	return kickReport{kicked, missing}
}
