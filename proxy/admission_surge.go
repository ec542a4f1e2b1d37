package proxy

import (
	"os"
	"runtime"
	"sync"
	"time"
)

// surge gives Go more threads than there are processors, while handshakes wait and a while longer. With one for each, all of them compute,
// and established sessions come late: Go looks at the network every 10 ms then, and has who wakes up stand behind who computes. The
// system's scheduler knows how to prefer who has slept. In calmer times more threads cost more than they bring. Safe for concurrent use.
type surge struct {
	mu    sync.Mutex
	usual int // threads; 0 while there is no surge
	over  *time.Timer
}

// surgeLasts is how long a surge goes on when no handshake waits any more: what was admitted logs in.
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
	runtime.GOMAXPROCS(2*s.usual + 1)
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
