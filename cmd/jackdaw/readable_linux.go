package main

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// blocked tries the rights one by one, each on the very file or directory, whatever stands in the way there, and returns those
// that the user does not have.
func (r *reader) blocked(rights map[string]right) (map[string]right, error) {
	done := make(chan error)
	blocked := make(map[string]right)
	go func() {
		// What changes here are the thread's own groups and identity at the file system. It is not unlocked, and so ends here.
		runtime.LockOSThread()
		if err := setThreadGroups(r.groups, r.gid); err != nil {
			done <- err
			return
		}
		done <- r.tryAll(rights, blocked)
	}()
	err := <-done
	return blocked, err
}

func (r *reader) tryAll(rights, blocked map[string]right) error {
	for path, want := range rights {
		switch err := r.try(path, want); {
		case errors.Is(err, unix.EACCES):
			blocked[path] = want
		case errors.Is(err, unix.ENOSYS):
			return errNotHere
		case err != nil && !errors.Is(err, unix.ENOENT):
			return fmt.Errorf("trying what user %s may do with %s: %w", r.name, path, err)
		}
	}
	return nil
}

// try asks the kernel, which knows of access control lists, too. Root finds the file, and the user has the rights tried.
func (r *reader) try(path string, want right) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := syscall.Setfsuid(r.uid); err != nil {
		return err
	}
	defer func() { _ = syscall.Setfsuid(0) }()
	return unix.Faccessat2(fd, "", uint32(want), unix.AT_EMPTY_PATH|unix.AT_EACCESS)
}

// setThreadGroups changes the groups of this thread alone; those of package syscall change every thread's.
func setThreadGroups(groups []uint32, gid int) error {
	groups = append(groups, uint32(gid)) // not empty, so that there is a first
	_, _, failed := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
	if failed != 0 {
		return failed
	}
	return syscall.Setfsgid(gid)
}
