package main

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"jackdaw/configs"
	"jackdaw/tlsstore"
)

// printTerms says under which terms handshakes are made: for all names, and for those that have a policy.
func printTerms(out io.Writer, t configs.TLS, clients tlsstore.ClientCAs, keys *tlsstore.TicketKeys) {
	if len(t.Policies) > 0 {
		fmt.Fprintln(out)
		printPolicies(out, t)
	}
	if len(clients) > 0 {
		fmt.Fprintln(out)
	}
	for _, file := range slices.Sorted(maps.Keys(clients)) {
		fmt.Fprintf(out, "client certificates: by %d authorities in %s, the user in %s\n",
			clients[file].Count(), file, t.ClientUser)
	}
	if keys != nil {
		fmt.Fprintf(out, "\nticket keys: %d in %s\n", keys.Count(), t.TicketKeys)
	}
	if keys != nil && keys.Exposed() {
		fmt.Fprintf(out, "warning: %s is open to others than its owner; chmod 600 is enough for jackdaw\n", t.TicketKeys)
	}
}

func printPolicies(out io.Writer, t configs.TLS) {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "POLICY FOR\tSERVICES\tFROM\tPREFERS\tCLIENT CA")
	row := func(names, services string, terms configs.Terms) {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", names, services, versionName(terms), terms.KeyType, cmp.Or(terms.ClientCA, "-"))
	}
	for _, p := range t.Policies {
		row(strings.Join(p.SNI, " "), cmp.Or(serviceList(p.Services), "all"), p.Terms)
	}
	row("all others", "all", t.Terms)
}

func versionName(t configs.Terms) string { return tls.VersionName(uint16(t.MinVersion)) }

func serviceList(services []configs.Service) string {
	var names []string
	for _, s := range services {
		names = append(names, string(s))
	}
	return strings.Join(names, " ")
}

// describePolicy says under which terms a handshake would be made that leads to this choice; nothing where all have the
// same.
func describePolicy(t configs.TLS, l configs.Listener, c tlsstore.Choice) []string {
	policy := t.Policy(shownName(c))
	terms := policy.Or(t.Terms)
	var lines []string
	switch {
	case len(t.Policies) == 0:
		return nil
	case policy == nil:
		lines = append(lines, "none: as [tls] says")
	default:
		lines = append(lines, "that of "+strings.Join(policy.SNI, ", "))
	}
	lines = append(lines, fmt.Sprintf("from %s, prefers %s", versionName(terms), terms.KeyType))
	if asksClients(t, l, c) {
		lines = append(lines, "client certificates by "+terms.ClientCA)
	}
	if policy != nil && policy.Services != nil {
		lines = append(lines, "only for "+serviceList(policy.Services))
	}
	return lines
}

// asksClients reports whether a client that meets this choice is asked for a certificate.
func asksClients(t configs.TLS, l configs.Listener, c tlsstore.Choice) bool {
	return l.Service != configs.LMTP && t.Policy(shownName(c)).Or(t.Terms).ClientCA != ""
}

// whyRefused says why a handshake with this choice would be refused.
func whyRefused(t configs.TLS, l configs.Listener, c tlsstore.Choice) string {
	name := shownName(c)
	if policy := t.Policy(name); name != "" && !policy.Serves(l.Service) {
		return fmt.Sprintf("the handshake is refused: the policy of %s serves %s only", name, serviceList(policy.Services))
	}
	return "the handshake is refused: no certificate for the name, and no default"
}

// shownName is the name whose policy decides: the client's, or that of the default.
func shownName(c tlsstore.Choice) string { return cmp.Or(c.Name, c.Default) }
