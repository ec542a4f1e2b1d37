package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// cores tells which processors this program may use. The proxies have one for themselves, on which nothing of ours runs.
type cores struct {
	all   int
	proxy string // its number; "" if there is one processor for all
}

// pinned is the variable by which this program knows that it was started again, with the number of the proxies' processor and
// how many there are.
const pinned = "JACKDAW_BENCH_PINNED"

// pin leaves one processor to the proxies: it starts this program again on all others. What is started from there stays
// there, too, but for the proxies.
func pin() (cores, error) {
	if proxy, all, ok := strings.Cut(os.Getenv(pinned), "/"); ok {
		n, err := strconv.Atoi(all)
		return cores{n, proxy}, err
	}
	numbers, err := processors()
	if err != nil {
		return cores{}, fmt.Errorf("asking for the processors: %w", err)
	}
	if len(numbers) == 1 {
		fmt.Fprintln(os.Stderr, "bench: one processor for all, so that the load is in the proxies' way")
		return cores{all: 1}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return cores{}, err
	}
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		return cores{}, err
	}
	args := append([]string{"taskset", "-c", strings.Join(numbers[1:], ","), self}, os.Args[1:]...)
	return cores{}, syscall.Exec(taskset, args, append(os.Environ(), fmt.Sprintf("%s=%s/%d", pinned, numbers[0], len(numbers))))
}

// command puts what is needed to run on the proxies' processor before a command.
func (c cores) command(program string, args []string) (string, []string) {
	if c.proxy == "" {
		return program, args
	}
	return "taskset", append([]string{"-c", c.proxy, program}, args...)
}
