package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"jackdaw/internal/devca"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"jackdaw": main})
}

// TestScripts runs the command line as a person would. Besides testscript's own there are the commands
//
//	certificate DIR NAME...   makes a certificate for the names, with its key; expired if DIR begins with "expired", and for
//	                          ten days if it begins with "soon"
//	pem DIR FILE              writes a certificate and its key into one file
//	stores                    starts the demo's stores and sets $NORTH_IMAP, $SOUTH_POP3 and so on
//	expand FILE               replaces $VARIABLES in a file
//	server VAR FILE CERT [UNIX]   starts a server that answers as the file says, and sets $VAR to its address; CERT is the
//	                          directory of its certificate, behind "implicit:" if TLS begins with the first byte
//	[!] await COMMAND...      runs a command until it succeeds, or with ! until it fails
//	hangup                    sends SIGHUP to all that was started with &
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"certificate": makeCertificate,
			"pem":         joinPair,
			"stores":      makeStores,
			"expand":      expandFile,
			"server":      makeServer,
			"await":       awaitCommand,
			"hangup":      hangUp,
		},
	})
}

func makeCertificate(ts *testscript.TestScript, _ bool, args []string) {
	ca, err := devca.New()
	ts.Check(err)
	options := devca.Options{Names: args[1:]}
	switch {
	case strings.HasPrefix(args[0], "expired"):
		options.NotAfter = time.Now().Add(-time.Hour)
	case strings.HasPrefix(args[0], "soon"):
		options.NotAfter = time.Now().AddDate(0, 0, 10)
	}
	leaf, err := ca.Issue(options)
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(leaf.Write(dir, filepath.Base(dir)))
}

func joinPair(ts *testscript.TestScript, _ bool, args []string) {
	base := filepath.Join(args[0], filepath.Base(args[0]))
	file := ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(filepath.Dir(file), 0o700))
	ts.Check(os.WriteFile(file, []byte(ts.ReadFile(base+".crt")+ts.ReadFile(base+".key")), 0o600))
}

func makeStores(ts *testscript.TestScript, _ bool, _ []string) {
	domains := slices.Clone(demoDomains)
	stop, err := startDemoStores(domains)
	ts.Defer(stop)
	ts.Check(err)
	for _, domain := range domains {
		for protocol, address := range domain.Addresses {
			ts.Setenv(strings.ToUpper(domain.Store+"_"+protocol), address)
		}
	}
}

func expandFile(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	if strings.Contains(text, "$") {
		ts.Fatalf("a variable is left in %s", args[0])
	}
	ts.Check(os.WriteFile(path, []byte(text), 0o600))
}

func awaitCommand(ts *testscript.TestScript, neg bool, args []string) {
	for end := time.Now().Add(30 * time.Second); (ts.Exec(args[0], args[1:]...) == nil) == neg; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("it took too long")
		}
	}
}

func hangUp(ts *testscript.TestScript, _ bool, _ []string) {
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGHUP))
	}
}

// TestExitStatuses: 0 is good, 1 is a problem with what was looked at, 2 is a command that was not understood.
func TestExitStatuses(t *testing.T) {
	for _, test := range []struct {
		args string
		want int
	}{
		{"", exitGood},
		{"--help", exitGood},
		{"--version", exitGood},
		{"version", exitGood},
		{"check --help", exitGood},
		{"check", exitUsage},
		{"check -c", exitUsage},
		{"frobnicate", exitUsage},
		{"certs -c does-not-exist.toml", exitProblem},
		{"certs -c does-not-exist.toml surplus", exitUsage},
		{"certs -c does-not-exist.toml --socket admin.sock", exitUsage},
		{"certs -c does-not-exist.toml --missed", exitUsage},
		{"certs --missed --name a.example", exitUsage},
		{"certs --expiring 14", exitUsage},
		{"certs --socket does-not-exist", exitProblem},
		{"explain -c does-not-exist.toml --frobnicate", exitUsage},
	} {
		t.Run(fmt.Sprintf("%q", test.args), func(t *testing.T) {
			var out, errOut strings.Builder
			if got := run(strings.Fields(test.args), &out, &errOut); got != test.want {
				t.Errorf("exit status %d, want %d; it said %q", got, test.want, errOut.String())
			}
			if test.want == exitGood && out.Len() == 0 || test.want != exitGood && errOut.Len() == 0 {
				t.Errorf("nothing was said")
			}
		})
	}
}
