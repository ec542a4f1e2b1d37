package census

import (
	"maps"
	"math/rand/v2"
	"testing"
)

// What is counted goes when it is gone, and so does the memory.
func TestCount(t *testing.T) {
	var c Count[int]
	for i := range 10_000 {
		c.Add(i)
		c.Add(i % 10)
	}
	if c.Of(3) != 1001 || c.Of(5000) != 1 || c.Of(-1) != 0 || c.All() != 20_000 || c.Full(1001) != 10 || c.Full(0) != 0 || c.peak != 10_000 {
		t.Error(c.Of(3), c.Of(5000), c.Of(-1), c.All(), c.Full(1001), c.peak)
	}
	for i := range 10_000 {
		c.Remove(i)
		c.Remove(i % 10)
	}
	if len(c.counts) != 0 || c.All() != 0 || c.peak >= smallCount {
		t.Errorf("%d are left, %d in all, in a map for %d", len(c.counts), c.All(), c.peak)
	}
}

// What another process has counts beside what this one has, as it says last, and goes with it.
func TestLearn(t *testing.T) {
	var c Count[string]
	c.Add("anna")
	c.Learn(7, map[string]int32{"anna": 2, "bert": 1})
	c.Learn(8, map[string]int32{"anna": 1, "carl": -5})
	if c.Of("anna") != 4 || c.Of("bert") != 1 || c.Of("carl") != 0 || c.All() != 5 || c.Own() != 1 {
		t.Error(c.Of("anna"), c.Of("bert"), c.Of("carl"), c.All(), c.Own())
	}
	c.Learn(7, map[string]int32{"anna": 1, "bert": 0})
	if c.Of("anna") != 3 || c.Of("bert") != 0 || len(c.counts) != 1 {
		t.Error(c.Of("anna"), c.Of("bert"), c.counts)
	}
	c.Forget(7)
	c.Forget(7)
	c.Forget(9)
	if c.Of("anna") != 2 || c.All() != 2 || c.Own() != 1 {
		t.Error(c.Of("anna"), c.All(), c.Own())
	}
	c.Remove("anna")
	c.Forget(8)
	if c.All() != 0 || len(c.counts) != 0 || len(c.others) != 0 {
		t.Error("there are left", c.counts, c.others)
	}
}

// Who follows hears of what this process has and not of what others have: at first of all, then of what has changed.
func TestWatch(t *testing.T) {
	var c Count[string]
	woken := 0
	c.Add("anna")
	c.Learn(7, map[string]int32{"anna": 2, "bert": 1})
	w := c.Watch(func() { woken++ })
	takes := func(want map[string]int32) {
		t.Helper()
		if got := w.Take(10); !maps.Equal(got, want) {
			t.Errorf("told %v, want %v", got, want)
		}
	}
	takes(map[string]int32{"anna": 1})
	takes(nil)
	c.Add("bert")
	c.Add("carl")
	c.Remove("carl")
	c.Learn(7, map[string]int32{"dora": 1})
	if woken != 3 {
		t.Errorf("woken %d times", woken)
	}
	takes(map[string]int32{"bert": 1, "carl": 0})
	c.Remove("anna")
	takes(map[string]int32{"anna": 0})
	w.Stop()
	c.Add("anna")
	takes(nil)
}

// Whatever happens, in whatever portions it is told, the next process comes to the same counts.
func TestFollow(t *testing.T) {
	var old, next Count[int]
	for range 1000 {
		old.Add(rand.N(300))
	}
	w := old.Watch(func() {})
	for range 500 {
		key := rand.N(300)
		if old.Of(key) > 0 && rand.N(2) == 0 {
			old.Remove(key)
		} else {
			old.Add(key)
		}
		next.Learn(1, w.Take(2))
	}
	for news := w.Take(7); len(news) > 0; news = w.Take(7) {
		next.Learn(1, news)
	}
	if !maps.Equal(old.counts, next.counts) || next.All() != old.All() || next.Own() != 0 {
		t.Errorf("%d are %d", old.All(), next.All())
	}
}
