package measure

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// OtherWork begins to count what everybody else does on this machine. The result tells their share of its processor time
// since then. Our servers count as ours once they have ended.
func OtherWork() (share func() (float64, error), err error) {
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

// Machine says what the figures are worth on other machines. processors is how many there are.
func Machine(processors int) string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	release, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
	total, _ := sizes("/proc/meminfo")
	return fmt.Sprintf("%d processors (%s), %d GB of memory, Linux %s, %s", processors, processor(),
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
