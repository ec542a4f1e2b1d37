package main

import (
	"context"
	"time"

	"jackdaw/backends"
	"jackdaw/proxy"
)

// tidings are what a process tells the newer ones of itself, a line of the answer to GET /life: what its sessions count for in limits,
// which are for all processes of a daemon together. Of what is left out nothing is said.
type tidings struct {
	Sessions proxy.Holds
	Presence backends.Presence
	More     bool   // follows at once
	Flow     []byte `json:",omitempty"` // what the process has counted, at its end
}

// Changes are collected for a moment, and told in portions: nobody is to wait long while they are read.
const (
	tidingsPause   = 100 * time.Millisecond
	tidingsPortion = 4096 // keys of each kind
)

// tell tells another process what our sessions hold, as it changes, and at the end of ctx what was counted.
func (d *daemon) tell(ctx context.Context, say func(tidings) error) {
	woken := make(chan struct{}, 1)
	wake := func() {
		select {
		case woken <- struct{}{}:
		default: // it is awake already
		}
	}
	sessions, presence := d.server.WatchHolds(wake), d.placer.Load().WatchPresence(wake)
	defer sessions.Stop()
	defer presence.Stop()
	sayChanges := func() error {
		for {
			var news tidings
			var some, more bool
			news.Sessions, some = sessions.Take(tidingsPortion)
			news.Presence, more = presence.Take(tidingsPortion)
			news.More = some || more
			if err := say(news); err != nil || !news.More {
				return err
			}
		}
	}
	for sayChanges() == nil {
		select {
		case <-woken:
		case <-ctx.Done():
			if sayChanges() == nil {
				_ = say(tidings{Flow: d.metrics.last()}) // who has gone does not want it
			}
			return
		}
		select {
		case <-time.After(tidingsPause):
		case <-ctx.Done():
		}
	}
}

// kin says what becomes of what processes of this daemon tell each other.
func (d *daemon) kin() kin {
	return kin{
		tell: d.tell,
		heard: func(pid int, news tidings) {
			d.server.LearnHolds(pid, news.Sessions)
			d.placer.Load().LearnPresence(pid, news.Presence)
			if news.Flow != nil {
				d.metrics.learn(pid, news.Flow)
			}
		},
		silent: func(pid int) {
			d.server.ForgetHolds(pid)
			d.placer.Load().ForgetPresence(pid)
		},
		gone: func(pid int) {
			d.placer.Load().Vacate(pid, "", "")
			d.metrics.forget(pid)
		},
	}
}
