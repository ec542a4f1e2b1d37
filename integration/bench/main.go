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
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"jackdaw/integration/measure"
)

// bench is one run of this program.
type bench struct {
	ctx        context.Context
	temp       string // of configurations and logs
	cores      cores
	contenders []contender
	modes      []mode
	rounds     int
	profiles   string          // the directory for profiles; "": none are made
	seconds    float64         // of steady load that are measured
	alone      map[int]float64 // what sessions take of the kernel without a proxy, in KiB each, by their number
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run does what the arguments say. This program starts itself in two more roles: as the store, and as a client that measures
// how long others wait.
func run() error {
	roles := map[string]func([]string) error{"store": serveStore, "watch": watch}
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		return roles[os.Args[1]](os.Args[2:])
	}
	b := &bench{alone: make(map[int]float64)}
	var builds []string
	flag.Func("jackdaw", "a build of it, as `[NAME=]PATH`; several are compared (default jackdaw=./jackdaw)", func(s string) error {
		builds = append(builds, s)
		return nil
	})
	only := flag.String("only", strings.Join(peerNames(), ","), "`peers` to run beside jackdaw, or none")
	chosen := flag.String("modes", "all", "`what` to measure: "+strings.Join(modeNames(), ", "))
	flag.IntVar(&b.rounds, "rounds", 3, "how often everything is measured")
	flag.Float64Var(&b.seconds, "seconds", 2, "how `long` a steady load is measured")
	jsonFile := flag.String("json", "", "`file` for all figures")
	flag.StringVar(&b.profiles, "profiles", "", "`directory` for CPU profiles of jackdaw built with the tag profile, one of each mode")
	update := flag.String("update", "", "Markdown `file` to put the table into, and beside it a plot of growth")
	flag.Parse()

	var err error
	if b.cores, err = pin(); err != nil {
		return err
	}
	if b.contenders, err = choose(builds, *only); err != nil {
		return err
	}
	if b.modes, err = chooseModes(*chosen); err != nil {
		return err
	}
	// Whatever ends this program ends the servers, too: SIGPIPE is what remains of `make bench | head`.
	var stop func()
	b.ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	if b.temp, err = os.MkdirTemp("", "bench"); err != nil {
		return err
	}
	defer os.RemoveAll(b.temp)
	report, err := b.measure()
	if err != nil {
		return err
	}
	fmt.Print(report.markdown())
	if *jsonFile != "" {
		if err = writeJSON(*jsonFile, report); err != nil {
			return err
		}
	}
	if *update != "" {
		return report.update(*update)
	}
	return nil
}

func writeJSON(file string, report *report) error {
	data, err := json.MarshalIndent(report, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}

// measure runs every mode for every contender in every round. In each round another contender is the first.
func (b *bench) measure() (*report, error) {
	others, err := measure.OtherWork()
	if err != nil {
		return nil, err
	}
	report := b.newReport()
	for i := range b.modes {
		for round := range b.rounds {
			for k := range b.contenders {
				c := &b.contenders[(k+round)%len(b.contenders)]
				if !slices.Contains(c.services, b.modes[i].service) {
					continue
				}
				t, err := b.try(c, &b.modes[i])
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", b.modes[i].name, c.name, err)
				}
				report.add(c.name, t)
				progress("%s, round %d, %s: %s", b.modes[i].name, round+1, c.name, t.summary())
			}
		}
	}
	report.Others, err = others()
	return report, err
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
