// Command jackdaw is an SNI-terminating mail proxy: see README.md.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"jackdaw/configs"
)

// Exit statuses.
const (
	exitGood    = 0
	exitProblem = 1
	exitUsage   = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// problem is an error of what a command was asked to look at or to do, as opposed to one of how it was called.
type problem struct{ error }

func (p problem) Unwrap() error { return p.error }

// errReported ends a command that has already printed what is wrong.
var errReported = problem{errors.New("problems found")}

func run(args []string, out, errOut io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	cmd, err := root.ExecuteC()
	switch {
	case err == nil:
		return exitGood
	case errors.Is(err, errReported):
		return exitProblem
	}
	if list, ok := errors.AsType[configs.Errors](err); ok {
		fmt.Fprintln(errOut, list) // each begins with its file and line, as editors know it
		return exitProblem
	}
	fmt.Fprintf(errOut, "jackdaw: %v\n", err)
	if _, ok := errors.AsType[problem](err); ok {
		return exitProblem
	}
	fmt.Fprintf(errOut, "usage: %s\nsee %s --help\n", cmd.UseLine(), cmd.CommandPath())
	return exitUsage
}

// aCommand refuses what is no command, and names those that may have been meant.
func aCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q for %q", args[0], root.CommandPath())
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
	}
	return err
}

// takes has a command take so many arguments, and says which one is too many, or what is missing.
func takes(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return fmt.Errorf("%s needs a %s", cmd.Name(), strings.Fields(cmd.Use)[1+len(args)])
		case len(args) <= most:
			return nil
		case cmd.Flags().Lookup("user") != nil:
			return fmt.Errorf("%s takes no argument %q; whom it is about is said by flags such as --user", cmd.Name(), args[most])
		}
		return fmt.Errorf("%s takes no argument %q", cmd.Name(), args[most])
	}
}

// rootCommand is the whole command line. docs/man/jackdaw.1.md describes it, and a test compares the two.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "jackdaw",
		Short:         "An SNI-terminating mail proxy",
		Version:       version(),
		Args:          aCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
	}
	root.AddCommand(serveCommand(), checkCommand(), certsCommand(), explainCommand(), probeCommand(), statusCommand(),
		sessionsCommand(), kickCommand(), whereCommand(), moveCommand(), blockCommand(), unblockCommand(), drainCommand(), undrainCommand(),
		traceCommand(), logCommand(), reloadCommand(), upgradeCommand(), demoCommand(), versionCommand())
	for _, cmd := range root.Commands() {
		complete(cmd)
	}
	return root
}

// command makes a subcommand without arguments. Its errors are problems.
func command(use, short, long string, action func(cmd *cobra.Command) error) *cobra.Command {
	return commandWith(takes(0, 0), use, short, long, func(cmd *cobra.Command, _ []string) error { return action(cmd) })
}

// commandWith makes a subcommand with arguments. Errors of its action are problems.
func commandWith(args cobra.PositionalArgs, use, short, long string, action func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := action(cmd, args); err != nil {
				return problem{err}
			}
			return nil
		},
	}
}

// configFlag adds -c, which is required: there is no file that jackdaw looks for by itself.
func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "configuration `file`")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag is there
	}
}

// printAnswer prints an answer of the daemon's as JSON, or as people read it.
func printAnswer(out io.Writer, answer interface {
	print(out io.Writer, now time.Time) error
}, asJSON bool) error {
	if asJSON {
		return printJSON(out, answer)
	}
	return answer.print(out, time.Now())
}

// printJSON writes what a program may read.
func printJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
