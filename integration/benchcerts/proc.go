package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cpuTime is what the threads of a process have spent on processors so far. Linux counts it in nanoseconds here, and in
// hundredths of a second in /proc/PID/stat.
func cpuTime(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, thread := range threads {
		data, err := os.ReadFile(thread)
		if err != nil {
			continue // the thread has ended
		}
		spent, _, _ := strings.Cut(string(data), " ")
		n, err := strconv.ParseInt(spent, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading %s: %w", thread, err)
		}
		sum += time.Duration(n)
	}
	if sum == 0 {
		return 0, fmt.Errorf("process %d has no threads", pid)
	}
	return sum, nil
}

// memory is what a process takes, in bytes.
type memory struct {
	resident     int64 // RSS: pages in memory
	proportional int64 // PSS: the same, pages shared with others divided among them
	peak         int64 // the highest RSS so far
}

func memoryOf(pid int) (memory, error) {
	rollup, err := sizes(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return memory{}, err
	}
	status, err := sizes(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, err
	}
	return memory{rollup["Rss"], rollup["Pss"], status["VmHWM"]}, nil
}

// sizes reads the lines of a file in /proc that look like "VmHWM:  1776 kB", in bytes.
func sizes(path string) (map[string]int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parseSizes(data), nil
}

func parseSizes(data []byte) map[string]int64 {
	found := make(map[string]int64)
	for line := range bytes.Lines(data) {
		name, value, _ := strings.Cut(string(line), ":")
		kilobytes, ok := strings.CutSuffix(strings.TrimSpace(value), " kB")
		if n, err := strconv.ParseInt(kilobytes, 10, 64); ok && err == nil {
			found[name] = n << 10
		}
	}
	return found
}

// watchesOf counts the places in the file system that a process has asked to be told about.
func watchesOf(pid int) (int, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		return 0, err
	}
	var n int
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			continue // the descriptor was closed
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "inotify wd:") {
				n++
			}
		}
		f.Close()
	}
	return n, nil
}

// rest waits until a process has nothing to do: in one second it has used less than a hundredth of one processor. One that
// works on is watched for a minute. It returns what the process has spent by then, and the share of a processor that it uses
// all the time, 0 if it came to rest.
func rest(ctx context.Context, pid int) (spent time.Duration, share float64, err error) {
	const window, windows = time.Second, 60
	first, err := cpuTime(pid)
	before := first
	for i := 1; err == nil && i <= windows; i++ {
		if err = sleep(ctx, window); err != nil {
			break
		}
		if spent, err = cpuTime(pid); spent-before < window/100 {
			return spent, 0, err
		}
		before = spent
	}
	return spent, (spent - first).Seconds() / (windows * window).Seconds(), err
}

// sleep returns early, with an error, when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// otherWork begins to count what everybody else does on this machine. The result tells their share of its processor time
// since then. Our servers count as ours once they have ended.
func otherWork() (share func() (float64, error), err error) {
	before, err := machineTime()
	if err != nil {
		return nil, err
	}
	ours := ourTime()
	return func() (float64, error) {
		now, err := machineTime()
		others := now.busy - before.busy - (ourTime() - ours).Seconds()
		return max(0, others/(now.all-before.all)), err
	}, nil
}

// ourTime is what this process and its children that have ended have spent on processors.
func ourTime() time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var usage syscall.Rusage
		if syscall.Getrusage(who, &usage) == nil {
			sum += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		}
	}
	return sum
}

// machine is the processor time of all processors since the machine was started, in seconds.
type machine struct{ busy, all float64 }

// machineTime reads the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal, in
// hundredths of a second.
func machineTime() (machine, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machine{}, err
	}
	return parseMachineTime(string(data))
}

func parseMachineTime(stat string) (machine, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return machine{}, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var m machine
	for i, field := range fields[1:9] {
		ticks, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return machine{}, fmt.Errorf("reading /proc/stat: %w", err)
		}
		m.all += ticks / 100
		if i != 3 && i != 4 {
			m.busy += ticks / 100
		}
	}
	return m, nil
}

// describeMachine says what the figures are worth on other machines.
func describeMachine() string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	release, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
	total, _ := sizes("/proc/meminfo")
	return fmt.Sprintf("%d processors (%s), %d GB of memory, Linux %s, %s", runtime.NumCPU(), processor(),
		total["MemTotal"]/1e9, release, runtime.Version())
}

func processor() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return runtime.GOARCH
}
