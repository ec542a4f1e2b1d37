package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"jackdaw/integration/measure"
)

// report is what one run has found.
type report struct {
	Date       string    `json:"date"`
	Machine    string    `json:"machine"`
	Programs   []string  `json:"programs"`
	Contenders []string  `json:"contenders"` // columns: peers, then builds of jackdaw
	Rounds     int       `json:"rounds"`
	Seconds    float64   `json:"seconds"`
	Others     float64   `json:"others"` // the share of the machine that other programs took
	Rows       []*result `json:"rows"`

	peers int // of the contenders
}

// result is a row of the table.
type result struct {
	Key    string               `json:"key"`
	About  string               `json:"about"`
	Unit   string               `json:"unit"`
	Goals  []goal               `json:"goals,omitempty"`
	Values map[string][]float64 `json:"values"`         // by contenders, one for each round
	Busy   map[string][]float64 `json:"busy,omitempty"` // how much of its processor a contender has used
}

func (b *bench) newReport() *report {
	r := &report{Date: time.Now().UTC().Format(time.DateOnly), Machine: measure.Machine(b.cores.all),
		Rounds: b.rounds, Seconds: b.seconds}
	for _, c := range b.contenders {
		r.Contenders = append(r.Contenders, c.name)
		if c.peer() {
			r.peers++
			r.Programs = append(r.Programs, c.version(c.program))
		}
	}
	for _, m := range b.modes {
		for _, row := range m.rows {
			r.Rows = append(r.Rows, &result{Key: row.key, About: row.about, Unit: row.unit, Goals: row.goals,
				Values: make(map[string][]float64), Busy: make(map[string][]float64)})
		}
	}
	return r
}

// ours is the build of jackdaw that is judged: the first.
func (r *report) ours() string { return r.Contenders[r.peers] }

// write leaves all figures in a file.
func (r *report) write(file string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// add takes in what one trial has found.
func (r *report) add(name string, t *trial) {
	for _, row := range r.Rows {
		if value, ok := t.figures[row.Key]; ok {
			row.Values[name] = append(row.Values[name], value)
			if t.busy > 0 && row.Key == t.mode.name {
				row.Busy[name] = append(row.Busy[name], t.busy)
			}
		}
	}
}

// ratio is the median of the ratios within the rounds; NaN if there is none.
func (r *result) ratio(name, peer string) float64 {
	var ratios []float64
	for i, ours := range r.Values[name] {
		if theirs := r.Values[peer]; i < len(theirs) && theirs[i] != 0 {
			ratios = append(ratios, ours/theirs[i])
		}
	}
	return measure.Median(ratios)
}

// markdown is the table, with what must be known of it.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n", r.Date, strings.Join(slices.Concat([]string{r.Machine}, r.Programs), ", "))
	head := slices.Concat([]string{"work", "unit"}, r.Contenders, []string{"goal"})
	writeRow(&b, head)
	rule := slices.Repeat([]string{"---:"}, len(head))
	rule[0], rule[1], rule[len(rule)-1] = "---", "---", "---"
	writeRow(&b, rule)
	for _, row := range r.Rows {
		if len(row.Values) > 0 {
			writeRow(&b, r.cells(row))
		}
	}
	fmt.Fprintf(&b, "\nMedians of %d rounds, and of one for memory; in brackets the ratio to %s, the median of the ratios within the rounds. "+
		"Goals are for %s. Other programs took %.0f %% of the machine meanwhile.\n",
		r.Rounds, r.Contenders[0], r.ours(), 100*r.Others)
	if idle := r.idle(); len(idle) > 0 {
		fmt.Fprintf(&b, "\nWhere a contender's processor was not busy all the time, only the cost of the work means something, and it "+
			"has the cost of going to sleep in it: %s.\n", strings.Join(idle, "; "))
	}
	return b.String()
}

func writeRow(b *strings.Builder, cells []string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func (r *report) cells(row *result) []string {
	cells := []string{row.About, row.Unit}
	first := r.Contenders[0]
	for _, name := range r.Contenders {
		cell := measure.Number(measure.Median(row.Values[name]))
		switch ratio := row.ratio(name, first); {
		case cell == "":
			cell = "-"
		case name != first && !math.IsNaN(ratio):
			cell += fmt.Sprintf(" (%.2f)", ratio)
		}
		cells = append(cells, cell)
	}
	return append(cells, r.verdict(row))
}

// verdict lists the goals of a row, and says by how much they are missed, and behind whom jackdaw is.
func (r *report) verdict(row *result) string {
	ours := r.ours()
	var said []string
	judged := make(map[string]bool)
	for _, g := range row.Goals {
		got, text := row.ratio(ours, g.Peer), fmt.Sprintf("%.2f of %s", g.Most, g.Peer)
		if g.Peer == "" {
			got, text = measure.Median(row.Values[ours]), fmt.Sprintf("%g %s", g.Most, row.Unit)
		}
		judged[g.Peer] = true
		if got > g.Most+0.005 { // what two digits can show
			text = fmt.Sprintf("**%s: %.2f**", text, got)
		}
		said = append(said, text)
	}
	for _, name := range r.Contenders[:r.peers] {
		if ratio := row.ratio(ours, name); ratio > 1.005 && !judged[name] {
			said = append(said, fmt.Sprintf("**behind %s: %.2f**", name, ratio))
		}
	}
	return strings.Join(said, ", ")
}

// idle lists who had not enough to do.
func (r *report) idle() []string {
	var found []string
	for _, row := range r.Rows {
		var names []string
		for _, name := range r.Contenders {
			if share := measure.Median(row.Busy[name]); share < 0.9 {
				names = append(names, fmt.Sprintf("%s %.0f %%", name, 100*share))
			}
		}
		if len(names) > 0 {
			found = append(found, row.Key+" "+strings.Join(names, ", "))
		}
	}
	return found
}
