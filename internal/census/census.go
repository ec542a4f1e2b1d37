// Package census counts by keys, as limits want it: how many sessions a client has, or a user. A daemon may have several processes,
// and its limits are for all of them together, so each process tells the next ones what it has, and they count that beside their own.
package census

import "maps"

// Count counts by keys. What it keeps are the keys that are there, and it shrinks with them. The zero value is empty. Whoever uses it,
// or a Watch of it, holds a lock.
type Count[K comparable] struct {
	counts  map[K]int32 // of all processes
	peak    int         // how many keys the map has had at once
	all     int         // the sum of counts
	own     int         // this process's part of that
	others  map[int]map[K]int32
	watches map[*Watch[K]]struct{}
}

// Of returns how many there are of a key.
func (c *Count[K]) Of(key K) int { return int(c.counts[key]) }

// All returns how many there are of all keys together.
func (c *Count[K]) All() int { return c.all }

// Own returns how many of these this process has.
func (c *Count[K]) Own() int { return c.own }

// Full counts the keys of which there are as many as there may be; a limit of 0 is none.
func (c *Count[K]) Full(limit int) int {
	n := 0
	for _, count := range c.counts {
		if limit > 0 && int(count) >= limit {
			n++
		}
	}
	return n
}

// Add counts one more that this process has.
func (c *Count[K]) Add(key K) { c.count(key, 1) }

// Remove counts one less. It must have been added.
func (c *Count[K]) Remove(key K) { c.count(key, -1) }

func (c *Count[K]) count(key K, more int32) {
	c.own += int(more)
	c.change(key, more)
	for w := range c.watches {
		w.changed[key] = struct{}{}
		w.wake()
	}
}

// smallCount is a size at which nothing is to be gained.
const smallCount = 256

func (c *Count[K]) change(key K, more int32) {
	c.all += int(more)
	if c.counts == nil {
		c.counts = make(map[K]int32)
	}
	if c.counts[key] += more; c.counts[key] > 0 {
		c.peak = max(c.peak, len(c.counts))
		return
	}
	delete(c.counts, key)
	if c.peak < smallCount || len(c.counts) > c.peak/4 {
		return
	}
	// A map of Go keeps the memory of its best times.
	smaller := make(map[K]int32, len(c.counts))
	maps.Copy(smaller, c.counts)
	c.counts, c.peak = smaller, len(smaller)
}

// Learn counts what another process has of some keys: so many as it says, whatever it has said before.
func (c *Count[K]) Learn(process int, news map[K]int32) {
	if c.others == nil {
		c.others = make(map[int]map[K]int32)
	}
	known := c.others[process]
	if known == nil {
		known = make(map[K]int32)
		c.others[process] = known
	}
	for key, n := range news {
		n = max(n, 0)
		c.change(key, n-known[key])
		if known[key] = n; n == 0 {
			delete(known, key)
		}
	}
}

// Forget drops what another process had.
func (c *Count[K]) Forget(process int) {
	for key, n := range c.others[process] {
		c.change(key, -n)
	}
	delete(c.others, process)
}

// ownOf returns how many of a key this process has.
func (c *Count[K]) ownOf(key K) int32 {
	n := c.counts[key]
	for _, other := range c.others {
		n -= other[key]
	}
	return n
}

// Watch follows what this process has, for another one that learns it.
type Watch[K comparable] struct {
	count   *Count[K]
	wake    func()
	changed map[K]struct{} // since the last Take
}

// Watch begins to follow; all that there is, is new. wake is called under the caller's lock, at each change; it does not block.
func (c *Count[K]) Watch(wake func()) *Watch[K] {
	w := &Watch[K]{c, wake, make(map[K]struct{})}
	for key := range c.counts {
		if c.ownOf(key) > 0 {
			w.changed[key] = struct{}{}
		}
	}
	if c.watches == nil {
		c.watches = make(map[*Watch[K]]struct{})
	}
	c.watches[w] = struct{}{}
	return w
}

// Take returns how many there are of some keys that are new or have changed, at most so many keys. It is empty when nothing is left.
func (w *Watch[K]) Take(most int) map[K]int32 {
	news := make(map[K]int32, min(most, len(w.changed)))
	for key := range w.changed {
		if len(news) == most {
			return news
		}
		news[key] = w.count.ownOf(key)
		delete(w.changed, key)
	}
	w.changed = make(map[K]struct{}) // which may have been large
	return news
}

// Stop ends following.
func (w *Watch[K]) Stop() { delete(w.count.watches, w) }
