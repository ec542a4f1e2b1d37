package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

func logCommand() *cobra.Command {
	var socket string
	limit := period(logTime)
	cmd := commandWith(takes(1, 1), "log LEVEL", "Log more or less for a while", `Have the daemon log debug, info, warn or error and above for a while. Then what the configuration says
holds again.`,
		func(cmd *cobra.Command, args []string) error {
			var report logReport
			details := url.Values{"level": {args[0]}, "for": {limit.String()}}
			if err := tell(cmd.Context(), socket, "POST /log", details, &report); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "logging at level %s until %s\n", report.Level, clock(report.Until, time.Now()))
			warnMissing(cmd.ErrOrStderr(), report.Missing)
			return nil
		})
	cmd.Flags().Var(&limit, "for", "log so for this `time`")
	socketFlag(cmd, &socket)
	return cmd
}
