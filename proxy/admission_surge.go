package proxy

import (
	"os"
	"runtime"
	"sync"
	"time"
)

// surge gives Go one more thread than there are processors, while more clients come than can be served at once, and a while longer. All
// processors compute then, and established sessions come late: Go has who wakes up stand behind all who are to compute, be it hundreds.
// The system's scheduler prefers who has slept, and one thread is free for that as long as as many handshakes as processors compute. In
// calmer times a thread too many costs more than it brings. Safe for concurrent use.
type surge struct {
	mu    sync.Mutex
	usual int // threads; 0 while there is no surge
	over  *time.Timer
}

// surgeLasts is how long a surge goes on when nobody waits any more: who was admitted logs in.
const surgeLasts = 2 * time.Second

// goOn begins a surge, or has it go on.
func (s *surge) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.usual > 0 {
		s.over.Reset(surgeLasts)
		return
	}
	s.usual = runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(s.usual + 1)
	s.over = time.AfterFunc(surgeLasts, s.end)
}

func (s *surge) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, fixed := os.LookupEnv("GOMAXPROCS"); fixed {
		runtime.GOMAXPROCS(s.usual)
	} else {
		runtime.SetDefaultGOMAXPROCS() // which goes on to heed a limit of the container's
	}
	s.usual = 0
}
