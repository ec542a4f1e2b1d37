package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/tlsstore"
)

func certsCommand() *cobra.Command {
	var file string
	var asJSON bool
	cmd := command("certs -c FILE", "List the certificates", `List the certificates that the configuration file leads to: names, expiry, files, which of several for
one name is served, and what is wrong. The exit status is 1 if something needs hands.`,
		func(cmd *cobra.Command) error {
			config, err := configs.Load(file)
			if err != nil {
				return err
			}
			return reportCerts(cmd.OutOrStdout(), config, asJSON)
		})
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// openCerts reads the certificates without a word in the log: the caller reports what is wrong.
func openCerts(config *configs.Config) *tlsstore.Store {
	return tlsstore.Open(config.TLS, config.Hostname, tlsstore.NewTickets(), zap.NewNop())
}

func reportCerts(out io.Writer, config *configs.Config, asJSON bool) error {
	store := openCerts(config)
	defer store.Close()
	certs, problems := store.Certificates(), store.Problems()
	if asJSON {
		err := printJSON(out, struct {
			Certificates []tlsstore.Certificate `json:"certificates"`
			Problems     []tlsstore.Problem     `json:"problems"`
		}{certs, problems})
		if err != nil {
			return err
		}
	} else {
		printCerts(out, certs, time.Now())
		printProblems(out, problems)
	}
	if len(problems) > 0 {
		return errReported
	}
	return nil
}

func printCerts(out io.Writer, certs []tlsstore.Certificate, now time.Time) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "NAMES\tKEY\tEXPIRES\tCHAIN\tKEY FILE\tNOTE")
	for _, c := range certs {
		key := c.KeyFile
		if key == c.ChainFile {
			key = "same"
		}
		note := c.Reason
		if n := len(c.Copies); n > 0 {
			note = strings.TrimPrefix(fmt.Sprintf("%s; %d more files with it", note, n), "; ")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", strings.Join(c.Names, " "), c.KeyType, expiry(c.NotAfter, now), c.ChainFile, key, note)
	}
}

// expiry says when, and how soon that is.
func expiry(notAfter, now time.Time) string {
	days := int(notAfter.Sub(now).Hours() / 24)
	if now.After(notAfter) {
		return notAfter.Format(time.DateOnly) + " (expired)"
	}
	return fmt.Sprintf("%s (%d days)", notAfter.Format(time.DateOnly), days)
}

func printProblems(out io.Writer, problems []tlsstore.Problem) {
	for _, p := range problems {
		fmt.Fprintf(out, "problem: %s\n", p)
	}
}
