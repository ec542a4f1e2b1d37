package tally

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// A duration is counted at the first bound that it does not exceed, and beyond the last one as well.
func TestHistogram(t *testing.T) {
	if !slices.IsSorted(Bounds[:]) {
		t.Errorf("the bounds are not sorted: %v", Bounds)
	}
	var h Histogram
	for _, d := range []time.Duration{0, Bounds[0], Bounds[0] + 1, Bounds[len(Bounds)-1] + 1} {
		h.Add(d)
	}
	got := h.Read()
	if got.Count != 4 || got.UpTo[0] != 2 || got.UpTo[1] != 3 || got.UpTo[len(Bounds)-1] != 3 {
		t.Errorf("got %+v", got)
	}
	if want := 2*Bounds[0] + Bounds[len(Bounds)-1] + 2; got.Sum != want {
		t.Errorf("the sum is %v, want %v", got.Sum, want)
	}
}

func TestHistogramConcurrently(t *testing.T) {
	var h Histogram
	var adding sync.WaitGroup
	for range 4 {
		adding.Go(func() {
			for range 1000 {
				h.Since(time.Now())
			}
		})
	}
	for range 100 {
		if got := h.Read(); got.UpTo[len(Bounds)-1] != got.Count {
			t.Errorf("%d within a minute, of %d", got.UpTo[len(Bounds)-1], got.Count)
		}
	}
	adding.Wait()
	if got := h.Read().Count; got != 4000 {
		t.Errorf("counted %d, want 4000", got)
	}
}
