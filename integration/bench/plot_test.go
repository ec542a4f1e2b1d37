package main

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
)

// TestPlot: what is drawn is XML, lies within the panels, begins at zero, and leaves out who has no figure.
func TestPlot(t *testing.T) {
	r := &report{Contenders: []string{"haproxy", "jackdaw"}}
	if r.plot() != "" {
		t.Error("a plot of nothing")
	}
	for i, row := range growthMode().rows {
		r.Rows = append(r.Rows, &result{Key: row.key, Values: map[string][]float64{"jackdaw": {float64(8 * (i%5 + 1))}}})
	}
	plot := r.plot()
	for d := xml.NewDecoder(strings.NewReader(plot)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	// From 8 to 40, of 40, on a height of 220 above 260; five sizes on a width of 330 right of 50.
	const line = `<polyline points="83.0,216.0 149.0,172.0 215.0,128.0 281.0,84.0 347.0,40.0"`
	if strings.Count(plot, line) != 2 || strings.Count(plot, `<polyline points=""`) != 2 || !strings.Contains(plot, ">40</text>") {
		t.Error(plot)
	}
}

func TestRoundStep(t *testing.T) {
	for v, want := range map[float64]float64{0.7: 1, 1: 1, 1.1: 2, 4.4: 5, 6: 10, 130: 200} {
		if got := roundStep(v); got != want {
			t.Errorf("%v: %v, want %v", v, got, want)
		}
	}
}
