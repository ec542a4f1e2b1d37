package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
)

func drainCommand() *cobra.Command {
	var socket string
	var over period
	cmd := commandWith(takes(1, 1), "drain BACKEND", "Let no new users go to a backend", `Let nobody go to a backend who is not there already, nor mail for him. Other members of a pool take them; elsewhere they hear of a
temporary failure. With --over, the sessions that are there are ended, evenly over this time; users of a pool go to
other members then. A drain outlives reloads, upgrades and, where the configuration has a directory "state", restarts.`,
		func(cmd *cobra.Command, args []string) error {
			details := url.Values{"backend": {args[0]}}
			if cmd.Flags().Changed("over") {
				details.Set("over", over.String())
			}
			var report drainReport
			if err := tell(cmd.Context(), socket, "POST /drain", details, &report); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "%s is drained; sessions there: %d", report.Backend, report.Sessions)
			if details.Has("over") && report.Sessions > 0 {
				fmt.Fprintf(out, ", which end within %v", over)
			}
			fmt.Fprintln(out)
			warnMissing(cmd.ErrOrStderr(), report.Missing)
			return nil
		})
	cmd.Flags().Var(&over, "over", "end the sessions that are there, over this `time`")
	socketFlag(cmd, &socket)
	return cmd
}

func undrainCommand() *cobra.Command {
	var socket string
	cmd := commandWith(takes(1, 1), "undrain BACKEND", "Let users go to a backend again", `Let users go to a drained backend again. Sessions that were to end there go on.`,
		func(cmd *cobra.Command, args []string) error {
			var report drainReport
			if err := tell(cmd.Context(), socket, "POST /undrain", url.Values{"backend": {args[0]}}, &report); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is drained no longer; sessions there: %d\n", report.Backend, report.Sessions)
			return nil
		})
	socketFlag(cmd, &socket)
	return cmd
}
