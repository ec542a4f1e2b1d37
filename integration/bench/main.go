// Command bench puts jackdaw, HAProxy, nginx's mail proxy and Dovecot's proxy under the same load, one after the other, and
// compares what they spend on it: processor time of the whole process tree, memory, and time that clients wait. See
// docs/performance.md. It needs Linux; programs that are not installed are left out.
//
// modes lists what is measured, as rows of the table. trial is a proxy's part of one round: handshakes, logins and bulk
// under steady load, crowd and storm with thousands of sessions. contender and the files named after programs start the
// proxies, store is what stands behind them, client what is in front. table and plot show what was found.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"jackdaw/integration/measure"
	"jackdaw/internal/devca"
)

// bench is one run of this program.
type bench struct {
	ctx        context.Context
	temp       string // of configurations and logs
	cores      cores
	contenders []contender
	modes      []mode
	rounds     int
	seconds    float64 // of steady load that are measured
	json       string  // the file for all figures, or ""
	update     string  // the document for the table, or ""
	profiles   string  // the directory for profiles; "": none are made

	leaves map[bool]devca.Leaf // the certificates: has it an RSA key?
	alone  map[int]float64     // what sessions take of the kernel without a proxy, in KiB each, by their number
	failed []error             // trials, of which there is no figure
}

func main() {
	// This program starts itself in two more roles: as the store, and as a client that measures how long others wait.
	role := run
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "store":
			role = func() error { return serveStore(os.Args[2:]) }
		case "watch":
			role = func() error { return watch(os.Args[2]) }
		}
	}
	if err := role(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	b := &bench{alone: make(map[int]float64)}
	var err error
	if b.cores, err = pin(); err != nil {
		return err
	}
	if err = b.parse(); err != nil {
		return err
	}
	// Whatever ends this program ends the servers, too: SIGPIPE is what remains of `make bench | head`.
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	b.ctx = ctx
	if b.temp, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.temp)
	if err = b.certify(); err != nil {
		return err
	}
	report, err := b.measure()
	if err != nil {
		return err
	}
	fmt.Print(report.markdown())
	if b.json != "" {
		err = report.write(b.json)
	}
	if b.update != "" && err == nil {
		err = report.update(b.update)
	}
	return errors.Join(append(b.failed, err)...)
}

// parse reads the flags.
func (b *bench) parse() error {
	var builds []string
	flag.Func("jackdaw", "a build of it, as `[NAME=]PATH`; several are compared (default jackdaw=./jackdaw)", func(s string) error {
		builds = append(builds, s)
		return nil
	})
	only := flag.String("only", strings.Join(peerNames(), ","), "`peers` to run beside jackdaw, or none")
	chosen := flag.String("modes", "all", "`what` to measure: "+strings.Join(modeNames(), ", "))
	flag.IntVar(&b.rounds, "rounds", 3, "how often everything is measured, but for memory")
	flag.Float64Var(&b.seconds, "seconds", 2, "how `long` a steady load is measured")
	flag.StringVar(&b.json, "json", "", "`file` for all figures")
	flag.StringVar(&b.update, "update", "", "Markdown `file` to put the table into, and beside it a plot of growth")
	flag.StringVar(&b.profiles, "profiles", "", "`directory` for CPU profiles of jackdaw, one of each mode with a steady load")
	flag.Parse()
	if flag.NArg() > 0 || b.rounds < 1 || b.seconds <= 0 {
		return fmt.Errorf("-rounds %d -seconds %g %q is not understood", b.rounds, b.seconds, flag.Args())
	}
	var err error
	if b.contenders, err = choose(builds, *only); err == nil {
		b.modes, err = chooseModes(*chosen)
	}
	return err
}

// certify makes the certificates that all contenders show.
func (b *bench) certify() error {
	ca, err := devca.New()
	if err != nil {
		return err
	}
	b.leaves = make(map[bool]devca.Leaf)
	for _, rsa := range []bool{false, true} {
		if b.leaves[rsa], err = ca.Issue(devca.Options{Names: []string{"mail.bench.example"}, RSA: rsa}); err != nil {
			return err
		}
	}
	return nil
}

// measure runs every mode, and counts what others do meanwhile.
func (b *bench) measure() (*report, error) {
	others, err := measure.OtherWork()
	if err != nil {
		return nil, err
	}
	report := b.newReport()
	for i := range b.modes {
		b.measureMode(&b.modes[i], report)
	}
	report.Others, err = others()
	return report, err
}

// measureMode runs one mode for every contender in every round. In each round another contender is the first. One that fails has
// no more rounds. After the end of ctx nothing is done any more, so that there is a table of what was measured by then.
func (b *bench) measureMode(m *mode, report *report) {
	able := slices.DeleteFunc(slices.Clone(b.contenders), func(c contender) bool { return !slices.Contains(c.services, m.service) })
	failed, rounds := make(map[string]bool), b.rounds
	if m.once {
		rounds = 1
	}
	for turn := range rounds * len(able) {
		round := turn / len(able)
		c := &able[(turn+round)%len(able)]
		if failed[c.name] || b.ctx.Err() != nil {
			continue
		}
		t, err := b.try(c, m)
		if err != nil {
			if b.ctx.Err() != nil {
				err = context.Cause(b.ctx)
			}
			err = fmt.Errorf("%s, %s: %w", m.name, c.name, err)
			failed[c.name], b.failed = true, append(b.failed, err)
			progress("%v", err)
			continue
		}
		report.add(c.name, t)
		progress("%s, round %d, %s: %s", m.name, round+1, c.name, t.summary())
	}
}

// progress tells who waits what goes on.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// own starts this program in another role; what it says is kept in dir.
func (b *bench) own(dir, role string, args ...string) (*measure.Server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return measure.Start(b.ctx, dir, role, nil, self, slices.Concat([]string{role}, args)...)
}
