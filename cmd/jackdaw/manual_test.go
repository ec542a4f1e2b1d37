package main

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestManual compares jackdaw(1) with the command line, both ways: every command has a heading of level 3, which is how it
// is called, and below it a term for each flag, whose description has the default.
func TestManual(t *testing.T) {
	page := readManual(t, "../../docs/man/jackdaw.1.md")
	root := rootCommand()
	root.InitDefaultCompletionCmd()
	compareTerms(t, "OPTIONS", page["# OPTIONS"], root)
	delete(page, "# OPTIONS")
	for _, cmd := range commandsOf(root) {
		heading := "### " + strings.TrimPrefix(cmd.Parent().CommandPath()+" "+cmd.Use, "jackdaw ")
		terms, ok := page[heading]
		if !ok {
			t.Errorf("jackdaw.1.md has no %q", heading)
			continue
		}
		if cmd.Name() != "completion" { // its commands, one for each shell, are cobra's
			compareTerms(t, heading, terms, cmd)
		}
		delete(page, heading)
	}
	for heading := range page {
		if strings.HasPrefix(heading, "### ") {
			t.Errorf("jackdaw.1.md has %q, which is no command", heading)
		}
	}
}

// commandsOf lists all commands below one, without cobra's "help".
func commandsOf(cmd *cobra.Command) (all []*cobra.Command) {
	for _, sub := range cmd.Commands() {
		all = append(all, sub)
		if sub.Name() != "completion" {
			all = append(all, commandsOf(sub)...)
		}
	}
	return all
}

// nothing are defaults of which nothing needs to be said.
var nothing = []string{"", "false", "[]", "0", "0s"}

// compareTerms compares what stands below a heading with the flags of a command. Only the root's --help is described.
func compareTerms(t *testing.T, heading string, terms map[string]string, cmd *cobra.Command) {
	if !cmd.HasParent() {
		cmd.InitDefaultHelpFlag()
		cmd.InitDefaultVersionFlag()
	}
	flags := make(map[string]string) // the default, by term
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) { flags[termOf(f)] = f.DefValue })
	for term, unset := range flags {
		switch description, ok := terms[term]; {
		case !ok:
			t.Errorf("jackdaw.1.md, %q: no description of %s", heading, term)
		case !slices.Contains(nothing, unset) && !strings.Contains(description, "Default: `"+unset+"`."):
			t.Errorf("jackdaw.1.md, %q: the default of %s is %s", heading, term, unset)
		}
	}
	for term := range maps.Keys(terms) {
		if _, ok := flags[term]; !ok {
			t.Errorf("jackdaw.1.md, %q: there is no flag %s; there are %q", heading, term, slices.Sorted(maps.Keys(flags)))
		}
	}
}

// termOf writes a flag as the page does: **-c**, **--config** *file*.
func termOf(f *pflag.Flag) string {
	term := "**--" + f.Name + "**"
	if f.Shorthand != "" {
		term = "**-" + f.Shorthand + "**, " + term
	}
	if argument, _ := pflag.UnquoteUsage(f); argument != "" {
		term += " *" + argument + "*"
	}
	return term
}

// readManual returns, for each heading of a page, its flags with what is said of them: a term is a line before one that
// begins with a colon. A heading or a flag that comes twice is an error.
func readManual(t *testing.T, file string) map[string]map[string]string {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page := make(map[string]map[string]string)
	heading, term, before := "", "", ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"):
			if heading, term = line, ""; page[heading] != nil {
				t.Errorf("%s: %q stands there twice", file, heading)
			}
			page[heading] = make(map[string]string)
		case strings.HasPrefix(line, ": ") && strings.HasPrefix(before, "**-"):
			if term = before; page[heading][term] != "" {
				t.Errorf("%s, %q: %s stands there twice", file, heading, term)
			}
			page[heading][term] = line
		case line == "":
			term = ""
		case term != "":
			page[heading][term] += " " + line
		}
		before = line
	}
	return page
}
