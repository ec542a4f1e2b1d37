package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"jackdaw/configs"
	"jackdaw/tlsstore"
)

// expectation is a name, or a pattern for names, that the configuration reckons with clients asking for by SNI. A client who
// asks for a name that no certificate has counts as one without a name, so that what is said of the name never holds.
type expectation struct {
	name string   // "*" and {domain} stand for anything
	by   []string // where in the configuration
}

// expectations lists every name once, in the order of realms, routes and [acme].
func expectations(config *configs.Config) []*expectation {
	var all []*expectation
	known := make(map[string]*expectation)
	add := func(name, by string) {
		e := known[name]
		if e == nil {
			e = &expectation{name: name}
			known[name], all = e, append(all, e)
		}
		if !slices.Contains(e.by, by) {
			e.by = append(e.by, by)
		}
	}
	for _, pattern := range slices.Sorted(maps.Keys(config.Users.Realms)) {
		add(pattern, "realms")
	}
	for _, r := range config.Routes {
		for _, pattern := range r.SNI {
			add(pattern, fmt.Sprintf("line %d", r.Line))
		}
	}
	for _, name := range config.ACME.Names {
		add(name, "acme")
	}
	return all
}

// coverage knows which names have certificates, and which will have.
type coverage struct {
	config  *configs.Config
	store   *tlsstore.Store
	now     time.Time
	names   []string // of the certificates that are served, each once
	ordered []string // that ACME gets, at once or when a client asks
}

func newCoverage(config *configs.Config, store *tlsstore.Store, now time.Time) *coverage {
	c := &coverage{config: config, store: store, now: now}
	for _, certificate := range store.Certificates() {
		if certificate.Serving {
			c.names = append(c.names, certificate.Names...)
		}
	}
	slices.Sort(c.names)
	c.names = slices.Compact(c.names)
	for _, name := range config.ACME.Names {
		if !strings.Contains(name, "{domain}") {
			c.ordered = append(c.ordered, name)
			continue
		}
		for _, domain := range config.Domains() {
			c.ordered = append(c.ordered, strings.Replace(name, "{domain}", domain, 1))
		}
	}
	return c
}

// of says which certificates there are for what is expected, and whether there ought to be one and is none.
func (c *coverage) of(name string) (text string, missing bool) {
	pattern := strings.ReplaceAll(name, "{domain}", "*")
	if strings.Contains(pattern, "*") {
		text = c.ofPattern(pattern)
	} else {
		text = c.ofName(pattern)
	}
	switch {
	case text != "":
		return text, false
	case slices.ContainsFunc(c.ordered, func(name string) bool { return configs.Match(pattern, name) }):
		return "none yet, ACME gets it", false
	}
	return "none", true
}

// ofPattern finds the certificates' names that fit a pattern; "" stands for none.
func (c *coverage) ofPattern(pattern string) string {
	var fit []string
	for _, name := range c.names {
		if configs.Match(pattern, name) || name[0] == '*' && meets(pattern, name) {
			fit = append(fit, name)
		}
	}
	switch len(fit) {
	case 0:
		return ""
	case 1:
		return "1 name: " + fit[0]
	}
	return fmt.Sprintf("%d names: %s", len(fit), shorten(fit))
}

// meets tells whether some name fits both a pattern, where "*" is anything, and a certificate's, where it is one label.
func meets(pattern, name string) bool {
	switch {
	case pattern == "" || name == "":
		return strings.Trim(pattern, "*") == name
	case pattern[0] == '*':
		return meets(pattern[1:], name) || meets(pattern, name[1:])
	case name[0] == '*':
		return pattern[0] != '.' && (meets(pattern[1:], name) || meets(pattern[1:], name[1:]))
	}
	return pattern[0] == name[0] && meets(pattern[1:], name[1:])
}

// ofName finds the certificate that clients who ask for the name are shown; "" stands for none.
func (c *coverage) ofName(name string) string {
	choice := explainAnywhere(c.config, c.store, name)
	if choice.How != tlsstore.Exact && choice.How != tlsstore.Wildcard {
		return ""
	}
	best := choice.Certificates[0]
	if i := slices.IndexFunc(choice.Certificates, func(k tlsstore.Certificate) bool { return c.now.Before(k.NotAfter) }); i >= 0 {
		best = choice.Certificates[i]
	}
	text := fmt.Sprintf("%s, %s, %s", choice.How, expiry(best.NotAfter, c.now), best.ChainFile)
	if left := best.NotAfter.Sub(c.now); 0 < left && left < soon {
		text += ", expires soon"
	}
	return text
}

// explainAnywhere tells what clients are shown who ask for a name on a listener where it is served.
func explainAnywhere(config *configs.Config, store *tlsstore.Store, name string) tlsstore.Choice {
	var l tlsstore.ListenerTLS
	if policy := config.TLS.Policy(name); policy != nil && len(policy.Services) > 0 {
		l.Service = policy.Services[0]
	}
	return store.Explain(name, l)
}

// soon is when a certificate should have been renewed by those who renew them.
const soon = 14 * 24 * time.Hour

// printCoverage prints what the certificates are for, and returns what is missing.
func printCoverage(out io.Writer, config *configs.Config, store *tlsstore.Store) (missing []tlsstore.Problem) {
	expected := expectations(config)
	if len(expected) == 0 {
		return nil
	}
	coverage := newCoverage(config, store, time.Now())
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "\nCLIENTS ASK FOR\tWANTED BY\tCERTIFICATE")
	for _, e := range expected {
		by := strings.Join(e.by, ", ")
		text, none := coverage.of(e.name)
		fmt.Fprintln(table, tableRow(e.name, by, text))
		if none {
			missing = append(missing, tlsstore.Problem{Text: fmt.Sprintf("no certificate for %s (%s)", e.name, by)})
		}
	}
	return missing
}
