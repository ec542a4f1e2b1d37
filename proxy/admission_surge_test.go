package proxy

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestSurge is in processes of its own, as there is one number of threads for all. An empty GOMAXPROCS says nothing.
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
	for range mostComing - 1 {
		h.accepted()
	}
	h.settle() // one more may come
	expect(usual)
	h.accepted()
	for range 3 { // nobody thinks that more are usual
		settled := make(chan bool)
		go func() { h.settle(); close(settled) }()
		expect(usual + 1)
		h.runs()
		<-settled
		time.Sleep(surgeLasts * 3 / 4)
		expect(usual + 1)
		h.accepted()
	}
	h.runs()
	time.Sleep(surgeLasts)
	expect(usual)
	runtime.GOMAXPROCS(usual + 2) // a container that is to be smaller in a moment
	for range mostComing - 1 {
		h.accepted()
	}
	expect(usual + 3)
	time.Sleep(surgeLasts)
	expect(usual)
}
