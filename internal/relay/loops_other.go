//go:build !linux

package relay

// Loops would be event loops; sessions have goroutines here.
type Loops struct{}

// Close does nothing.
func (*Loops) Close() {}

func (*Loops) park(Session) Relay { return nil }
