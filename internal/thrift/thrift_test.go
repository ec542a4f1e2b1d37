package thrift

import (
	"context"
	"math"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestPercentFor(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 1 << 19: 1000, 2 << 20: 400, 3 << 20: 250, 8 << 20: 100, 4 << 30: 100, math.MaxInt64: 100} {
		if got := percentFor(live); got != want {
			t.Errorf("for %d bytes %d, want %d", live, got, want)
		}
	}
}

// percent reads the collector's setting.
func percent() int {
	p := debug.SetGCPercent(100)
	debug.SetGCPercent(p)
	return p
}

func TestTight(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	a, b := Tight(), Tight()
	if percent() != tight {
		t.Error("it is", percent())
	}
	a()
	a()
	if percent() != tight {
		t.Error("one has ended twice, and it is", percent())
	}
	b()
	if percent() < usual {
		t.Error("afterwards it is", percent())
	}
	t.Setenv("GOGC", "80")
	debug.SetGCPercent(80)
	defer Tight()()
	if percent() != 80 {
		t.Error("in spite of GOGC it is", percent())
	}
}

// What is counted here is how often all is collected by force: once when a storm has passed.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer debug.SetGCPercent(debug.SetGCPercent(100))
		var allocated atomic.Uint64
		ctx, cancel := context.WithCancel(t.Context())
		var keeping sync.WaitGroup
		keeping.Go(func() { keep(ctx, allocated.Load) })
		forced := func() uint64 {
			synctest.Wait()
			return read("/gc/cycles/forced:gc-cycles")
		}
		before := forced()
		expect := func(what string, want uint64) {
			t.Helper()
			if got := forced() - before; got != want {
				t.Errorf("%s: %d times, want %d", what, got, want)
			}
		}
		time.Sleep(time.Minute)
		expect("nothing has happened", 0)
		for range 30 {
			allocated.Add(50 << 20)
			time.Sleep(look / 3)
		}
		expect("a storm rages", 0)
		time.Sleep(2 * look)
		expect("it has passed", 1)
		time.Sleep(time.Hour)
		expect("all is quiet", 1)
		for range 100 {
			allocated.Add(storm / 40)
			time.Sleep(look)
		}
		expect("few come", 3)
		cancel()
		keeping.Wait()
	})
}
