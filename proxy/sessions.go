package proxy

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// sessions are all that have not ended, from accept on. Safe for concurrent use.
type sessions struct {
	mu   sync.Mutex
	all  map[*session]struct{}
	none chan struct{} // is closed when the last one has left; nil as long as nobody waits for that
}

func (all *sessions) enter(s *session) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.all == nil {
		all.all = make(map[*session]struct{})
	}
	all.all[s] = struct{}{}
}

func (all *sessions) leave(s *session) {
	all.mu.Lock()
	defer all.mu.Unlock()
	delete(all.all, s)
	all.tell()
}

// tell ends the waiting for the last one.
func (all *sessions) tell() {
	if all.none != nil && len(all.all) == 0 {
		close(all.none)
		all.none = nil
	}
}

func (all *sessions) count() int {
	all.mu.Lock()
	defer all.mu.Unlock()
	return len(all.all)
}

// shortSpell is what is not worth waiting for between the ends of two sessions.
const shortSpell = 10 * time.Millisecond

// end tells all sessions to end, evenly over a time, until ctx ends.
func (all *sessions) end(ctx context.Context, over time.Duration, cause error) {
	all.mu.Lock()
	list := slices.Collect(maps.Keys(all.all))
	all.mu.Unlock()
	begun := time.Now()
	for i, s := range list {
		due := time.Duration(float64(over) * float64(i) / float64(len(list)))
		if wait := due - time.Since(begun); wait > shortSpell {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
		}
		s.end(cause)
	}
}

// empty returns a channel that is closed when the last one has left. One may wait for that, at a time.
func (all *sessions) empty() <-chan struct{} {
	all.mu.Lock()
	defer all.mu.Unlock()
	none := make(chan struct{})
	all.none = none
	all.tell()
	return none
}
