package main

import "testing"

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
