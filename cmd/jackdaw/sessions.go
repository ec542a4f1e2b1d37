package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"jackdaw/configs"
	"jackdaw/proxy"
)

// watchPause is how long --watch waits between two looks.
const watchPause = 2 * time.Second

// sessionsQuestion is what sessions is asked.
type sessionsQuestion struct {
	socket, totals string
	which          selectionFlags
	asJSON, watch  bool
}

// selectionFlags are conditions on sessions, as the daemon hears them.
type selectionFlags struct{ id, user, backend, service, client, state string }

func (f *selectionFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.id, "id", "", "only the session with this `id`, which the log has as \"session\"")
	flags.StringVar(&f.user, "user", "", "only sessions of this `user`, or in which that user acts for another")
	flags.StringVar(&f.backend, "backend", "", "only sessions on this `backend`")
	flags.StringVar(&f.service, "service", "", "only sessions of this `service`")
	flags.StringVar(&f.client, "client", "", "only sessions of clients in this `network`, or with this address")
	flags.StringVar(&f.state, "state", "", "only sessions in this `state`: handshake, login, relay or delivery")
}

// sessionStates are those of a session, from its beginning on.
var sessionStates = []proxy.SessionState{proxy.StateHandshake, proxy.StateLogin, proxy.StateRelay, proxy.StateDelivery}

// checkSelection refuses a service and a state that no session can have; "" is none.
func checkSelection(service, state string) error {
	if state != "" && !slices.Contains(sessionStates, proxy.SessionState(state)) {
		return fmt.Errorf("no state %q; there are %s", state, joined(sessionStates))
	}
	if service != "" {
		return checkService(service)
	}
	return nil
}

func checkService(name string) error {
	if !configs.Service(name).Known() {
		return fmt.Errorf("no service %q; there are %s", name, joined(configs.Services()))
	}
	return nil
}

// details are the conditions that were given. What is no network, service or state is refused before anybody is asked.
func (f *selectionFlags) details() (url.Values, error) {
	if err := checkSelection(f.service, f.state); err != nil {
		return nil, err
	}
	if f.client != "" {
		if _, err := parseNetwork(f.client); err != nil {
			return nil, fmt.Errorf("reading --client: %w", err)
		}
	}
	details := url.Values{}
	for name, value := range map[string]string{"id": f.id, "user": f.user, "backend": f.backend, "service": f.service, "client": f.client,
		"state": f.state} {
		if value != "" {
			details.Set(name, value)
		}
	}
	return details, nil
}

func joined[S ~string](all []S) string {
	words := make([]string, len(all))
	for i, one := range all {
		words[i] = string(one)
	}
	return strings.Join(words, ", ")
}

func sessionsCommand() *cobra.Command {
	var q sessionsQuestion
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List the sessions",
		Long: `List the sessions of the running daemon, from accept to end, and of processes that it has replaced: id, service,
state, client, user, backend, SNI, TLS, how long they are there and idle, and the bytes to the client and from it.`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			details, err := q.which.details()
			if _, ok := totalFields[q.totals]; err == nil && q.totals != "" && !ok {
				err = fmt.Errorf("no field %q to total by; there are %s", q.totals, strings.Join(fieldNames(), ", "))
			}
			if err != nil {
				return err
			}
			if err := q.answer(cmd, details); err != nil {
				return problem{err}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	q.which.add(flags)
	flags.StringVar(&q.totals, "totals", "", "count sessions and bytes by this `field`: "+strings.Join(fieldNames(), ", "))
	flags.BoolVar(&q.watch, "watch", false, "look again every two seconds, until interrupted")
	flags.BoolVar(&q.asJSON, "json", false, "print JSON")
	socketFlag(cmd, &q.socket)
	return cmd
}

// answer prints the sessions, with --watch again and again.
func (q sessionsQuestion) answer(cmd *cobra.Command, details url.Values) error {
	out := cmd.OutOrStdout()
	for {
		var report sessionsReport
		if err := tell(cmd.Context(), q.socket, "GET /sessions", details, &report); err != nil {
			return err
		}
		if q.watch && !q.asJSON {
			clearScreen(out)
		}
		if err := q.print(out, report, time.Now()); err != nil {
			return err
		}
		warnMissing(cmd.ErrOrStderr(), report.Missing)
		if !q.watch || !pause(cmd.Context(), watchPause) {
			return nil
		}
	}
}

// pause waits, and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (q sessionsQuestion) print(out io.Writer, report sessionsReport, now time.Time) error {
	switch {
	case q.totals != "" && q.asJSON:
		return printJSON(out, totalsOf(report.Sessions, q.totals))
	case q.totals != "":
		return printTotals(out, totalsOf(report.Sessions, q.totals), q.totals)
	case q.asJSON:
		return printJSON(out, report)
	}
	return printSessions(out, report.Sessions, now)
}

// printSessions prints a table, of which a thousand lines at a time are aligned.
func printSessions(out io.Writer, all []listedSession, now time.Time) error {
	const aligned = 1000
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "no sessions")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tSERVICE\tSTATE\tCLIENT\tUSER\tBACKEND\tSNI\tTLS\tFOR\tIDLE\tSENT\tRECEIVED")
	for i, s := range all {
		if i > 0 && i%aligned == 0 {
			table.Flush()
		}
		idle := "-"
		if !s.Moved.IsZero() {
			idle = brief(now.Sub(s.Moved))
		}
		fmt.Fprintln(table, tableRow(s.ID, s.Service, string(s.State), s.Client, orDash(asUser(s)), orDash(s.Backend), orDash(s.SNI),
			orDash(strings.TrimPrefix(s.TLS, "TLS ")), brief(now.Sub(s.Since)), idle, size(s.Sent), size(s.Received)))
	}
	return table.Flush()
}

// asUser says who is there, and as whom.
func asUser(s listedSession) string {
	if s.Actor != "" {
		return s.User + " by " + s.Actor
	}
	return s.User
}

func orDash(text string) string { return cmp.Or(text, "-") }

// brief writes a time as a table has room for it: two of its units at most.
func brief(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < day:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", d/day, int(d.Hours())%24)
}

// size writes a number of bytes as a table has room for it.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1000 {
		return fmt.Sprint(n)
	}
	value := float64(n)
	unit := -1
	for value >= 999.5 && unit < len(units)-1 {
		value /= 1000
		unit++
	}
	if value < 9.95 {
		return fmt.Sprintf("%.1f%c", value, units[unit])
	}
	return fmt.Sprintf("%.0f%c", value, units[unit])
}

// isTerminal reports whether somebody looks at out.
func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// clearScreen begins a terminal's screen anew, where out is one.
func clearScreen(out io.Writer) {
	if isTerminal(out) {
		fmt.Fprint(out, "\x1b[H\x1b[2J\x1b[3J")
	}
}
