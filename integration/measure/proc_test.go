package measure

import (
	"os/exec"
	"testing"
	"time"
)

func TestParseSizes(t *testing.T) {
	sizes := parseSizes([]byte("556e68a7f000-7ffec7d1a000 ---p 00000000 00:00 0                          [rollup]\n" +
		"Name:\ta name: 7 kB\nThreads:\t12\nVmHWM:\t    1776 kB\nPss:                 332 kB\nPss_Dirty:           112 kB\n"))
	for name, want := range map[string]int64{"VmHWM": 1776 << 10, "Pss": 332 << 10, "Threads": 0, "Name": 0} {
		if sizes[name] != want {
			t.Errorf("%s is %d, want %d", name, sizes[name], want)
		}
	}
}

func TestParseMachineTime(t *testing.T) {
	const stat = "cpu  100 200 300 4000 500 60 70 80 9 9\ncpu0 1 2 3 4 5 6 7 8 9 9\n"
	m, err := parseMachineTime(stat)
	if err != nil || m.busy != 8.1 || m.all != 53.1 {
		t.Errorf("%v, %v; want 8.1 of 53.1 seconds: all but idle and iowait, and no guests, who are counted twice", m, err)
	}
	for _, bad := range []string{"", "cpu 1 2 3\n", "cpu a b c d e f g h i j\n"} {
		if _, err := parseMachineTime(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestParseStat(t *testing.T) {
	const line = "77 (a (b) 1 2) S 42 77 77 0 -1 4194304 1 2 3 4 500 600 70 8 20 0 1 0 12345 1000 200\n"
	if got, err := parseStat(line); err != nil || got != (stat{42, 780 * time.Millisecond}) {
		t.Errorf("%+v, %v; want the parent and what its children have spent", got, err)
	}
	for _, bad := range []string{"", "77 (a) S", "77 (a) S x 77 77 0 -1 4194304 1 2 3 4 500 600 70 8 20"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestTree: work counts as that of the process which it was done in, of its children, and of those of theirs that have ended.
func TestTree(t *testing.T) {
	const work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
	for _, script := range []string{work + "; read x", "sh -c '" + work + "'; read x", "sh -c '" + work + "; read x; :'; :"} {
		cmd := exec.Command("sh", "-c", script)
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		spent, _, err := Rest(t.Context(), cmd.Process.Pid)
		memory, memoryErr := MemoryOf(cmd.Process.Pid)
		in.Close()
		_ = cmd.Wait()
		used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		if err != nil || spent > used || used-spent > 50*time.Millisecond {
			t.Errorf("%s: %v, %v, of %v", script, spent, err, used)
		}
		if memoryErr != nil || memory.Proportional < 100<<10 || memory.Proportional > memory.Resident {
			t.Errorf("%s: %+v, %v", script, memory, memoryErr)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   string
	}{{nil, ""}, {[]float64{3, 1, 200}, "3.00"}, {[]float64{40, 1, 30, 0.5}, "15.5"}, {[]float64{0.25}, "0.250"}} {
		if got := Number(Median(tt.values)); got != tt.want {
			t.Errorf("the median of %v is %q, want %q", tt.values, got, tt.want)
		}
	}
}
