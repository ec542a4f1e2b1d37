package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func kickCommand() *cobra.Command {
	var socket string
	var which selectionFlags
	cmd := &cobra.Command{
		Use:   "kick",
		Short: "End sessions",
		Long: `End the sessions for which all conditions hold, of which there must be one. Each client hears of it where it expects a line, and
nothing was under way for a second; after ten seconds its connection is closed in any case. Nobody is kept from coming back:
see block.`,
		Example: `  jackdaw kick --user alice@example.net
  jackdaw kick --client 192.0.2.0/24 --service submission`,
		Args: takes(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			details, err := which.details()
			if err == nil && len(details) == 0 {
				err = errors.New("say which sessions are to end")
			}
			if err != nil {
				return err
			}
			var report kickReport
			if err := tell(cmd.Context(), socket, "POST /kick", details, &report); err != nil {
				return problem{err}
			}
			fmt.Fprintln(cmd.OutOrStdout(), sessionsEnd(report.Kicked))
			warnMissing(cmd.ErrOrStderr(), report.Missing)
			if report.Kicked == 0 {
				return errReported
			}
			return nil
		},
	}
	which.add(cmd.Flags())
	socketFlag(cmd, &socket)
	return cmd
}

// sessionsEnd says how many end.
func sessionsEnd(n int) string {
	switch n {
	case 0:
		return "no such session"
	case 1:
		return "1 session ends"
	}
	return fmt.Sprintf("%d sessions end", n)
}
