package main

import (
	"fmt"
	"math"
	"os"
	"strings"

	"jackdaw/integration/measure"
)

// The plot is two panels beside each other, in pixels.
const (
	panelWidth  = 400
	panelHeight = 300
	left, right = 50, 20
	top, bottom = 40, 40
	legend      = 24
)

// colours are those of the contenders, apart for colour-blind readers, too, and on white as on black.
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"}

// panel is one plot over the number of sessions.
type panel struct {
	title string
	key   func(size int) string // the row with the figures
}

var panels = []panel{
	{"memory of each session, KiB", memoryRow},
	{"CPU of another login, µs", loginRow},
}

// plot draws growth as SVG; nothing if it was not measured.
func (r *report) plot() string {
	var b strings.Builder
	for i, p := range panels {
		lines := r.lines(p)
		if lines == nil {
			return ""
		}
		fmt.Fprintf(&b, "<g transform=\"translate(%d 0)\">\n", i*panelWidth)
		drawPanel(&b, p.title, lines)
		b.WriteString("</g>\n")
	}
	for i, name := range r.Contenders {
		x := left + i*panelWidth*2/(len(r.Contenders)+1)
		y := panelHeight + legend/2
		fmt.Fprintf(&b, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"%s\" stroke-width=\"3\"/>\n", x, y-4, x+20, y-4, colour(i))
		fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\">%s</text>\n", x+26, y, name)
	}
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\" "+
		"fill=\"#777\">\n%s</svg>\n", len(panels)*panelWidth, panelHeight+legend, b.String())
}

func colour(i int) string { return colours[i%len(colours)] }

// lines are the figures of each contender by growthSizes, nil where one has none.
func (r *report) lines(p panel) [][]float64 {
	var lines [][]float64
	for _, name := range r.Contenders {
		var line []float64
		for _, size := range growthSizes {
			for _, row := range r.Rows {
				if row.Key == p.key(size) {
					line = append(line, measure.Median(row.Values[name]))
				}
			}
		}
		if len(line) < len(growthSizes) {
			return nil
		}
		lines = append(lines, line)
	}
	return lines
}

// drawPanel draws axes and lines. Sizes, which double, are equally far apart; what is measured begins at zero, so that what is
// level looks level.
func drawPanel(b *strings.Builder, title string, lines [][]float64) {
	step, high := scale(lines)
	x := func(i int) float64 { return left + (float64(i)+0.5)/float64(len(growthSizes))*(panelWidth-left-right) }
	y := func(v float64) float64 {
		return panelHeight - bottom - v/high*(panelHeight-top-bottom)
	}
	fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">%s</text>\n", left, top-18, title)
	for v := 0.0; v <= high; v += step {
		fmt.Fprintf(b, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#777\" stroke-opacity=\".3\"/>\n",
			left, y(v), panelWidth-right, y(v))
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", left-6, y(v)+4, v)
	}
	for i, size := range growthSizes {
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d</text>\n",
			x(i), panelHeight-bottom+16, size)
	}
	for i, line := range lines {
		var points []string
		for k, v := range line {
			if !math.IsNaN(v) {
				points = append(points, fmt.Sprintf("%.1f,%.1f", x(k), y(v)))
			}
		}
		fmt.Fprintf(b, "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n", strings.Join(points, " "), colour(i))
	}
}

// scale is an axis with room for all lines: the distance of its marks, and its end.
func scale(lines [][]float64) (step, end float64) {
	var high float64
	for _, line := range lines {
		for _, v := range line {
			if v > high { // NaN is not
				high = v
			}
		}
	}
	step = roundStep(high / 4)
	return step, step * math.Ceil(high/step)
}

// roundStep is the next larger of 1, 2 and 5 times a power of ten.
func roundStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, factor := range []float64{1, 2, 5} {
		if factor*power >= v {
			return factor * power
		}
	}
	return 10 * power
}

// drawInto writes the plot into a file, if growth was measured.
func (r *report) drawInto(file string) error {
	if plot := r.plot(); plot != "" {
		return os.WriteFile(file, []byte(plot), 0o644)
	}
	return nil
}
