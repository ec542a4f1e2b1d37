// Package tally counts durations, cheaply enough to be done at every login.
package tally

import (
	"sync/atomic"
	"time"
)

// Bounds are the upper ends of what is counted together; what takes longer than the last one is counted, too.
var Bounds = [...]time.Duration{
	250 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
}

// Histogram counts durations by their length. The zero value is empty. Safe for concurrent use.
type Histogram struct {
	counts [len(Bounds) + 1]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

// Since counts the time that has passed since then.
func (h *Histogram) Since(began time.Time) { h.Add(time.Since(began)) }

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	i := 0
	for i < len(Bounds) && d > Bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Times are the durations counted at one moment.
type Times struct {
	Count uint64
	Sum   time.Duration
	// UpTo says for each bound how many took no longer.
	UpTo [len(Bounds)]uint64
}

// Read returns what has been counted. What is being counted meanwhile may be missing in a part of it, but Count and UpTo agree.
func (h *Histogram) Read() Times {
	t := Times{Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		t.Count += h.counts[i].Load()
		if i < len(Bounds) {
			t.UpTo[i] = t.Count
		}
	}
	return t
}
