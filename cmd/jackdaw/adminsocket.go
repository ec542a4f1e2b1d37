package main

import (
	"io/fs"
	"net"
	"os"
	"syscall"

	"jackdaw/configs"
	"jackdaw/internal/inherit"
)

// adminMode lets the owner and the group of the process in.
const adminMode = 0o660

// adminSocket is a unix socket that is listened on, with the file by which others find it.
type adminSocket struct {
	net.Listener
	path string
	file fs.FileInfo
}

// listenSocket makes the socket, or goes on with the one that was inherited.
func listenSocket(sockets *inherit.Sockets, path string) (*adminSocket, error) {
	l, err := sockets.Listen(net.ListenConfig{Control: restrictSocket}, configs.Address{Network: "unix", Address: path})
	if err != nil {
		return nil, err
	}
	s := &adminSocket{Listener: l, path: path}
	if err = os.Chmod(path, adminMode); err == nil { // the umask may have taken something away
		s.file, err = os.Lstat(path)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return s, nil
}

// restrictSocket gives a socket its mode before it has a file, which begins with the same: Linux leaves not a moment in which
// others could connect. Systems that cannot do it are content with the umask for that long.
func restrictSocket(_, _ string, raw syscall.RawConn) error {
	return raw.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), adminMode) })
}

// reachable tells whether others still find this socket at its path.
func (s *adminSocket) reachable() bool {
	file, err := os.Lstat(s.path)
	return err == nil && os.SameFile(file, s.file)
}
