package proxy

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// surge gives Go one more thread than there are processors, while more clients come than can be served at once, and a while longer. All
// processors compute then, and established sessions come late: Go has who wakes up stand behind all who are to compute, be it hundreds.
// The system's scheduler prefers who has slept, and one thread is free for that as long as as many handshakes as processors compute. In
// calmer times a thread too many costs more than it brings. Safe for concurrent use.
type surge struct {
	mu    sync.Mutex
	until time.Time   // when it ends, if nobody has it go on
	over  *time.Timer // nil while there is no surge
}

// surgeLasts is how long a surge goes on when nobody waits any more: who was admitted logs in.
const surgeLasts = 2 * time.Second

// goOn begins a surge, or has it go on.
func (s *surge) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = time.Now().Add(surgeLasts)
	if s.over == nil {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
		s.over = time.AfterFunc(surgeLasts, s.end)
	}
}

// end ends a surge in its time. Go takes as many threads then as if it began now, and goes on to heed a limit of the container's where
// nobody has chosen a number.
func (s *surge) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rest := time.Until(s.until); rest > 0 {
		s.over.Reset(rest)
		return
	}
	s.over = nil
	if chosen, err := strconv.Atoi(os.Getenv("GOMAXPROCS")); err == nil && chosen > 0 {
		runtime.GOMAXPROCS(chosen)
	} else {
		runtime.SetDefaultGOMAXPROCS()
	}
}
