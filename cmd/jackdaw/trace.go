package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
)

func traceCommand() *cobra.Command {
	var socket, file string
	limit := period(traceTime)
	var relay bool
	cmd := commandWith(cobra.MatchAll(takes(1, 1), networksOrUsers), "trace NETWORK|USER", "Write down what is said in sessions",
		`Write down what clients and the proxy (C, S), and the proxy and the stores (P, B) say to each other in the sessions of a user, or of the
clients of a network, until the time has passed or somebody interrupts it. Passwords, SASL responses and tokens are left out. With
--relay also what is said after the login, which is the user's mail.`,
		func(cmd *cobra.Command, args []string) error {
			details := whomToBlock(args[0])
			details.Set("for", limit.String())
			if relay {
				details.Set("relay", "true")
			}
			out := cmd.OutOrStdout()
			if file != "" {
				f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // what is there may be open to others
				if err != nil {
					return fmt.Errorf("making a file for the trace: %w", err)
				}
				defer f.Close()
				out = f
				fmt.Fprintf(cmd.ErrOrStderr(), "tracing %s into %s for %v\n", args[0], file, limit)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt)
			defer stop()
			return copyTrace(ctx, socket, details, out)
		})
	flags := cmd.Flags()
	flags.Var(&limit, "for", "trace for this `time`")
	flags.StringVar(&file, "to", "", "write into this `file`, which must not be there yet and is made for its owner alone; default: standard output")
	flags.BoolVar(&relay, "relay", false, "write down what is said after the login, too: the user's mail")
	socketFlag(cmd, &socket)
	return cmd
}

// copyTrace writes what the daemon says, as it says it. An interruption is a good end.
func copyTrace(ctx context.Context, socket string, details url.Values, out io.Writer) error {
	response, hangUp, err := openDaemon(ctx, socket, http.MethodGet, url.URL{Path: "/trace", RawQuery: details.Encode()})
	if err != nil {
		return err
	}
	defer hangUp()
	lines := bufio.NewReader(response.Body)
	for {
		line, err := lines.ReadString('\n')
		if _, wrong := io.WriteString(out, line); wrong != nil {
			return wrong
		}
		switch {
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("reading the trace of the daemon at %s: %w", socket, err)
		}
	}
}
