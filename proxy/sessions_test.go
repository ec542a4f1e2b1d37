package proxy

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// many are sessions that note when they are told to end.
func many(n int) (all *sessions, ended *[]time.Duration) {
	all, ended = new(sessions), new([]time.Duration)
	begun := time.Now()
	for range n {
		all.enter(&session{cancel: func(error) { *ended = append(*ended, time.Since(begun)) }})
	}
	return all, ended
}

// Sessions end evenly over the time that there is for that.
func TestEndSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, ended := many(1000)
		all.end(t.Context(), 100*time.Second, errShutdown)
		if len(*ended) != 1000 || (*ended)[0] != 0 {
			t.Fatalf("%d have ended, the first after %v", len(*ended), (*ended)[0])
		}
		for i, after := range *ended {
			want := time.Duration(i) * 100 * time.Millisecond
			if early := want - after; early > shortSpell || early < 0 {
				t.Errorf("number %d ends after %v, want %v", i, after, want)
			}
		}
	})
}

// Without time all end at once; when somebody breaks it off the rest go on.
func TestEndAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all, ended := many(1000)
		all.end(t.Context(), 0, errShutdown)
		if len(*ended) != 1000 || (*ended)[999] != 0 {
			t.Errorf("%d have ended, the last after %v", len(*ended), (*ended)[len(*ended)-1])
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
		defer cancel()
		all, ended = many(1000)
		all.end(ctx, 100*time.Second, errShutdown)
		if n := len(*ended); n < 490 || n > 510 {
			t.Errorf("%d have ended in half of the time", n)
		}
	})
}
