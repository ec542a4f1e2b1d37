package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"jackdaw/tlsstore"
)

// missedReport is what certs --missed prints: the names that clients have asked for in vain, the most wanted first.
type missedReport struct {
	Missed []tlsstore.Missed `json:"missed"`
}

func (q certsQuestion) answerMissed(ctx context.Context, out io.Writer) error {
	var report missedReport
	if err := q.ask(ctx, "GET /missed", nil, &report); err != nil {
		return err
	}
	if q.asJSON {
		return report.writeJSON(out)
	}
	report.writeTable(out)
	return nil
}

func (r missedReport) writeJSON(out io.Writer) error { return printJSON(out, r) }

func (r missedReport) writeTable(out io.Writer) {
	if len(r.Missed) == 0 {
		return
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "TIMES\tNAME")
	for _, m := range r.Missed {
		times := fmt.Sprint(m.Count)
		if m.Over > 0 {
			times = fmt.Sprintf("%d-%d", m.Count-m.Over, m.Count)
		}
		fmt.Fprintln(table, tableRow(times, m.Name))
	}
}

// describeHandshakes says how handshakes began. Of those that have failed later, for whatever reason, it knows nothing.
func describeHandshakes(h tlsstore.Handshakes) string {
	text := fmt.Sprintf("handshakes: %d exact, %d wildcard, %d default, %d refused for their name, %d refused without one",
		h.Exact, h.Wildcard, h.Default, h.Unknown, h.Nameless)
	if h.Invalid > 0 {
		text += fmt.Sprintf("; %d asked for what is no name", h.Invalid)
	}
	return text
}
