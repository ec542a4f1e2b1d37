package main

import (
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"jackdaw/backends"
)

func whereCommand() *cobra.Command {
	var socket string
	var asJSON bool
	cmd := commandWith(takes(1, 1), "where USER", "Tell where a user is", `Tell which member of a pool a user is on, or is kept for him, whether he is blocked, and list his sessions.
The exit status is 1 if he is nowhere. Where his next login would lead, and why, is what explain says.`,
		func(cmd *cobra.Command, args []string) error {
			var report whereReport
			if err := tell(cmd.Context(), socket, "GET /where", url.Values{"user": {args[0]}}, &report); err != nil {
				return err
			}
			err := printAnswer(cmd.OutOrStdout(), &report, asJSON)
			warnMissing(cmd.ErrOrStderr(), report.Missing)
			if err == nil && len(report.Sessions) == 0 && len(report.Pools) == 0 {
				err = errReported
			}
			return err
		})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	socketFlag(cmd, &socket)
	return cmd
}

func (r *whereReport) print(out io.Writer, now time.Time) error {
	rows := newRows(out)
	rows.row("user", r.User)
	for _, p := range r.Pools {
		rows.row("pool "+p.Pool, describeStay(p, now))
	}
	if r.Blocked != nil {
		rows.row("blocked", "until "+clock(r.Blocked.Until, now))
	}
	if err := rows.Flush(); err != nil {
		return err
	}
	return printSessions(out, r.Sessions, now)
}

// describeStay says where a user of a pool is.
func describeStay(p backends.Stay, now time.Time) string {
	if p.Held > 0 {
		return "on " + p.Member
	}
	return fmt.Sprintf("%s is kept for %s more", p.Member, brief(p.Until.Sub(now)))
}

// clock writes a moment that is near in short.
func clock(moment, now time.Time) string {
	moment = moment.Local()
	if moment.Sub(now).Abs() < 12*time.Hour {
		return moment.Format(time.TimeOnly)
	}
	return moment.Format(time.DateTime)
}

func moveCommand() *cobra.Command {
	var socket string
	cmd := commandWith(takes(2, 2), "move USER MEMBER", "Bring a user to another member of a pool", `End the sessions of a user in a pool, wait for that, and have his next login go to this member. He stays
there as long as he has a session or delivery, and for what [[pool]] sticky says after that.`,
		func(cmd *cobra.Command, args []string) error {
			var report moveReport
			details := url.Values{"user": {args[0]}, "member": {args[1]}}
			if err := tell(cmd.Context(), socket, "POST /move", details, &report); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is on %s of pool %s from now on; sessions that have ended: %d\n",
				report.User, report.Member, report.Pool, report.Ended)
			return nil
		})
	socketFlag(cmd, &socket)
	return cmd
}
