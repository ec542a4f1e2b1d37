package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"jackdaw/backends"
	"jackdaw/backends/directories"
	"jackdaw/configs"
	"jackdaw/tlsstore"
)

// printSources prints where it is known who the users are and where they belong.
func printSources(out io.Writer, config *configs.Config) {
	if config.Auth.Verify != configs.VerifyBackend {
		by := string(config.Auth.Verify)
		if config.Auth.Socket != "" {
			by += " at " + config.Auth.Socket
		}
		fmt.Fprintf(out, "\npasswords: verified by %s\n", by)
		if tokens := config.Auth.Tokens; tokens.Given() {
			fmt.Fprintf(out, "tokens: verified by %s\n", cmp.Or(tokens.Introspection, tokens.Keys))
		}
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	if len(config.Directories) > 0 {
		fmt.Fprintln(table, "\nDIRECTORY\tKIND\tWHERE\tANSWERS HOLD\tUNKNOWN\tSTALE")
	}
	for _, name := range slices.Sorted(maps.Keys(config.Directories)) {
		d := config.Directories[name]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", name, d.Kind, whereIs(d), lifetime(d.Cache), lifetime(d.CacheMissing), lifetime(d.Stale))
	}
	if len(config.Pools) > 0 {
		fmt.Fprintln(table, "\nPOOL\tMEMBERS\tHASH\tSTICKY\tON FAILURE")
	}
	for _, p := range config.Pools {
		fmt.Fprintf(table, "%s\t%s\t%s\t%v\t%s\n", p.Name, strings.Join(p.Members, " "), p.Hash, p.Sticky, p.OnFailure)
	}
	if len(config.Pools) > 0 {
		fmt.Fprintln(table, "\nwarning: this frontend alone knows which member a user is on; with several frontends a user may be on two members at once")
	}
}

func lifetime(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return d.String()
}

// whereIs says where a directory is asked, and nothing secret.
func whereIs(d configs.Directory) string {
	var servers []string
	for _, server := range d.Servers {
		servers = append(servers, server.String())
	}
	return cmp.Or(d.Path, d.URL, strings.Join(d.URLs, " "), strings.Join(servers, " "), d.Driver)
}

// onlineLimit is how long check waits for directories and stores; a directory that fails is asked again for the time of
// secondThought, as it may have to learn everything first.
const (
	onlineLimit   = 15 * time.Second
	secondThought = 3 * time.Second
)

// askOnline asks every directory and store once, as no user, and returns what does not answer.
func askOnline(ctx context.Context, out io.Writer, config *configs.Config, router *backends.Router) (problems []tlsstore.Problem, err error) {
	if err := router.AskDirectories(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, onlineLimit)
	defer cancel()
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "\nASKED\tANSWER\tAFTER")
	note := func(what string, began time.Time, err error) {
		answer := "fine"
		if err != nil {
			answer = "none"
			problems = append(problems, tlsstore.Problem{Text: fmt.Sprintf("%s: %v", what, err)})
		}
		fmt.Fprintf(table, "%s\t%s\t%v\n", what, answer, time.Since(began).Round(time.Millisecond))
	}
	for _, name := range slices.Sorted(maps.Keys(config.Directories)) {
		began := time.Now()
		note("directory "+name, began, askDirectory(ctx, router, name))
	}
	if config.Auth.Verify == configs.VerifyDovecot || config.Auth.Tokens.Given() {
		began := time.Now()
		note("verifier", began, router.AskVerifier(ctx))
	}
	for _, s := range router.Services() {
		began := time.Now()
		note(fmt.Sprintf("%s of %s", s.Protocol, s.Backend), began, s.Ask(ctx))
	}
	return problems, nil
}

// askDirectory asks for a user whom nobody has.
func askDirectory(ctx context.Context, router *backends.Router, name string) error {
	for began := time.Now(); ; time.Sleep(secondThought / 20) {
		_, err := router.Look(ctx, name, backends.User{Local: backends.TestUser, Domain: "invalid"})
		if err == nil || errors.Is(err, directories.ErrNotFound) || errors.Is(err, directories.ErrDenied) {
			return nil
		}
		if time.Since(began) > secondThought || ctx.Err() != nil {
			return err
		}
	}
}
