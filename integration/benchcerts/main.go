// Command benchcerts compares jackdaw with HAProxy where there are thousands of certificates: how long it takes from the
// start of the process to the first handshake, what memory and processor time that costs, and how a renewed certificate comes
// to be served. It makes the certificates, runs the programs one after the other on the same directories, and prints tables.
// It needs Linux and the program haproxy; without that jackdaw is measured alone.
//
// layout makes the directories, with certificates of authority. server runs a program, jackdaw and haproxy say how. trial is
// what is done to each of them, sessions what is done to jackdaw alone. proc reads what a process has cost.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"jackdaw/integration/measure"
)

// bench is one run of this program.
type bench struct {
	client
	ctx  context.Context
	dir  string // of certificates
	temp string // of configurations and logs

	jackdaw string // path of the program
	haproxy string // the same; "" if it is not installed

	counts []int
	rounds int
	only   []string // contenders, and "sessions"
}

// affordable is with how many certificates everything can be repeated. With more HAProxy alone takes minutes.
const affordable = 10_000

func main() {
	b := new(bench)
	flag.StringVar(&b.jackdaw, "jackdaw", "./jackdaw", "the `program`, as make jackdaw leaves it")
	counts := flag.String("counts", "1000,10000,100000", "how many certificates, a table for each")
	flag.IntVar(&b.rounds, "rounds", 3, fmt.Sprintf("how often all is measured; with more than %d certificates, once", affordable))
	only := flag.String("only", "haproxy,jackdaw,certbot,rsa,sessions", "what to measure")
	keep := flag.String("keep", "", "`directory` for the certificates, which the next run uses again; default: none is kept")
	flag.Parse()
	// Whatever ends this program ends the servers, too: SIGPIPE is what remains of `make bench-certs | head`.
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	b.ctx = ctx
	err := b.plan(*counts, *only)
	if err == nil {
		err = b.run(*keep)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchcerts:", err)
		os.Exit(1)
	}
}

// plan reads the flags.
func (b *bench) plan(counts, only string) error {
	for field := range strings.SplitSeq(counts, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 100 || n > 999_999 {
			return fmt.Errorf("-counts: %q is not a number from 100 to 999999", field)
		}
		b.counts = append(b.counts, n)
	}
	b.only = strings.Split(only, ",")
	for _, name := range b.only {
		if name != "sessions" && !slices.ContainsFunc(contenders, func(c contender) bool { return c.name == name }) {
			return fmt.Errorf("-only: there is no %q", name)
		}
	}
	var err error
	if b.haproxy, err = exec.LookPath("haproxy"); err != nil && slices.Contains(b.only, "haproxy") {
		fmt.Fprintln(os.Stderr, "benchcerts: haproxy is not installed; jackdaw is measured alone")
	}
	return nil
}

func (b *bench) run(keep string) error {
	var err error
	if b.temp, err = os.MkdirTemp("", "benchcerts"); err != nil {
		return err
	}
	defer os.RemoveAll(b.temp)
	if b.dir = keep; keep == "" {
		b.dir = filepath.Join(b.temp, "certificates")
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if err = os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	if b.ca, err = openAuthority(b.dir); err != nil {
		return err
	}
	fmt.Println(measure.Machine(runtime.NumCPU()) + b.haproxyVersion() + "\n")
	for _, count := range b.counts {
		if err = b.compare(count); err != nil {
			return err
		}
	}
	if slices.Contains(b.only, "sessions") {
		return b.sessions(slices.Max(b.counts))
	}
	return nil
}

// taking lists the contenders that take part.
func (b *bench) taking() []contender {
	return slices.DeleteFunc(slices.Clone(contenders), func(c contender) bool {
		return !slices.Contains(b.only, c.name) || c.haproxy && b.haproxy == ""
	})
}

// compare runs all contenders with that many certificates, and prints a table.
func (b *bench) compare(count int) error {
	taking := b.taking()
	if len(taking) == 0 {
		return nil
	}
	sets := make(map[layout]*set)
	for _, c := range taking {
		if sets[c.layout] == nil {
			var err error
			if sets[c.layout], err = b.openSet(c.layout, count); err != nil {
				return err
			}
		}
	}
	others, err := measure.OtherWork()
	if err != nil {
		return err
	}
	found, err := b.rotate(count, taking, sets)
	found.print(os.Stdout, count, taking) // also what there is at an error
	if err != nil {
		return fmt.Errorf("with %d certificates: %w", count, err)
	}
	share, err := others()
	fmt.Printf("Other programs took %.0f %% of the machine's processor time meanwhile.\n\n", 100*share)
	return err
}

// rotate runs all contenders as often as there are rounds, each time in another order, or once if that takes long.
func (b *bench) rotate(count int, taking []contender, sets map[layout]*set) (results, error) {
	rounds := b.rounds
	if count > affordable {
		rounds = 1
	}
	found := make(results)
	for round := range rounds {
		for i := range taking {
			c := taking[(i+round)%len(taking)]
			f, err := b.try(c, sets[c.layout])
			if err != nil {
				return found, fmt.Errorf("%s: %w", c.name, err)
			}
			b.progress("round %d, %s: %s s to the first handshake", round+1, c.name, measure.Number(f[startTime]))
			found[c.name] = append(found[c.name], f)
		}
	}
	return found, nil
}

func (b *bench) openSet(l layout, count int) (*set, error) {
	b.progress("%d certificates, %s", count, l.name)
	return openSet(b.dir, b.ca, l, count)
}

// progress tells who waits what goes on.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
