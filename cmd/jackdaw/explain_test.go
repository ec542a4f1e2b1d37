package main

import (
	"errors"
	"testing"
	"time"

	"jackdaw/backends"
	"jackdaw/backends/directories"
	"jackdaw/configs"
)

// A step says what a directory has answered, and how old that is.
func TestDescribeStep(t *testing.T) {
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	for want, step := range map[string]backends.Step{
		"decides; the directory says backend store1, after 12ms": {Answer: &directories.Answer{Backend: "store1"}, Took: 12 * time.Millisecond},
		"decides; the directory says backend store1, as of 20s ago": {
			Answer: &directories.Answer{Backend: "store1", Kept: ago(20 * time.Second)}},
		"decides; the directory says backend store1, as of 5m0s ago; it cannot be asked, for 1m0s now": {
			Answer: &directories.Answer{Backend: "store1", Kept: ago(5 * time.Minute), Down: ago(time.Minute)}},
		"passed over, the directory does not know the user, as of 2s ago": {
			Answer: &directories.Answer{Kept: ago(2 * time.Second)}, Err: directories.ErrNotFound},
		"connection refused, after 0s": {Answer: &directories.Answer{}, Err: errors.New("connection refused")},
	} {
		step.Route = configs.Route{Lookup: "accounts", Line: 7}
		if got := describeStep(step); got != "line 7: everybody -> where accounts says: "+want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}
