package proxy

import "sync"

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

// end ends all sessions.
func (all *sessions) end(cause error) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for s := range all.all {
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
