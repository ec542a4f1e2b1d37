//go:build !linux

package relay

// Loops would be event loops; sessions have goroutines here.
type Loops struct{}

// Spilled is always 0: what is not taken waits in the memory of a goroutine, which is used again.
func (*Loops) Spilled() int64 { return 0 }

// Close does nothing.
func (*Loops) Close() {}

func (*Loops) park(Session) Relay { return nil }
