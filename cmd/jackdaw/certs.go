package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/tlsstore"
	"jackdaw/tlsstore/orders"
)

// certsQuestion is what certs is asked.
type certsQuestion struct {
	file, socket string
	filter       certsFilter
	missed       bool // other names than those of certificates
	asJSON       bool
}

func certsCommand() *cobra.Command {
	var q certsQuestion
	cmd := command("certs [-c FILE]", "List the certificates", `List the certificates of the running daemon, or with -c those that a configuration
file leads to: names, key, issuer, expiry, where they come from, which of several for one name is served, and what is wrong.
The exit status is 1 if anything that is listed needs hands: a problem, with --expiring any certificate, with --name alone
that there is none.`,
		func(cmd *cobra.Command) error {
			if q.missed {
				return q.answerMissed(cmd.Context(), cmd.OutOrStdout())
			}
			return q.answer(cmd.Context(), cmd.OutOrStdout())
		})
	flags := cmd.Flags()
	flags.StringVarP(&q.file, "config", "c", "", "configuration `file` to read instead of asking the daemon")
	socketFlag(cmd, &q.socket)
	flags.Var(&q.filter.Expiring, "expiring", "only certificates in use that expire within this `time`, such as 14d or 36h")
	flags.StringVar(&q.filter.Name, "name", "",
		"only certificates for this name, or with a name that this `pattern` fits, such as '*.example.net'")
	flags.BoolVar(&q.filter.Problems, "problems", false, "only certificates and files with something wrong")
	flags.BoolVar(&q.missed, "missed", false, "the names that most clients have asked the daemon for in vain")
	flags.BoolVar(&q.asJSON, "json", false, "print JSON")
	cmd.PreRunE = func(*cobra.Command, []string) error { return q.check(flags.Changed("socket")) }
	return cmd
}

// check refuses what makes no sense together.
func (q certsQuestion) check(socketGiven bool) error {
	switch {
	case q.file != "" && socketGiven:
		return errors.New("certs asks either a file or a daemon: give -c or --socket")
	case q.file != "" && q.missed:
		return errors.New("which names clients miss is known to the running daemon alone: leave out -c")
	case q.filter != certsFilter{} && q.missed:
		return errors.New("--missed is about names without certificates: leave out the other conditions")
	}
	return nil
}

func (q certsQuestion) answer(ctx context.Context, out io.Writer) error {
	report, err := q.report(ctx)
	if err != nil {
		return err
	}
	write := report.writeTable
	if q.asJSON {
		write = report.writeJSON
	}
	if err := write(out); err != nil {
		return err
	}
	if report.needsHands() {
		return errReported
	}
	return nil
}

// report reads the file, or asks the daemon.
func (q certsQuestion) report(ctx context.Context) (*certsReport, error) {
	if q.file == "" {
		report := &certsReport{filter: q.filter}
		return report, q.ask(ctx, "GET /certs", q.filter.query(), report)
	}
	config, err := configs.Load(q.file)
	if err != nil {
		return nil, err
	}
	store := openCerts(config)
	defer store.Close()
	report := reportCerts(store, q.filter)
	list, problems := readOrders(ctx, config, store)
	if !q.filter.certain() {
		report.Problems = append(report.Problems, problems...)
	}
	report.addOrders(list)
	return report, nil
}

// ask has the daemon fill in a report.
func (q certsQuestion) ask(ctx context.Context, question string, details url.Values, report any) error {
	err := tell(ctx, q.socket, question, details, report)
	if errors.Is(err, errNoDaemon) && !q.missed {
		return fmt.Errorf("%w give -c FILE to read a configuration instead", err)
	}
	return err
}

// openCerts reads the certificates without a word in the log: the caller reports what is wrong.
func openCerts(config *configs.Config) *tlsstore.Store {
	acme := acmeDirectory(config)
	if _, err := os.Stat(acme); errors.Is(err, fs.ErrNotExist) {
		acme = "" // the first order makes it
	}
	return tlsstore.Open(tlsstore.Options{
		TLS: config.TLS, Hostname: config.Hostname, ACME: acme, Tickets: tlsstore.NewTickets(), Log: zap.NewNop(), Thorough: true,
	})
}

// certsReport is what certs prints.
type certsReport struct {
	filter       certsFilter            // which has made it
	Certificates []tlsstore.Certificate `json:"certificates"`
	certsRest
}

// certsRest is what there is to say beside the certificates.
type certsRest struct {
	Problems   []tlsstore.Problem `json:"problems"`
	PassedOver []tlsstore.Problem `json:"passed_over,omitempty"`
	ACME       []orders.Status    `json:"acme,omitempty"`
	// Handshakes are those since the daemon has begun; nil if it was not asked.
	Handshakes *tlsstore.Handshakes `json:"handshakes,omitempty"`
}

// reportCerts tells of the certificates in the store that the filter asks for. What is wrong with files that hold none is told
// to those who do not ask for certain certificates.
func reportCerts(store *tlsstore.Store, filter certsFilter) *certsReport {
	wanted := filter.wanted(time.Now())
	report := &certsReport{filter: filter, certsRest: certsRest{Problems: []tlsstore.Problem{}}} // and not null, for programs
	report.Certificates = slices.DeleteFunc(store.Certificates(), func(c tlsstore.Certificate) bool { return !wanted(c) })
	files := make(map[string]bool) // of the certificates asked for
	if filter.certain() {
		for _, c := range report.Certificates {
			files[c.ChainFile], files[c.KeyFile] = true, true
		}
	}
	for _, p := range store.Problems() {
		if files[p.File] || !filter.certain() {
			report.Problems = append(report.Problems, p)
		}
	}
	if filter == (certsFilter{}) {
		report.PassedOver = store.PassedOver()
	}
	return report
}

// needsHands tells whether anything in the report is not as it should be.
func (r *certsReport) needsHands() bool {
	now := time.Now()
	switch {
	case len(r.Problems) > 0, slices.ContainsFunc(r.ACME, func(s orders.Status) bool { return orderNeedsHands(s, now) }):
		return true
	case len(r.Certificates) == 0:
		return r.filter.Name != "" && r.filter.expectant()
	}
	return r.filter.Expiring != 0
}

// writeJSON writes each certificate into a line of its own, one after the other: a hundred thousand of them are not taken into
// memory again.
func (r *certsReport) writeJSON(w io.Writer) error {
	out := bufio.NewWriter(w)
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	fmt.Fprintln(out, `{"certificates":[`)
	for i, c := range r.Certificates {
		if i > 0 {
			fmt.Fprint(out, ",")
		}
		if err := encoder.Encode(c); err != nil {
			return err
		}
	}
	rest, err := json.Marshal(r.certsRest)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "],\n%s\n", rest[len("{"):])
	return out.Flush()
}
