package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/proxy"
	"jackdaw/tlsstore"
)

func checkCommand() *cobra.Command {
	var file, asUser string
	var online bool
	cmd := command("check -c FILE", "Check a configuration file", `Read a configuration file, load the certificates, resolve the names of the stores, and print what would be
served. No store and no directory is connected to, but with --online, which asks each of them once. Everything that is wrong
is printed, and the exit status is then 1. Root is also told what the user jackdaw may not read, if there is that user, and
which command mends it.`,
		func(cmd *cobra.Command) error { return check(cmd.Context(), cmd.OutOrStdout(), file, asUser, online) })
	configFlag(cmd, &file)
	cmd.Flags().StringVar(&asUser, "as-user", "", "try what this `user` may read, as whom the daemon is going to run")
	cmd.Flags().BoolVar(&online, "online", false, "ask every directory and store once")
	return cmd
}

func check(ctx context.Context, out io.Writer, file, asUser string, online bool) error {
	config, err := configs.Load(file)
	if err != nil {
		return err
	}
	clients, err := tlsstore.ReadClients(config.TLS)
	if err != nil {
		return err
	}
	keys, err := tlsstore.ReadTicketKeys(config.TLS.TicketKeys)
	if err != nil {
		return err
	}
	if err := proxy.CheckDenied(config.Limits); err != nil {
		return err
	}
	store := openCerts(config)
	defer store.Close()
	router, err := backends.PrepareRouter(config, nil, zap.NewNop())
	if err != nil {
		return err
	}
	defer router.Retire(nil)

	printListeners(out, config, store)
	fmt.Fprintln(out)
	printServed(out, file, store)
	printTerms(out, config.TLS, clients, keys)
	fmt.Fprintln(out)
	printRoutes(out, config)
	printSources(out, config)
	missing := printCoverage(out, config, store)
	fmt.Fprintln(out)
	unresolved := printBackends(ctx, out, router)
	hidden, err := hiddenFrom(asUser, file, config, store)
	if err != nil {
		return err
	}
	problems := slices.Concat(store.Problems(), noneAtAll(config, store), hidden, missing, orderProblems(ctx, config, store), unresolved)
	if online {
		silent, err := askOnline(ctx, out, config, router)
		if err != nil {
			return err
		}
		problems = append(problems, silent...)
	}
	if len(problems) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	printProblems(out, problems)
	return errReported
}

// printServed prints the certificates, unless there are so many that nobody sees what follows.
func printServed(out io.Writer, file string, store *tlsstore.Store) {
	const most = 50
	certs := store.Certificates()
	switch {
	case len(certs) > most:
		fmt.Fprintf(out, "%d certificates; jackdaw certs -c %s lists them\n", len(certs), file)
	case len(certs) > 0:
		printCerts(out, certs, time.Now())
	default:
		fmt.Fprintln(out, "no certificates")
	}
	printRSAOnly(out, certs)
}

// noneAtAll complains where clients must be shown a certificate, there is none, and none is ordered.
func noneAtAll(config *configs.Config, store *tlsstore.Store) []tlsstore.Problem {
	wanted := slices.ContainsFunc(config.Listen.Listeners, func(l configs.Listener) bool {
		return l.TLS != configs.TLSNone && l.PlaintextFrom.Empty()
	})
	if !wanted || len(config.ACME.Names) > 0 || len(store.Certificates()) > 0 {
		return nil
	}
	return []tlsstore.Problem{{Text: "no certificate: every client is refused"}}
}

func printListeners(out io.Writer, config *configs.Config, store *tlsstore.Store) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "SERVICE\tADDRESS\tLISTENER\tTLS\tWITHOUT SNI\tFROM\tPLAINTEXT FROM\tPROXY FROM")
	for _, l := range config.Listen.Listeners {
		unnamed := "refused"
		if c := store.Explain("", tlsstore.ListenerTLS{Service: l.Service, Default: l.Default}); l.TLS == configs.TLSNone {
			unnamed = "-"
		} else if c.How == tlsstore.Default {
			unnamed = c.Default
		}
		from := "everywhere"
		if !l.From.Empty() {
			from = networks(l.From)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			l.Service, l.Address, l.Name, l.TLS, unnamed, from, networks(l.PlaintextFrom), networks(l.ProxyFrom))
	}
}

func networks(n configs.Networks) string {
	var all []string
	for _, p := range n.Prefixes {
		all = append(all, p.String())
	}
	if n.Unix {
		all = append(all, "unix")
	}
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, " ")
}

func printRoutes(out io.Writer, config *configs.Config) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "LINE\tROUTE\tLEADS TO")
	for _, r := range config.Routes {
		fmt.Fprintf(table, "%d\t%s\t%s\n", r.Line, describeRoute(r), describeTarget(r))
	}
	if len(config.Routes) == 0 {
		fmt.Fprintf(table, "-\teverybody\t%s\n", config.Backends[0].Name)
	}
}

// describeRoute writes the conditions of a route.
func describeRoute(r configs.Route) string {
	var conditions []string
	add := func(key string, values []string) {
		if len(values) > 0 {
			conditions = append(conditions, key+" "+strings.Join(values, "|"))
		}
	}
	add("user", r.User)
	add("domain", r.Domain)
	add("sni", r.SNI)
	add("listener", r.Listener)
	var services []string
	for _, s := range r.Service {
		services = append(services, string(s))
	}
	add("service", services)
	if !r.Client.Empty() {
		add("client", []string{networks(r.Client)})
	}
	if len(conditions) == 0 {
		return "everybody"
	}
	return strings.Join(conditions, ", ")
}

func describeTarget(r configs.Route) string {
	if r.Lookup != "" {
		return strings.TrimSuffix("where "+r.Lookup+" says, or "+r.To, ", or ")
	}
	return cmp.Or(r.To, "refused: "+r.Refuse)
}

// printBackends resolves the stores' names, and returns what cannot be resolved.
func printBackends(ctx context.Context, out io.Writer, router *backends.Router) (unresolved []tlsstore.Problem) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "BACKEND\tPROTOCOL\tADDRESS\tRESOLVED\tTLS\tUSER AS\tLOGIN\tCLIENT INFO")
	for _, s := range router.Services() {
		for _, a := range s.Access.Addresses {
			resolved, err := resolve(ctx, a)
			if err != nil {
				unresolved = append(unresolved, tlsstore.Problem{Text: fmt.Sprintf("backend %s: %v", s.Backend, err)})
			}
			login := string(s.Access.Login)
			if s.Protocol == configs.LMTP {
				login = cmp.Or(s.Access.LoginUser, "-")
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
				s.Backend, s.Protocol, a, resolved, s.Access.TLS, s.Access.User, login, s.Access.ClientInfo)
		}
	}
	return unresolved
}

// resolve looks a host's name up; "-" stands where there is nothing to look up.
func resolve(ctx context.Context, a configs.Address) (string, error) {
	if a.Network == "unix" {
		return "-", nil
	}
	host, _, err := net.SplitHostPort(a.Address)
	if err != nil {
		return "-", err
	}
	if net.ParseIP(host) != nil {
		return "-", nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return "-", err
	}
	slices.Sort(found)
	return strings.Join(found, " "), nil
}
