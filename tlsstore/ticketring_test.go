package tlsstore

import (
	"slices"
	"testing"
	"time"
)

// A key is made each day, and forgotten after a week.
func TestOwnKeys(t *testing.T) {
	tickets := NewTickets()
	first := tickets.OwnKeys()[0]
	turn := func(after time.Duration) []OwnKey {
		tickets.mu.Lock()
		defer tickets.mu.Unlock()
		tickets.turn(first.Made.Add(after))
		return tickets.own
	}
	const day = 24 * time.Hour
	for _, step := range []struct {
		after time.Duration
		keys  int
		first bool // is there still
	}{
		{day - time.Second, 1, true},
		{day, 2, true},
		{day + time.Second, 2, true},
		{2 * day, 3, true},
		{7*day - time.Second, 4, true}, // it was quiet for days
		{7 * day, 3, false},
		{30 * day, 1, false},
	} {
		keys := turn(step.after)
		if len(keys) != step.keys || slices.Contains(keys, first) != step.first {
			t.Errorf("after %v there are %d keys, want %d; the first is there: %v", step.after, len(keys), step.keys, !step.first)
		}
	}
}
