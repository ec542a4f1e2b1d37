package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestChooseModes(t *testing.T) {
	for list, want := range map[string]string{
		"noop":                 "noop-1 noop-64",
		"up-8,hs-rsa":          "up-8 hs-rsa",
		"growth,storm,login-i": "", // a part of a name ends before a hyphen
		"":                     "",
	} {
		chosen, err := chooseModes(list)
		var names []string
		for _, m := range chosen {
			names = append(names, m.name)
		}
		if got := strings.Join(names, " "); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", list, got, err, want)
		}
	}
}

// TestModes: each row has a name of its own, and the first is the mode's, by which it is known who was busy.
func TestModes(t *testing.T) {
	keys := make(map[string]bool)
	for _, m := range modes {
		if m.rows[0].key != m.name && m.name != "growth" {
			t.Errorf("%s has %s first", m.name, m.rows[0].key)
		}
		for _, r := range m.rows {
			if keys[r.key] {
				t.Errorf("two rows are %s", r.key)
			}
			keys[r.key] = true
			for _, g := range r.goals {
				if g.Peer != "" && !slices.Contains(peerNames(), g.Peer) {
					t.Errorf("%s has a goal against %s", r.key, g.Peer)
				}
			}
		}
	}
}

func TestChoose(t *testing.T) {
	jackdaw := t.TempDir()
	chosen, err := choose([]string{"old=" + jackdaw, jackdaw}, "none")
	if err != nil || len(chosen) != 2 || chosen[0].name != "old" || chosen[1].name != "jackdaw" || chosen[0].peer() {
		t.Errorf("%v, %v", chosen, err)
	}
	for _, tt := range []struct {
		builds []string
		only   string
		want   string
	}{
		{[]string{jackdaw, jackdaw}, "none", "two contenders"},
		{[]string{jackdaw + "/missing"}, "none", "no such file"},
		{nil, "stunnel", "there is no \"stunnel\""},
	} {
		if _, err := choose(tt.builds, tt.only); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, %q: %v, want %q", tt.builds, tt.only, err, tt.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	var took []time.Duration
	for i := range 100 {
		took = append(took, time.Duration(100-i)*time.Millisecond)
	}
	for p, want := range map[float64]float64{0: 1, 0.5: 50, 0.99: 99, 1: 100} {
		if got := percentile(took, p); got != want {
			t.Errorf("%v: %v, want %v", p, got, want)
		}
	}
}
