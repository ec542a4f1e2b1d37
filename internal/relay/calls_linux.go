package relay

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls that a loop makes all the time. None of them waits, for all descriptors are set so: Go's scheduler needs not hear of
// them, as it does by the functions of package unix. It would wake up its watchman each time, which costs more than the call.

func readSome(fd int, p []byte) (int, error) { return call(unix.SYS_READ, fd, p) }

func writeSome(fd int, p []byte) (int, error) { return call(unix.SYS_WRITE, fd, p) }

// call reads into, or writes, p.
func call(number uintptr, fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(number, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return answer(n, errno)
}

// fetch gets the events that there are.
func fetch(epoll int, events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(unsafe.SliceData(events))),
		uintptr(len(events)), 0, 0, 0)
	return answer(n, errno)
}

func answer(n uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
