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
		there := slices.ContainsFunc(keys, func(k OwnKey) bool { return k.Key == first.Key })
		if len(keys) != step.keys || there != step.first {
			t.Errorf("after %v there are %d keys, want %d; the first is there: %v", step.after, len(keys), step.keys, !step.first)
		}
	}
}

// A key of a process whose clock was years ahead is a new one, and is not used for years.
func TestOwnKeysClock(t *testing.T) {
	tickets := NewTickets()
	now := time.Now()
	tickets.Inherit([]OwnKey{{Key: [32]byte{1}, Made: now.AddDate(3, 0, 0).Round(0)}, {Key: [32]byte{2}, Made: now.Add(-time.Hour).Round(0)}})
	if keys := tickets.OwnKeys(); len(keys) != 2 || time.Until(keys[0].Made) > 0 || time.Since(keys[1].Made) < time.Hour {
		t.Errorf("inherited are %v", keys)
	}
	tickets.mu.Lock()
	defer tickets.mu.Unlock()
	if tickets.turn(now.Add(25 * time.Hour)); len(tickets.own) != 3 {
		t.Errorf("after a day there are %d keys, want one more than 2", len(tickets.own))
	}
}
