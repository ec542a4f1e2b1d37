package proxy

import (
	"jackdaw/configs"
	"jackdaw/internal/census"
)

// Holds says how many sessions of a process count for what is limited. Of what is left out nothing is said.
type Holds struct {
	Services map[configs.Service]int32 `json:",omitempty"`
	Clients  map[subnet]int32          `json:",omitempty"`
	Pending  map[subnet]int32          `json:",omitempty"` // those without a login, by their wide networks
	Users    map[string]int32          `json:",omitempty"` // canonical
}

// HoldsWatch follows what the sessions of this process hold, for another process. It is for one goroutine.
type HoldsWatch struct {
	limits   *limits
	services *census.Watch[configs.Service]
	clients  *census.Watch[subnet]
	pending  *census.Watch[subnet]
	users    *census.Watch[string]
}

// WatchHolds begins to follow: all that there is, is new. wake is called at each change, and does not block. Stop must be called.
func (s *Server) WatchHolds(wake func()) *HoldsWatch {
	l := s.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	return &HoldsWatch{l, l.services.Watch(wake), l.clients.Watch(wake), l.pending.Watch(wake), l.users.Watch(wake)}
}

// Take returns what is new or has changed, at most so many of each kind, and whether that is anything.
func (w *HoldsWatch) Take(most int) (news Holds, some bool) {
	w.limits.mu.Lock()
	defer w.limits.mu.Unlock()
	news = Holds{w.services.Take(most), w.clients.Take(most), w.pending.Take(most), w.users.Take(most)}
	return news, len(news.Services)+len(news.Clients)+len(news.Pending)+len(news.Users) > 0
}

// Stop ends following.
func (w *HoldsWatch) Stop() {
	w.limits.mu.Lock()
	defer w.limits.mu.Unlock()
	w.services.Stop()
	w.clients.Stop()
	w.pending.Stop()
	w.users.Stop()
}

// LearnHolds counts what the sessions of another process hold, beside those of this one.
func (s *Server) LearnHolds(process int, news Holds) {
	l := s.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	l.services.Learn(process, news.Services)
	l.clients.Learn(process, news.Clients)
	l.pending.Learn(process, news.Pending)
	l.users.Learn(process, news.Users)
}

// ForgetHolds drops what the sessions of another process held.
func (s *Server) ForgetHolds(process int) {
	l := s.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	l.services.Forget(process)
	l.clients.Forget(process)
	l.pending.Forget(process)
	l.users.Forget(process)
}
