package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"jackdaw/backends"
)

func statusCommand() *cobra.Command {
	var socket string
	var asJSON bool
	cmd := command("status", "Say how the daemon is", `Say how the running daemon is: its version and processes, what it listens on, sessions by service, backends, limits
that are used, and who is blocked. The exit status is 1 if something is wrong with a backend.`,
		func(cmd *cobra.Command) error {
			var report statusReport
			if err := tell(cmd.Context(), socket, "GET /status", nil, &report); err != nil {
				return err
			}
			err := printAnswer(cmd.OutOrStdout(), &report, asJSON)
			warnMissing(cmd.ErrOrStderr(), report.Missing)
			if err == nil && report.troubled() {
				err = errReported
			}
			return err
		})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	socketFlag(cmd, &socket)
	return cmd
}

// troubled reports whether nobody can log in somewhere.
func (r *statusReport) troubled() bool {
	return slices.ContainsFunc(r.Backends, func(b backends.BackendState) bool {
		return slices.ContainsFunc(b.Services, func(s backends.ServiceState) bool { return s.Problem != "" })
	})
}

func (r *statusReport) print(out io.Writer, now time.Time) error {
	rows := newRows(out)
	rows.row("jackdaw", fmt.Sprintf("%s, process %d, for %s", r.Version, r.Process, brief(now.Sub(r.Since))))
	for _, former := range r.Former {
		rows.row("before", fmt.Sprintf("process %d, with %d sessions", former.Process, former.Sessions))
	}
	if !r.Log.Until.IsZero() {
		rows.row("log", fmt.Sprintf("%s until %s", r.Log.Level, clock(r.Log.Until, now)))
	}
	for _, one := range r.Listening {
		rows.row("listening", fmt.Sprintf("%s on %s", one.Service, one.Address))
	}
	for _, service := range slices.Sorted(maps.Keys(r.Sessions)) {
		rows.row("sessions", service+": "+describeCount(r.Sessions[service]))
	}
	for _, l := range r.Limits {
		if l.Limit > 0 && l.Now > 0 || l.Refused > 0 {
			rows.row("limit", fmt.Sprintf("%s: %d of %s, %d refused", l.Name, l.Now, most(l.Limit), l.Refused))
		}
	}
	for _, one := range r.Emptied {
		rows.row("emptied", fmt.Sprintf("%s until %s", one.Backend, clock(one.Until, now)))
	}
	for _, one := range r.Blocked {
		rows.row("blocked", fmt.Sprintf("%s until %s", describeBlocked(one), clock(one.Until, now)))
	}
	if err := rows.Flush(); err != nil {
		return err
	}
	return printBackendStates(out, r.Backends)
}

// most writes a limit.
func most(limit int) string {
	if limit == 0 {
		return "any"
	}
	return strconv.Itoa(limit)
}

func describeCount(count sessionCount) string {
	var parts []string
	sum := 0
	for _, state := range sessionStates {
		if n := count[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d in %s", n, state))
			sum += n
		}
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return fmt.Sprintf("%d, %s", sum, strings.Join(parts, ", "))
}

// printBackendStates prints a line for each, and below it what is wrong.
func printBackendStates(out io.Writer, all []backends.BackendState) error {
	if len(all) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nBACKEND\tSTATE\tSESSIONS\tLOGINS\tWAITING")
	for _, b := range all {
		fmt.Fprintln(table, tableRow(b.Name, describeState(b), of(b.Sessions, b.Most.Sessions), of(b.Logins, b.Most.Logins), strconv.Itoa(b.Waiting)))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, b := range all {
		for _, s := range b.Services {
			if s.Problem != "" {
				fmt.Fprintf(out, "problem: %s, %s: %s\n", b.Name, s.Protocol, strings.Map(printable, s.Problem))
				continue
			}
			for _, way := range s.Addresses {
				if way.Error != "" { // another one leads to the store
					fmt.Fprintf(out, "warning: %s, %s: %s\n", b.Name, s.Protocol, strings.Map(printable, describeWay(way)))
				}
			}
		}
	}
	return nil
}

// of writes how much there is, and of what.
func of(now, limit int) string {
	if limit == 0 {
		return strconv.Itoa(now)
	}
	return fmt.Sprintf("%d of %d", now, limit)
}

// describeState says in a word or two whether users can go to a backend.
func describeState(b backends.BackendState) string {
	down, broken := 0, 0
	for _, s := range b.Services {
		switch {
		case s.Down:
			down++
		case s.Problem != "":
			broken++
		}
	}
	state := "up"
	switch {
	case down > 0 && down == len(b.Services):
		state = "down"
	case down+broken > 0 && down+broken == len(b.Services):
		state = "unusable"
	case down+broken > 0:
		state = "partly up"
	case b.Slow:
		state = "up, let in slowly"
	}
	if b.Drained {
		state += ", drained"
	}
	return state
}
