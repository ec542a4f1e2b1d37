// Package smallroom lets tests see what becomes of files on a full disk.
package smallroom

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Enter returns the directory of a file system of 64 KiB, of which nobody else knows: the test runs again in namespaces of its own,
// where that can be had. In the first run it returns "", and the test is over.
func Enter(t *testing.T) string {
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

// Fill takes all the room that is left in a directory, until the returned function is called.
func Fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	ballast, err := os.Create(filepath.Join(dir, ".ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	page := make([]byte, os.Getpagesize())
	for err == nil {
		_, err = ballast.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(ballast.Name()); err != nil {
			t.Error(err)
		}
	}
}
