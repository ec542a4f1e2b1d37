package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/proxy"
)

// ask has the daemon answer.
func (q question) ask(ctx context.Context) (*answer, error) {
	details := url.Values{}
	for name, value := range map[string]string{"service": q.service, "sni": q.sni, "user": q.user, "client": q.client, "listener": q.listener} {
		if value != "" {
			details.Set(name, value)
		}
	}
	a := new(answer)
	err := tell(ctx, q.socket, "GET /explain", details, a)
	if errors.Is(err, errNoDaemon) {
		err = fmt.Errorf("%w give -c FILE to read a configuration instead", err)
	}
	return a, err
}

// explain answers from what is served now.
func (o *operator) explain(ctx context.Context, q url.Values) (any, error) {
	if err := only(q, "service", "sni", "user", "client", "listener"); err != nil {
		return nil, err
	}
	asked := question{service: cmp.Or(q.Get("service"), string(configs.IMAPS)), sni: q.Get("sni"), user: q.Get("user"),
		client: cmp.Or(q.Get("client"), explainedClient), listener: q.Get("listener")}
	s := *o.scene()
	s.live = o
	a, err := asked.explain(ctx, &s)
	if err != nil {
		return nil, badQuestion{err}
	}
	return a, nil
}

// complete adds what only the running daemon knows of a user, and of the service of the store that he would be brought to.
func (o *operator) complete(a *answer, user backends.User, to *backends.Service) {
	router := o.router()
	for _, stay := range router.Where(user) {
		if stay.Member == a.Backend {
			a.Pool = fmt.Sprintf("%s: %s", stay.Pool, describeStay(stay, time.Now()))
		}
	}
	for _, b := range router.States() {
		if b.Name == a.Backend {
			a.State, a.Addresses = describeState(b), describeAddresses(b, to.Protocol)
		}
	}
	if problem := to.Problem(); problem != nil {
		a.fail("nobody is let in: " + problem.Error())
	}
}

// describeAddresses lists the ways to a service of a store, and says which of them are down, and why.
func describeAddresses(b backends.BackendState, protocol configs.Service) (ways []string) {
	for _, s := range b.Services {
		if s.Protocol != protocol {
			continue
		}
		for _, one := range s.Addresses {
			ways = append(ways, describeWay(one))
		}
	}
	return ways
}

func describeWay(one backends.AddressState) string {
	way := one.Address
	if one.Host != "" {
		way += " at " + one.Host
	}
	if one.Error != "" {
		return fmt.Sprintf("%s, %s: %s", way, one.State, one.Error)
	}
	return fmt.Sprintf("%s, %s", way, one.State)
}

// blockOf says that somebody is blocked; "" if nobody is of whom that holds.
func (o *operator) blockOf(which func(proxy.Block) bool) string {
	for _, one := range o.server.Blocked() {
		if which(one) {
			return fmt.Sprintf("%s is blocked until %s", describeBlocked(one), clock(one.Until, time.Now()))
		}
	}
	return ""
}
