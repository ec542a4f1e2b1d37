package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"go.uber.org/zap"

	"jackdaw/proxy"
)

// blockTime is how long somebody is blocked if nothing else is said.
const blockTime = time.Hour

// blockedReport is the answer to GET /blocked.
type blockedReport struct {
	Blocked []proxy.Block `json:"blocked"`
}

// blockReport is the answer to POST /block.
type blockReport struct {
	proxy.Block
	kickReport
}

func (o *operator) listBlocked(_ context.Context, q url.Values) (any, error) {
	return blockedReport{append([]proxy.Block{}, o.server.Blocked()...)}, only(q)
}

// blocked reads whom a question is about.
func (o *operator) blocked(q url.Values) (one proxy.Block, which proxy.Selection, err error) {
	switch {
	case q.Has("user") == q.Has("network"):
		err = badQuestion{errors.New("say which user, or which network")}
	case q.Has("user"):
		user, noUser := o.user(q)
		one.User, err = user.String(), noUser
		which.User = one.User
	default:
		one.Network, err = parseNetwork(q.Get("network"))
		if err != nil {
			err = badQuestion{err}
		}
		which.Client = one.Network
	}
	return one, which, err
}

// block keeps somebody out, and ends the sessions that there are.
func (o *operator) block(ctx context.Context, q url.Values) (any, error) {
	if err := only(q, "user", "network", "for"); err != nil {
		return nil, err
	}
	one, which, err := o.blocked(q)
	if err != nil {
		return nil, err
	}
	limit, err := duration(q, "for", blockTime)
	if err != nil {
		return nil, err
	}
	one.Since = time.Now().Round(0)
	one.Until = one.Since.Add(limit)
	if err := o.changes.pass(func() error { o.server.Block(one); return nil }); err != nil {
		return nil, err
	}
	o.log.Info("blocked", zap.String("who", describeBlocked(one)), zap.Time("until", one.Until))
	o.tellOlder(ctx)
	kick := url.Values{}
	if one.User != "" {
		kick.Set("user", q.Get("user"))
	} else {
		kick.Set("client", one.Network.String())
	}
	return blockReport{one, o.kickEverywhere(ctx, which, kick)}, nil
}

func (o *operator) unblock(ctx context.Context, q url.Values) (any, error) {
	if err := only(q, "user", "network"); err != nil {
		return nil, err
	}
	one, _, err := o.blocked(q)
	if err != nil {
		return nil, err
	}
	err = o.changes.pass(func() error {
		if !o.server.Unblock(one) {
			return fmt.Errorf("%s is not blocked", describeBlocked(one))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	o.log.Info("unblocked", zap.String("who", describeBlocked(one)))
	o.tellOlder(ctx)
	return one, nil
}

// keptOut is who is not to log in, and where nobody is who is not there already.
type keptOut struct {
	Blocked []proxy.Block
	Drained []string
}

// tellOlder has those processes that have gone before keep out whom this one does: a client that they have accepted may log in yet.
func (o *operator) tellOlder(ctx context.Context) {
	o.telling.Lock() // so that the last that they hear is the latest
	defer o.telling.Unlock()
	out := keptOut{o.server.Blocked(), o.router().Drained()}
	for _, problem := range o.older(ctx, func(ctx context.Context, g *generation) error {
		return g.ask(ctx, "POST /kept-out", out, nil)
	}) {
		o.log.Warn("a former process does not know whom to keep out", zap.String("error", problem))
	}
}

// learnKeptOut is told by the process that has taken over.
func (o *operator) learnKeptOut(_ context.Context, out keptOut) (string, error) {
	o.server.LearnBlocks(out.Blocked)
	o.router().LearnDrained(out.Drained)
	return "", nil
}

// describeBlocked names who is blocked.
func describeBlocked(one proxy.Block) string {
	if one.User != "" {
		return one.User
	}
	return one.Network.String()
}
