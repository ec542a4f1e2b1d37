package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// totalFields are what sessions can be counted by.
var totalFields = map[string]func(listedSession) string{
	"actor":       func(s listedSession) string { return s.Actor },
	"backend":     func(s listedSession) string { return s.Backend },
	"certificate": func(s listedSession) string { return s.Certificate },
	"client":      func(s listedSession) string { return s.Client },
	"listener":    func(s listedSession) string { return s.Listener },
	"mechanism":   func(s listedSession) string { return s.Mechanism },
	"process":     func(s listedSession) string { return strconv.Itoa(s.Process) },
	"proxy":       func(s listedSession) string { return s.Proxy },
	"service":     func(s listedSession) string { return s.Service },
	"sni":         func(s listedSession) string { return s.SNI },
	"state":       func(s listedSession) string { return string(s.State) },
	"tls":         func(s listedSession) string { return s.TLS },
	"user":        func(s listedSession) string { return s.User },
}

func fieldNames() []string { return slices.Sorted(maps.Keys(totalFields)) }

// total is what the sessions have together that have one value of a field.
type total struct {
	Value    string `json:"value"`
	Sessions int    `json:"sessions"`
	Sent     int64  `json:"sent"`
	Received int64  `json:"received"`
}

// totalsOf counts sessions by a field, the value that most have first.
func totalsOf(all []listedSession, field string) []total {
	by := make(map[string]*total)
	for _, s := range all {
		value := totalFields[field](s)
		if by[value] == nil {
			by[value] = &total{Value: value}
		}
		by[value].Sessions++
		by[value].Sent += s.Sent
		by[value].Received += s.Received
	}
	totals := []total{}
	for _, t := range by {
		totals = append(totals, *t)
	}
	slices.SortFunc(totals, func(a, b total) int {
		return cmp.Or(cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(a.Value, b.Value))
	})
	return totals
}

func printTotals(out io.Writer, totals []total, field string) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%s\tSESSIONS\tSENT\tRECEIVED\n", strings.ToUpper(field))
	sum := total{Value: "(all)"}
	for _, t := range totals {
		fmt.Fprintln(table, tableRow(orDash(t.Value), strconv.Itoa(t.Sessions), size(t.Sent), size(t.Received)))
		sum.Sessions += t.Sessions
		sum.Sent += t.Sent
		sum.Received += t.Received
	}
	fmt.Fprintln(table, tableRow(sum.Value, strconv.Itoa(sum.Sessions), size(sum.Sent), size(sum.Received)))
	return table.Flush()
}
