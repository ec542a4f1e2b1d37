// Package measure has what the benchmarks share: it runs servers, reads from Linux what they cost, and says on what machine
// that was.
package measure

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU is what a process and all that descend from it have spent on processors so far, user and system. What processes have
// spent that have ended and were waited for counts, too, in hundredths of a second; Linux counts the others in nanoseconds.
func CPU(pid int) (time.Duration, error) {
	tree, err := tree(pid)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range tree {
		var spent unix.Timespec
		if unix.ClockGettime(processClock(pid), &spent) != nil {
			continue // it has ended
		}
		stat, err := readStat(pid)
		if err != nil {
			continue
		}
		sum += time.Duration(spent.Nano()) + stat.ended
	}
	if sum == 0 {
		return 0, fmt.Errorf("process %d has no threads", pid)
	}
	return sum, nil
}

// processClock is the clock that counts what all threads of a process spend, as clock_getcpuclockid(3) makes it.
func processClock(pid int) int32 { return int32(^pid)<<3 | 2 }

// tree lists a process and all that descend from it.
func tree(pid int) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, file := range files {
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			continue
		}
		if stat, err := readStat(child); err == nil {
			children[stat.parent] = append(children[stat.parent], child)
		}
	}
	found := []int{pid}
	for i := 0; i < len(found); i++ {
		found = slices.Concat(found, children[found[i]])
	}
	return found, nil
}

// stat is what we read of /proc/PID/stat.
type stat struct {
	parent int
	ended  time.Duration // what children have spent that have ended
}

func readStat(pid int) (stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(data))
}

// parseStat reads the line of proc_pid_stat(5). The program's name is in parentheses, and may have some in it.
func parseStat(line string) (stat, error) {
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 15 {
		return stat{}, fmt.Errorf("a process's stat is %q", line)
	}
	var n [3]int
	for i, field := range []int{1, 13, 14} { // ppid, cutime, cstime
		var err error
		if n[i], err = strconv.Atoi(fields[field]); err != nil {
			return stat{}, fmt.Errorf("reading a process's stat: %w", err)
		}
	}
	return stat{parent: n[0], ended: time.Duration(n[1]+n[2]) * 10 * time.Millisecond}, nil
}

// Memory is what a process and all that descend from it take, in bytes.
type Memory struct {
	Resident     int64 // RSS: pages in memory
	Proportional int64 // PSS: the same, pages shared with others divided among them
	Peak         int64 // the highest RSS so far, added up
}

// MemoryOf reads the memory of a process and all that descend from it.
func MemoryOf(pid int) (Memory, error) {
	tree, err := tree(pid)
	if err != nil {
		return Memory{}, err
	}
	var sum Memory
	for _, one := range tree {
		rollup, err := sizes(fmt.Sprintf("/proc/%d/smaps_rollup", one))
		if err != nil && one == pid {
			return Memory{}, err
		}
		status, err := sizes(fmt.Sprintf("/proc/%d/status", one))
		if err != nil && one == pid {
			return Memory{}, err
		}
		sum.Resident += rollup["Rss"]
		sum.Proportional += rollup["Pss"]
		sum.Peak += status["VmHWM"]
	}
	return sum, nil
}

// KernelMemory is what the kernel takes for itself on the whole machine and cannot give back, in bytes: sockets among others,
// stacks and page tables.
func KernelMemory() (int64, error) {
	all, err := sizes("/proc/meminfo")
	return all["SUnreclaim"] + all["KernelStack"] + all["PageTables"], err
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

// Watches counts the places in the file system that a process has asked to be told about.
func Watches(pid int) (int, error) {
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

// Rest waits until a process and its descendants have nothing to do: in one second they have used less than a hundredth of one
// processor. Those that work on are watched for a minute. It returns what they have spent by then, and the share of a processor
// that they use all the time, 0 if they came to rest.
func Rest(ctx context.Context, pid int) (spent time.Duration, share float64, err error) {
	const window, windows = time.Second, 60
	first, err := CPU(pid)
	before := first
	for i := 1; err == nil && i <= windows; i++ {
		if err = Sleep(ctx, window); err != nil {
			break
		}
		if spent, err = CPU(pid); spent-before < window/100 {
			return spent, 0, err
		}
		before = spent
	}
	return spent, (spent - first).Seconds() / (windows * window).Seconds(), err
}

// Sleep returns early, with an error, when ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
