package main

import (
	"fmt"
	"io"
	"math"
	"strings"

	"jackdaw/integration/measure"
)

// figures are what one trial has found, by the lines of the table.
type figures map[string]float64

// The lines of the table. MB are 1,000,000 bytes.
const (
	startTime  = "start to first handshake, s"
	startCPU   = "- CPU by then, s"
	restCPU    = "- CPU by the time of rest, s"
	restShare  = "- CPU all the time, % of a core"
	restRSS    = "RSS at rest, MB"
	restPSS    = "PSS at rest, MB"
	restPeak   = "- highest RSS by then, MB"
	watches    = "inotify watches"
	hotCPU     = "CPU per handshake, one name, µs"
	coldCPU    = "CPU per handshake, new names, µs"
	renewTime  = "new file to new certificate, s"
	renewCPU   = "- CPU for it, s"
	renewPeak  = "- highest RSS after renewals, MB"
	toldTime   = "Runtime API to new certificate, s"
	toldCPU    = "- CPU for the API, s"
	reloadTime = "reload to new certificate, s"
	reloadCPU  = "- CPU for the reload, s"
	reloadPeak = "- RSS of both processes, MB"
)

var lines = []string{
	startTime, startCPU, restCPU, restShare, restRSS, restPSS, restPeak, watches, hotCPU, coldCPU,
	renewTime, renewCPU, renewPeak, toldTime, toldCPU, reloadTime, reloadCPU, reloadPeak,
}

func megabytes(n int64) float64 { return float64(n) / 1e6 }

// results are the figures of each contender by rounds; nil where it did not take part.
type results map[string][]figures

// print writes a table in Markdown: a column for each contender with the median of its rounds. Behind jackdaw's stands its
// ratio to HAProxy, which is the median of the ratios within the rounds.
func (r results) print(w io.Writer, count int, contenders []contender) {
	cells := []string{fmt.Sprintf("%d certificates", count)}
	rule := []string{strings.Repeat("-", 36)}
	for _, c := range contenders {
		cells, rule = append(cells, c.name), append(rule, "---:")
		if c.name == "jackdaw" && r["haproxy"] != nil {
			cells, rule = append(cells, "/ haproxy"), append(rule, "---:")
		}
	}
	printRow(w, cells)
	printRow(w, rule)
	for _, line := range lines {
		if cells := r.row(line, contenders); cells != nil {
			printRow(w, append([]string{line}, cells...))
		}
	}
	fmt.Fprintln(w)
}

func printRow(w io.Writer, cells []string) {
	fmt.Fprintf(w, "| %-36s |", cells[0])
	for _, cell := range cells[1:] {
		fmt.Fprintf(w, " %9s |", cell)
	}
	fmt.Fprintln(w)
}

// row has the cells of one line, or nil if nobody has a figure for it.
func (r results) row(line string, contenders []contender) []string {
	var cells []string
	var some bool
	for _, c := range contenders {
		values := r.values(c.name, line)
		some = some || len(values) > 0
		cells = append(cells, measure.Number(measure.Median(values)))
		if c.name == "jackdaw" && r["haproxy"] != nil {
			cells = append(cells, measure.Number(measure.Median(r.ratios(line))))
		}
	}
	if !some {
		return nil
	}
	return cells
}

// values lists the figures that a contender has for a line.
func (r results) values(name, line string) []float64 {
	var values []float64
	for _, f := range r[name] {
		if v, ok := f[line]; ok {
			values = append(values, v)
		}
	}
	return values
}

// ratios lists jackdaw's figures divided by HAProxy's of the same round.
func (r results) ratios(line string) []float64 {
	var ratios []float64
	for round, ours := range r["jackdaw"] {
		theirs := r["haproxy"][round]
		if a, b := ours[line], theirs[line]; a > 0 && b > 0 && !math.IsInf(b, 0) {
			ratios = append(ratios, a/b)
		}
	}
	return ratios
}
