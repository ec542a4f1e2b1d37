package main

import (
	"context"
	"iter"
	"net/url"
	"slices"
	"strings"
	"sync"

	"jackdaw/proxy"
)

// newestShown is how many sessions an overview has.
const newestShown = 200

// overview is what there is to see of many sessions at once.
type overview struct {
	Total    int                     `json:"total"`
	States   map[string]sessionCount `json:"states"`   // by service
	Backends map[string]int          `json:"backends"` // sessions in the relay there
	Found    int                     `json:"found"`    // of those that are searched for
	Newest   []listedSession         `json:"newest"`   // of these, the newest first
}

// overviewOf looks at sessions that come the oldest first, and searches. It keeps no more of them than it shows.
func overviewOf(all iter.Seq[listedSession], query string) overview {
	o := overview{States: make(map[string]sessionCount), Backends: make(map[string]int)}
	query = strings.ToLower(strings.TrimSpace(query))
	for one := range all {
		o.count(one)
		if !matches(&one.SessionInfo, query) {
			continue
		}
		if o.Found++; len(o.Newest) < newestShown {
			o.Newest = append(o.Newest, one)
		} else {
			o.Newest[(o.Found-1)%newestShown] = one
		}
	}
	o.cut()
	return o
}

func (o *overview) count(one listedSession) {
	o.Total++
	if o.States[one.Service] == nil {
		o.States[one.Service] = make(sessionCount)
	}
	o.States[one.Service][one.State]++
	if one.State == proxy.StateRelay {
		o.Backends[one.Backend]++
	}
}

// cut sorts the sessions, and drops what is too much.
func (o *overview) cut() {
	slices.SortStableFunc(o.Newest, func(a, b listedSession) int { return b.Since.Compare(a.Since) })
	o.Newest = o.Newest[:min(len(o.Newest), newestShown)]
}

// add adds what another process has.
func (o *overview) add(other overview) {
	o.Total += other.Total
	o.Found += other.Found
	for service, states := range other.States {
		for state, n := range states {
			if o.States[service] == nil {
				o.States[service] = make(sessionCount)
			}
			o.States[service][state] += n
		}
	}
	for backend, n := range other.Backends {
		o.Backends[backend] += n
	}
	o.Newest = append(o.Newest, other.Newest...)
	o.cut()
}

// matches reports whether a session is one of those that are searched for, with a text in lower case.
func matches(s *proxy.SessionInfo, query string) bool {
	if query == "" {
		return true
	}
	for _, field := range [...]string{
		s.ID, s.Service, s.Listener, s.Client, s.Proxy, s.SNI, s.User, s.Actor, s.Backend, s.Mechanism, string(s.State),
	} {
		if strings.Contains(strings.ToLower(field), query) {
			return true
		}
	}
	return false
}

func (o *operator) ownOverview(_ context.Context, q url.Values) (any, error) {
	if err := only(q, "q"); err != nil {
		return nil, err
	}
	return overviewOf(o.chosen(proxy.Selection{}), q.Get("q")), nil
}

// look gives an overview of all processes, tells each of the older ones' own to heard, and says who is missing.
func (o *operator) look(ctx context.Context, query string, heard func(pid int, its overview)) (all overview, missing []string) {
	all = overviewOf(o.chosen(proxy.Selection{}), query)
	var mu sync.Mutex
	missing = o.older(ctx, func(ctx context.Context, g *generation) error {
		var its overview
		if err := g.ask(ctx, questionOf("GET /overview", url.Values{"q": {query}}), nil, &its); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		all.add(its)
		heard(g.pid, its)
		return nil
	})
	return all, missing
}
