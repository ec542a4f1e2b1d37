// Package thrift weighs the memory that the program takes against the work of its garbage collector. What GOGC says in the
// environment comes first; GOMEMLIMIT is the runtime's own and works beside.
package thrift

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// headroom is how much may become garbage before it is collected, in bytes, however little lives: logins make some 50 KB each,
	// and a collector that runs for a few of them takes a tenth of the processor.
	headroom = 8 << 20
	usual    = 100 // percent of what lives may become garbage
	tight    = 50
	most     = 1000
	rough    = 50
)

// When memory is given back to the system: nothing much goes on, and enough has gone on since the last time.
const (
	look  = 5 * time.Second
	quiet = 1 << 20 // bytes that may be allocated in that time, by some twenty logins
	pause = 15 * time.Second
	storm = 1 << 20 // bytes
)

// now is how the collector is set.
var now = struct {
	mu      sync.Mutex
	tight   int // for how many
	percent int
}{percent: usual}

// Tight has garbage collected more often until the end is called: where there is much of it, and little time matters.
func Tight() (end func()) {
	change(1)
	return sync.OnceFunc(func() { change(-1) })
}

func change(by int) {
	now.mu.Lock()
	now.tight += by
	now.mu.Unlock()
	set()
}

// set tells the collector.
func set() {
	if os.Getenv("GOGC") != "" {
		return
	}
	now.mu.Lock()
	defer now.mu.Unlock()
	percent := tight
	if now.tight == 0 {
		percent = percentFor(live())
	}
	if percent != now.percent {
		now.percent = percent
		debug.SetGCPercent(percent)
	}
}

// percentFor leaves headroom. It is rough, because whoever sets the collector stops the world; and where nothing is known of what
// lives, nothing has been collected yet.
func percentFor(live uint64) int {
	if live == 0 {
		return usual
	}
	return int(max(usual, min(headroom*100/live, most)/rough*rough))
}

// afterEach calls set after each collection, until it is over.
func afterEach(over *atomic.Bool) {
	if over.Load() {
		return
	}
	set()
	canary := new(struct{ _ *int })
	runtime.AddCleanup(canary, afterEach, over)
}

// live is how many bytes have survived the last collection.
func live() uint64 { return read("/gc/heap/live:bytes") }

// read returns one of the runtime's figures, 0 where it has none of that name.
func read(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}

// Keep gives memory back to the system when a storm has passed, until ctx ends.
func Keep(ctx context.Context) { keep(ctx, allocated) }

// allocated is how many bytes have been allocated so far.
func allocated() uint64 { return read("/gc/heap/allocs:bytes") }

func keep(ctx context.Context, allocated func() uint64) {
	var over atomic.Bool
	defer over.Store(true)
	afterEach(&over)
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	var before, freed uint64 // allocated by the last look, and when memory was given back last
	var at time.Time
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := allocated()
		if now-before < quiet && now-freed >= enough(live()) && time.Since(at) >= pause {
			debug.FreeOSMemory()
			freed, at = now, time.Now()
		}
		before = now
	}
}

// enough is how much must have been allocated for it to be worth while to go through all that lives.
func enough(live uint64) uint64 { return max(storm, live/16) }
