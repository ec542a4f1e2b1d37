// Package inherit lets a process hand its place to another one, which runs the program that is found at the same path by then:
// the sockets that it listens on, ways to ask the processes that still have sessions, and whatever else it has to say.
//
// The old process calls Start, and the new one finds by Receive that it was started so. What they say goes over one pair of
// sockets, as JSON: the old one says what there is (a will), the new one builds everything and says that it is ready, the old one
// gives what must not change any more (an estate), and the new one says that it serves. Until then nobody is accepted by
// the new one, and if it ends, or says why it cannot begin, the old one goes on as if nothing had been. Both listen on the same
// sockets of the system, so that a client in a socket's queue is never refused and never notices.
package inherit

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// variable names the descriptor over which a process that was started by Start hears what it inherits.
const variable = "JACKDAW_INHERITS"

// What the two processes say to each other.
type (
	will struct {
		PID     int      // of the process that speaks
		Sockets []socket // that it listens on
		Doors   []door   // of all processes that have sessions, its own among them
	}
	socket struct {
		Descriptor       int
		Network, Address string // as it was configured
		Activated        bool   // it is systemd's, and matched by where it is bound
	}
	door struct {
		Descriptor int
		PID        int
	}
	answer struct {
		Error string // why it cannot begin; "": it is ready, or serves
	}
)

// pair makes two sockets that are connected with each other, and with nothing else.
func pair() (a, b *net.UnixConn, err error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if a, err = unixConn(fds[0]); err != nil {
		syscall.Close(fds[1])
		return nil, nil, err
	}
	if b, err = unixConn(fds[1]); err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

// unixConn takes a descriptor over.
func unixConn(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "unix")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("descriptor %d is no unix socket", fd)
	}
	return unix, nil
}

// duplicate makes another descriptor of the same thing. os.File and os.StartProcess would make that blocking, in all processes:
// an accept of ours could no longer be ended.
func duplicate(conn syscall.Conn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	controlled := raw.Control(func(original uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, err = syscall.Dup(int(original)); err == nil {
			syscall.CloseOnExec(fd)
		}
	})
	if controlled != nil {
		return -1, controlled
	}
	return fd, os.NewSyscallError("dup", err)
}
