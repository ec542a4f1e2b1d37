package whole

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// inSmallRoom is the directory of a file system of 64 KiB, of which nobody else knows: the test runs again in namespaces of its own,
// where that can be had. In the first run it returns "".
func inSmallRoom(t *testing.T) string {
	t.Helper()
	const key = "JACKDAW_SMALL_ROOM"
	if dir := os.Getenv(key); dir != "" {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	own := &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	try := exec.Command("true")
	try.SysProcAttr = own
	if err := try.Run(); err != nil {
		t.Skipf("no namespaces here: %v", err)
	}
	again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env, again.SysProcAttr = append(os.Environ(), key+"="+t.TempDir()), own
	if out, err := again.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
	return ""
}

// On a full disk a file stays what it was, the error names it, and nothing takes room that was not there before. When there is room
// again, the next one is written.
func TestFullDisk(t *testing.T) {
	dir := inSmallRoom(t)
	if dir == "" {
		return
	}
	path, ballast := filepath.Join(dir, "file"), filepath.Join(dir, "ballast")
	if err := File(path, os.Rename, text("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ballast, make([]byte, 40<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	large := strings.Repeat("new", 10<<10)
	for range 3 {
		err := File(path, os.Rename, text(large))
		if !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), "writing "+path+": ") {
			t.Errorf("on a full disk: %v", err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
			t.Errorf("the file has %q, %v", got, err)
		}
		if all, err := os.ReadDir(dir); err != nil || len(all) != 2 {
			t.Errorf("there are %v, %v", all, err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := File(path, os.Rename, text(large)); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != large {
		t.Errorf("the file has %d bytes, %v", len(got), err)
	}
}
