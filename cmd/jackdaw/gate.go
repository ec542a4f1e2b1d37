package main

import "sync"

// gate is passed by whatever changes what an upgrade hands on, one after the other. What has passed is handed on, all else is refused.
// The zero value is open. Safe for concurrent use.
type gate struct {
	mu     sync.Mutex
	closed bool
}

// pass makes a change, which takes a moment only, or refuses it.
func (g *gate) pass(change func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errNotServing
	}
	return change()
}

// shut lets nothing pass any more, and returns when the changes that have passed are made.
func (g *gate) shut() { g.set(true) }

// open lets changes pass again.
func (g *gate) open() { g.set(false) }

func (g *gate) set(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = closed
}
