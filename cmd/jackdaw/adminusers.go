package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/proxy"
)

// whereReport is the answer to GET /where.
type whereReport struct {
	User    string          `json:"user"` // canonical
	Blocked *proxy.Block    `json:"blocked,omitempty"`
	Pools   []backends.Stay `json:"pools"` // in which the user has a place
	sessionsReport
}

func (o *operator) where(ctx context.Context, q url.Values) (any, error) {
	if err := only(q, "user"); err != nil {
		return nil, err
	}
	user, err := o.user(q)
	if err != nil {
		return nil, err
	}
	report := whereReport{User: user.String(), Pools: []backends.Stay{}}
	report.Pools = append(report.Pools, o.router().Where(user)...)
	report.sessionsReport = o.everywhere(ctx, proxy.Selection{User: user.String()}, q)
	for _, one := range o.server.Blocked() {
		if one.User == report.User {
			report.Blocked = &one
		}
	}
	return report, nil
}

// moveLimit is how long a move waits for the user's sessions to end, which are told to.
const moveLimit = 30 * time.Second

// moveReport is the answer to POST /move.
type moveReport struct {
	User   string `json:"user"`
	Pool   string `json:"pool"`
	Member string `json:"member"`
	Ended  int    `json:"ended"` // sessions of his there were in the pool
}

func (o *operator) move(ctx context.Context, q url.Values) (any, error) {
	if err := only(q, "user", "member"); err != nil {
		return nil, err
	}
	user, err := o.user(q)
	if err != nil {
		return nil, err
	}
	router, member := o.router(), q.Get("member")
	if member == "" {
		return nil, badQuestion{errors.New("say which member of a pool")}
	}
	pool, err := router.PoolOf(member, user)
	if err != nil {
		return nil, err
	}
	report := moveReport{User: user.String(), Pool: pool, Member: member}
	for _, stay := range router.Where(user) {
		if stay.Pool == pool {
			report.Ended = stay.Held
		}
	}
	ctx, cancel := context.WithTimeout(ctx, moveLimit)
	defer cancel()
	if err := router.Move(ctx, pool, user, member); err != nil {
		return nil, fmt.Errorf("moving %s to %s: %w", user, member, err)
	}
	if err := o.changes.pass(func() error { return nil }); err != nil {
		return nil, err // who takes over may have heard of the former place
	}
	o.log.Info("moved", zap.String("user", report.User), zap.String("pool", pool), zap.String("backend", member))
	return report, nil
}
