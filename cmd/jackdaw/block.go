package main

import (
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"jackdaw/proxy"
)

func blockCommand() *cobra.Command {
	var socket string
	limit := period(blockTime)
	var asJSON bool
	cmd := commandWith(cobra.MatchAll(takes(0, 1), networksOrUsers), "block [NETWORK|USER]", "Keep a network or a user out for a time", `Keep the clients of a network, or of an address, or a user out for a time, and end the sessions that there are. A
blocked client gets no answer, and a blocked user hears what a wrong password would hear; mail for him is delivered. That outlives reloads, upgrades and,
where the configuration has a directory "state", restarts. Without an argument, list who is blocked.`,
		func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listBlocked(cmd, socket, asJSON)
			}
			details := whomToBlock(args[0])
			details.Set("for", limit.String())
			var report blockReport
			if err := tell(cmd.Context(), socket, "POST /block", details, &report); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s is blocked until %s", describeBlocked(report.Block), clock(report.Until, time.Now()))
			if report.Kicked > 0 {
				fmt.Fprintf(out, "; %s", sessionsEnd(report.Kicked))
			}
			fmt.Fprintln(out)
			warnMissing(cmd.ErrOrStderr(), report.Missing)
			return nil
		})
	cmd.Flags().Var(&limit, "for", "block for this `time`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	socketFlag(cmd, &socket)
	return cmd
}

// networksOrUsers refuses a mistyped network: taken for a user's name, it would keep nobody out.
func networksOrUsers(_ *cobra.Command, args []string) error {
	for _, name := range args {
		_, noNetwork := parseNetwork(name)
		if noNetwork != nil && looksLikeNetwork(name) {
			return noNetwork
		}
	}
	return nil
}

// looksLikeNetwork reports whether whoever writes this means no user.
func looksLikeNetwork(name string) bool {
	digitsAndDots := strings.Trim(name, "0123456789.") == "" && strings.Contains(name, ".")
	return digitsAndDots || !strings.Contains(name, "@") && strings.ContainsAny(name, "/:")
}

// whomToBlock tells networks and addresses from users: no user has such a name.
func whomToBlock(name string) url.Values {
	_, noNetwork := netip.ParsePrefix(name)
	_, noAddress := netip.ParseAddr(name)
	if noNetwork == nil || noAddress == nil {
		return url.Values{"network": {name}}
	}
	return url.Values{"user": {name}}
}

func listBlocked(cmd *cobra.Command, socket string, asJSON bool) error {
	var report blockedReport
	if err := tell(cmd.Context(), socket, "GET /blocked", nil, &report); err != nil {
		return err
	}
	return printAnswer(cmd.OutOrStdout(), &report, asJSON)
}

func (r *blockedReport) print(out io.Writer, now time.Time) error {
	if len(r.Blocked) == 0 {
		_, err := fmt.Fprintln(out, "nobody is blocked")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "BLOCKED\tSINCE\tUNTIL")
	for _, one := range r.Blocked {
		fmt.Fprintln(table, tableRow(describeBlocked(one), clock(one.Since, now), clock(one.Until, now)))
	}
	return table.Flush()
}

func unblockCommand() *cobra.Command {
	var socket string
	cmd := commandWith(cobra.MatchAll(takes(1, 1), networksOrUsers), "unblock NETWORK|USER", "Let a network or a user in again", `Let a network or a user in again, as it was blocked.`,
		func(cmd *cobra.Command, args []string) error {
			var one proxy.Block
			if err := tell(cmd.Context(), socket, "POST /unblock", whomToBlock(args[0]), &one); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is blocked no longer\n", describeBlocked(one))
			return nil
		})
	socketFlag(cmd, &socket)
	return cmd
}
