package measure

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestStop: with a server ends what it has started, whether it sees to that itself or not.
func TestStop(t *testing.T) {
	for _, script := range []string{"sleep 60 & echo $! >$0; wait", "trap '' TERM; sleep 60 & echo $! >$0; while :; do wait; done"} {
		file := filepath.Join(t.TempDir(), "pid")
		s, err := Start(t.Context(), t.TempDir(), "server", nil, "sh", "-c", script, file)
		if err != nil {
			t.Fatal(err)
		}
		var child int
		err = s.Until(t.Context(), time.Millisecond, func() error {
			data, err := os.ReadFile(file)
			if err == nil {
				child, err = strconv.Atoi(strings.TrimSpace(string(data)))
			}
			return err
		})
		s.Stop()
		if err != nil || child == 0 {
			t.Fatal(child, err)
		}
		for deadline := time.Now().Add(10 * time.Second); syscall.Kill(child, 0) == nil && !zombie(child); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the child is still there", script)
			}
		}
	}
}

// zombie tells whether a process has ended, although nobody has asked for how.
func zombie(pid int) bool {
	data, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return strings.Contains(string(data), ") Z ")
}

// TestUntil: a server that has ended is not waited for, and its last words are told.
func TestUntil(t *testing.T) {
	s, err := Start(t.Context(), t.TempDir(), "server", nil, "sh", "-c", "echo no such file; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	err = s.Until(t.Context(), time.Millisecond, func() error { return os.ErrNotExist })
	if err == nil || !strings.Contains(err.Error(), "server has ended (exit status 3): no such file") {
		t.Error(err)
	}
}
