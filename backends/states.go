package backends

import (
	"cmp"
	"slices"
	"time"

	"jackdaw/configs"
)

// BackendState is what is known of a backend at one moment. Numbers of 0 for limits mean none.
type BackendState struct {
	Name     string         `json:"name"`
	Drained  bool           `json:"drained"`
	Slow     bool           `json:"slow"`     // it was away, and is let in on slowly
	Sessions int            `json:"sessions"` // of all processes
	Own      int            `json:"-"`        // of this one
	Logins   int            `json:"logins"`   // in progress
	Waiting  int            `json:"waiting"`  // for their turn to log in
	Most     LimitsState    `json:"most"`
	Services []ServiceState `json:"services"` // by name
}

// LimitsState are the limits of a backend.
type LimitsState struct {
	Sessions int `json:"sessions"`
	Logins   int `json:"logins"`
}

// ServiceState is what is known of one protocol of a backend.
type ServiceState struct {
	Protocol  configs.Service `json:"protocol"`
	Down      bool            `json:"down"`              // no address leads to the store
	Problem   string          `json:"problem,omitempty"` // why nobody can log in: it is down, or has failed the self-test
	Addresses []AddressState  `json:"addresses"`
	Logins    LoginCounts     `json:"logins"`
}

// AddressState is what is known of a way to the store.
type AddressState struct {
	Address string    `json:"address"`          // as it is configured
	Host    string    `json:"host,omitempty"`   // one of the addresses that it stands for, where that is a host's name
	State   string    `json:"state"`            // up, down, or unknown
	Since   time.Time `json:"since,omitzero"`   // when it went up or down
	Checked time.Time `json:"checked,omitzero"` // when it was gone last, by a look or a login
	Error   string    `json:"error,omitempty"`  // of the last time, if it failed
	Seconds float64   `json:"seconds"`          // that the last look took that went well; 0 if none did
}

// LoginCounts says what became of logins at one protocol of a backend, since the start.
type LoginCounts struct {
	OK        uint64 `json:"ok"`
	Refused   uint64 `json:"refused"`   // for the credentials
	Temporary uint64 `json:"temporary"` // everything else: the store could not be reached, or could not, or the client has left
}

// States tells of every backend that is known, by name. It asks nobody, and is cheap enough to be called every few seconds.
func (r *Router) States() []BackendState {
	var all []BackendState
	for _, s := range r.Services() {
		if len(all) == 0 || all[len(all)-1].Name != s.Backend {
			all = append(all, r.state(s.Backend))
		}
		backend := &all[len(all)-1]
		backend.Services = append(backend.Services, s.state())
	}
	return all
}

func (r *Router) state(backend string) BackendState {
	most, d := r.limits(backend), r.doors.of(backend)
	d.mu.Lock()
	defer d.mu.Unlock()
	return BackendState{Name: backend, Drained: d.drained, Slow: d.slow(time.Now()), Sessions: d.sessions.All(),
		Own: d.sessions.Own(), Logins: d.logins, Waiting: d.queue.Len(), Most: LimitsState{most.sessions, most.logins}}
}

func (s *Service) state() ServiceState {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := ServiceState{Protocol: s.Protocol, Down: s.allDown(), Logins: s.door.counted(s.Protocol)}
	if problem := s.problem(); problem != nil {
		state.Problem = problem.Error()
	}
	for _, address := range s.Access.Addresses {
		known := len(state.Addresses)
		for p, c := range s.paths {
			if p.address == address {
				state.Addresses = append(state.Addresses, c.state(p))
			}
		}
		ways := state.Addresses[known:]
		if len(ways) == 0 {
			state.Addresses = append(state.Addresses, new(condition).state(path{address, address}))
		}
		slices.SortFunc(ways, func(a, b AddressState) int { return cmp.Compare(a.Host, b.Host) })
	}
	return state
}

func (c *condition) state(p path) AddressState {
	state := AddressState{Address: p.address.String(), State: "up", Since: c.since, Checked: c.seen, Seconds: c.latency.Seconds()}
	switch {
	case c.seen.IsZero():
		state.State = "unknown"
	case c.down:
		state.State = "down"
	}
	if p.end != p.address {
		state.Host = p.end.String()
	}
	if c.err != nil {
		state.Error = c.err.Error()
	}
	return state
}
