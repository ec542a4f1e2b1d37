package proxy

// LimitState tells how much of a limit is used.
type LimitState struct {
	Name    string // as jackdaw.toml(5) has it; "sessions.imap" is the limit of a service
	Limit   int    // 0 is none
	Now     int    // how many there are; of a limit per client or user, how many of them have as much as they may
	Refused int64  // since the start
}

// Limits lists the limits that hold, always in the same order.
func (s *Server) Limits() []LimitState {
	return []LimitState{{Name: "sessions", Now: s.sessions.count()}}
}
