package proxy

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestSurge is in a process of its own, as there is one number of threads for all.
func TestSurge(t *testing.T) {
	const marker = "JACKDAW_TEST_SURGE"
	if os.Getenv(marker) != "" {
		synctest.Test(t, surges)
		return
	}
	for _, threads := range []string{"GOMAXPROCS=", "GOMAXPROCS=3"} {
		alone := exec.Command(os.Args[0], "-test.run=^TestSurge$")
		alone.Env = append(os.Environ(), marker+"=1", threads)
		if said, err := alone.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", threads, err, said)
		}
	}
}

func surges(t *testing.T) {
	usual := runtime.GOMAXPROCS(0)
	expect := func(want int) {
		t.Helper()
		if synctest.Wait(); runtime.GOMAXPROCS(0) != want {
			t.Errorf("%d threads, want %d", runtime.GOMAXPROCS(0), want)
		}
	}
	h := newLimits(nil).turns
	h.slots, h.free = 1, 1
	one, other := new(turn), new(turn)
	_ = h.await(t.Context(), one, false)
	expect(usual) // it has its turn at once
	for range 3 { // nobody thinks that more are usual
		late := make(chan error)
		go func() { late <- h.await(t.Context(), other, false) }()
		expect(2*usual + 1)
		h.leave()
		<-late
		time.Sleep(surgeLasts * 3 / 4)
		expect(2*usual + 1)
	}
	time.Sleep(surgeLasts)
	expect(usual)
}
