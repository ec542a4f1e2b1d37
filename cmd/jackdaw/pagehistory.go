package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"jackdaw/proxy"
)

// minutesKept is how far back the page looks.
const minutesKept = 60

// loginMinute says how logins of one minute ended.
type loginMinute map[string]uint64

// loginHistory remembers the logins of the last hour, as differences of counters. Safe for concurrent use.
type loginHistory struct {
	count func() loginMinute // all since the start

	mu      sync.Mutex
	minutes []loginMinute // that are over, the oldest first
	before  loginMinute   // what was counted when the last of them was over
}

func newLoginHistory(server *proxy.Server) *loginHistory {
	return &loginHistory{count: func() loginMinute {
		sum := make(loginMinute)
		for _, l := range server.Counts().Logins {
			sum[l.Outcome] += l.Count
		}
		return sum
	}}
}

// follow counts minutes until ctx ends.
func (h *loginHistory) follow(ctx context.Context) {
	minutes := time.NewTicker(time.Minute)
	defer minutes.Stop()
	for {
		select {
		case <-minutes.C:
			h.next()
		case <-ctx.Done():
			return
		}
	}
}

// next begins a minute.
func (h *loginHistory) next() {
	now := h.count()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.minutes = append(h.minutes, now.since(h.before))
	h.minutes = h.minutes[max(0, len(h.minutes)-minutesKept+1):]
	h.before = now
}

// since is what has been counted since another count.
func (m loginMinute) since(before loginMinute) loginMinute {
	difference := make(loginMinute)
	for outcome, n := range m {
		if n > before[outcome] {
			difference[outcome] = n - before[outcome]
		}
	}
	return difference
}

// list returns the minutes, the present one last.
func (h *loginHistory) list() []loginMinute {
	now := h.count()
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(slices.Clone(h.minutes), now.since(h.before))
}

// inherit goes on with the minutes of another process.
func (h *loginHistory) inherit(minutes []loginMinute) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.minutes = minutes
}

// loginOutcome is one of the words for the end of a login, with its look.
type loginOutcome struct {
	name, Text, Class string
	Count             uint64
}

// outcomesShown are from the bottom of the plot to its top.
var outcomesShown = []loginOutcome{
	{name: "ok", Text: "logged in", Class: "good"},
	{name: "denied", Text: "wrong password or unknown user", Class: "warn"},
	{name: "not_permitted", Text: "service not permitted", Class: "warn"},
	{name: "limit", Text: "limit", Class: "none"},
	{name: "in_use", Text: "mailbox in use", Class: "none"},
	{name: "too_soon", Text: "too soon", Class: "none"},
	{name: "cancelled", Text: "cancelled", Class: "none"},
	{name: "other", Text: "other", Class: "none"},
	{name: "unavailable", Text: "store or directory failed", Class: "bad"},
	{name: "broken", Text: "failed for good", Class: "bad"},
}

// plot is the history as the page draws it, 600 wide and 100 high.
type plot struct {
	Bars     []bar
	Outcomes []loginOutcome // that there were
	Most     uint64         // logins in a minute
	Failed   uint64
}

// bar is a minute.
type bar struct {
	X     int
	Title string
	Parts []part
}

// part are the logins of a minute that had the same end.
type part struct {
	Class, Y, Height string
	X                int
}

// Total is how many logins had an outcome.
func (p plot) Total(outcome string) uint64 {
	for _, o := range p.Outcomes {
		if o.name == outcome {
			return o.Count
		}
	}
	return 0
}

// draw makes the plot of minutes, the present one last.
func draw(minutes []loginMinute) plot {
	var p plot
	for _, m := range minutes {
		p.Most = max(p.Most, m.total())
	}
	for _, o := range outcomesShown {
		for _, m := range minutes {
			o.Count += m[o.name]
		}
		if o.Count > 0 {
			p.Outcomes = append(p.Outcomes, o)
		}
		if o.name != "ok" {
			p.Failed += o.Count
		}
	}
	for i, m := range minutes {
		p.Bars = append(p.Bars, m.bar(minutesKept-len(minutes)+i, p.Most))
	}
	return p
}

func (m loginMinute) total() (sum uint64) {
	for _, n := range m {
		sum += n
	}
	return sum
}

func (m loginMinute) bar(place int, most uint64) bar {
	const width, height = 10, 100.0
	b := bar{X: place * width, Title: "this minute"}
	if ago := minutesKept - 1 - place; ago > 0 {
		b.Title = fmt.Sprintf("%d min ago", ago)
	}
	top := height
	for _, o := range outcomesShown {
		n := m[o.name]
		if n == 0 {
			continue
		}
		high := height * float64(n) / float64(cmp.Or(most, 1))
		top -= high
		b.Parts = append(b.Parts, part{Class: o.Class, X: b.X + 1, Y: fmt.Sprintf("%.2f", top), Height: fmt.Sprintf("%.2f", high)})
		b.Title += fmt.Sprintf(", %d %s", n, o.Text)
	}
	return b
}
