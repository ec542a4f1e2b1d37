package integration

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// hang stops a process and its children until resume. It returns when they have stopped: a signal is only on its way when it
// was sent, and a thread may go on a while.
func (p *process) hang(t testing.TB) (resume func()) {
	t.Helper()
	pids := family(t, p.cmd.Process.Pid)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // one that has ended meanwhile hangs for good
	}
	eventually(t, "all threads have stopped", func() bool {
		for _, pid := range pids {
			for _, thread := range stats(t, "/proc/"+strconv.Itoa(pid)+"/task/[0-9]*/stat") {
				if thread.state != "T" && thread.state != "Z" {
					return false
				}
			}
		}
		return true
	})
	return func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
}

// family is a process and its children.
func family(t testing.TB, parent int) []int {
	t.Helper()
	all := []int{parent}
	for _, p := range stats(t, "/proc/[0-9]*/stat") {
		if p.parent == strconv.Itoa(parent) {
			all = append(all, number(t, p.pid))
		}
	}
	return all
}

// status is what proc(5) says of a process or thread.
type status struct{ pid, state, parent string }

// stats reads all files of that kind: "pid (name) state parent ...".
func stats(t testing.TB, pattern string) (all []status) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+1:])
		all = append(all, status{filepath.Base(filepath.Dir(path)), fields[0], fields[1]})
	}
	return all
}
