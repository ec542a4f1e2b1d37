package main

import (
	"math"
	"strings"
	"testing"
)

// TestMarkdown: medians, medians of ratios, which are other numbers, goals that are met and missed, and who has no figure.
func TestMarkdown(t *testing.T) {
	r := &report{Date: "2026-01-02", Machine: "a machine", Programs: []string{"HAProxy 1"}, Rounds: 3, Others: 0.02, peers: 2,
		Contenders: []string{"haproxy", "nginx", "old", "new"},
		Rows: []*result{
			{Key: "a", About: "met", Unit: "µs", Goals: []goal{{"haproxy", 0.75}},
				Values: map[string][]float64{"haproxy": {100, 200, 400}, "nginx": {110, 220, 440}, "old": {60, 150, 160}, "new": {1, 2, 3}},
				Busy:   map[string][]float64{"haproxy": {0.5, 0.99, 0.98}, "old": {0.7, 0.8, 0.9}}},
			{Key: "b", About: "missed", Unit: "KiB", Goals: []goal{{"haproxy", 0.35}, {"", 6}, {"dovecot", 0.40}},
				Values: map[string][]float64{"haproxy": {10}, "nginx": {5}, "old": {7}}},
			{Key: "c", About: "nobody", Unit: "ms", Values: map[string][]float64{}},
		}}
	const want = `2026-01-02: a machine, HAProxy 1

| work | unit | haproxy | nginx | old | new | goal |
| --- | --- | ---: | ---: | ---: | ---: | --- |
| met | µs | 200 | 220 (1.10) | 150 (0.60) | 2.00 (0.01) | 0.75 of haproxy |
| missed | KiB | 10.0 | 5.00 (0.50) | 7.00 (0.70) | - | **0.35 of haproxy: 0.70**, **6 KiB: 7.00**, 0.40 of dovecot, **behind nginx: 1.40** |

Medians of 3 rounds, and of one for memory; in brackets the ratio to haproxy, the median of the ratios within the rounds. Goals are for old. ` +
		`Other programs took 2 % of the machine meanwhile.

Where a contender's processor was not busy all the time, only the cost of the work means something, and it has the cost of ` +
		`going to sleep in it: a old 80 %.
`
	if got := r.markdown(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if ratio := r.Rows[0].ratio("old", "dovecot"); !math.IsNaN(ratio) {
		t.Errorf("the ratio to nobody is %v", ratio)
	}
}

func TestReplaceBlock(t *testing.T) {
	text := "before\n" + blockBegin + "old\n" + blockEnd + "after\n"
	once, err := replaceBlock(text, "new\n")
	if want := "before\n" + blockBegin + "\nnew\n\n" + blockEnd + "after\n"; err != nil || once != want {
		t.Errorf("%q, %v; want %q", once, err, want)
	}
	if again, err := replaceBlock(once, "new\n"); err != nil || again != once {
		t.Errorf("again: %q, %v", again, err)
	}
	for _, bad := range []string{"", blockBegin, blockEnd + blockBegin} {
		if _, err := replaceBlock(bad, "new"); err == nil || !strings.Contains(err.Error(), "no place") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
