package proxy

import (
	"errors"
	"net"
	"syscall"
)

// gone tells whether a client from which nothing is to come has closed its connection.
func gone(conn net.Conn) bool {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	left := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		n, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		again := errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
		left = n == 0 && err == nil || err != nil && !again
		return true
	})
	return left || err != nil
}
