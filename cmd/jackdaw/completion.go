package main

import (
	"github.com/spf13/cobra"

	"jackdaw/configs"
)

// levels are those of the log.
var levels = []string{"debug", "info", "warn", "error"}

// flagValues are what a shell offers for flags, whichever command has them; for others it offers files.
var flagValues = map[string]cobra.CompletionFunc{
	"service":  oneOf(configs.Services()),
	"state":    oneOf(sessionStates),
	"totals":   oneOf(fieldNames()),
	"log":      oneOf(levels),
	"tls":      oneOf([]string{"implicit", "starttls", "none"}),
	"backend":  knownBackends,
	"for":      cobra.NoFileCompletions,
	"over":     cobra.NoFileCompletions,
	"user":     cobra.NoFileCompletions,
	"client":   cobra.NoFileCompletions,
	"id":       cobra.NoFileCompletions,
	"sni":      cobra.NoFileCompletions,
	"listener": cobra.NoFileCompletions,
}

// argumentValues are what a shell offers for arguments, by command and position. No command takes a file.
var argumentValues = map[string][]cobra.CompletionFunc{
	"log":     {oneOf(levels)},
	"drain":   {knownBackends},
	"undrain": {knownBackends},
	"move":    {cobra.NoFileCompletions, knownBackends},
}

func oneOf[S ~string](all []S) cobra.CompletionFunc {
	words := make([]cobra.Completion, len(all))
	for i, one := range all {
		words[i] = string(one)
	}
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// knownBackends asks the daemon; where there is none, nothing is offered.
func knownBackends(cmd *cobra.Command, _ []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	var report statusReport
	if socket, err := cmd.Flags().GetString("socket"); err == nil && tell(cmd.Context(), socket, "GET /status", nil, &report) == nil {
		for _, b := range report.Backends {
			names = append(names, b.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// complete has a shell offer what a command can be given.
func complete(cmd *cobra.Command) {
	values := argumentValues[cmd.Name()]
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) < len(values) {
			return values[len(args)](cmd, args, begun)
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for name, offer := range flagValues {
		if cmd.Flags().Lookup(name) == nil {
			continue
		}
		if err := cmd.RegisterFlagCompletionFunc(name, offer); err != nil {
			panic(err) // the flag is there, and this is the only function for it
		}
	}
}
