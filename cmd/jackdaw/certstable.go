package main

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"jackdaw/tlsstore"
)

// writeTable writes a line for each certificate, and behind them the rest. It is silent where it is good that there is nothing.
func (r *certsReport) writeTable(w io.Writer) error {
	out := bufio.NewWriter(w)
	switch {
	case len(r.Certificates) > 0:
		printCerts(out, r.Certificates, time.Now())
	case r.filter.expectant():
		fmt.Fprintln(out, "no certificates")
	}
	if len(r.ACME) > 0 {
		fmt.Fprintln(out)
		printOrders(out, r.ACME, time.Now())
	}
	if r.Handshakes != nil {
		fmt.Fprintln(out, describeHandshakes(*r.Handshakes))
	}
	printProblems(out, r.Problems)
	printPassedOver(out, r.PassedOver)
	return out.Flush()
}

// printCerts prints a table, of which a thousand lines at a time are aligned: nobody waits for the last, nor keeps them all.
func printCerts(out io.Writer, certs []tlsstore.Certificate, now time.Time) {
	const aligned = 1000
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "NAMES\tKEY\tISSUER\tEXPIRES\tFROM\tFILE\tNOTE")
	for i, c := range certs {
		if i > 0 && i%aligned == 0 {
			table.Flush()
		}
		fmt.Fprintln(table, tableRow(shorten(c.Names), c.KeyType, commonName(c.Issuer), expiry(c.NotAfter, now),
			string(c.Source), c.ChainFile, note(c)))
	}
}

// tableRow is a line of a table. What was read from files is not to move a terminal's cursor.
func tableRow(cells ...string) string {
	for i, cell := range cells {
		cells[i] = strings.Map(printable, cell)
	}
	return strings.Join(cells, "\t")
}

// shorten lists names as far as a table has room for them.
func shorten(names []string) string {
	const room = 40
	if len(names) == 0 {
		return "-"
	}
	shown := names[0]
	for i, name := range names[1:] {
		if len(shown)+len(", ")+len(name) > room {
			return fmt.Sprintf("%s and %d more", shown, len(names)-1-i)
		}
		shown += ", " + name
	}
	return shown
}

var commonNames = regexp.MustCompile(`(?:^|[,+])CN=((?:[^\\,+]|\\.)+)`)

// commonName is what people call an issuer: the common name in its distinguished name (RFC 2253), if there is one.
func commonName(issuer string) string {
	if found := commonNames.FindStringSubmatch(issuer); found != nil {
		return strings.ReplaceAll(found[1], `\`, "")
	}
	return issuer
}

// expiry says when, and how soon that is.
func expiry(notAfter, now time.Time) string {
	days := int(notAfter.Sub(now).Hours() / 24)
	if now.After(notAfter) {
		return notAfter.Format(time.DateOnly) + " (expired)"
	}
	return fmt.Sprintf("%s (%d days)", notAfter.Format(time.DateOnly), days)
}

// note says why a certificate is served or not, and where else it is.
func note(c tlsstore.Certificate) string {
	var notes []string
	if len(c.Problems) > 0 {
		notes = append(notes, "problem below")
	}
	if c.Reason != "" {
		notes = append(notes, c.Reason)
	}
	if n := len(c.Copies); n > 0 {
		notes = append(notes, more(n)+" with it")
	}
	return strings.Join(notes, "; ")
}

func more(files int) string {
	if files == 1 {
		return "1 more file"
	}
	return fmt.Sprintf("%d more files", files)
}

func printProblems(out io.Writer, problems []tlsstore.Problem) {
	for _, p := range problems {
		fmt.Fprintf(out, "problem: %s\n", strings.Map(printable, p.String()))
	}
}

// printPassedOver counts files by the reason why nothing in them matters: what an ACME client leaves beside each certificate
// comes in thousands.
func printPassedOver(out io.Writer, files []tlsstore.Problem) {
	byReason := make(map[string][]string)
	for _, f := range files {
		byReason[f.Text] = append(byReason[f.Text], f.File)
	}
	for _, reason := range slices.Sorted(maps.Keys(byReason)) {
		names := byReason[reason]
		fmt.Fprintf(out, "passed over: %s: %s", strings.Map(printable, names[0]), reason)
		if len(names) > 1 {
			fmt.Fprintf(out, ", as in %s", more(len(names)-1))
		}
		fmt.Fprintln(out)
	}
}
