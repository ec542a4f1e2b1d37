package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"
)

// adminMode lets the owner and the group of the process in.
const adminMode = 0o660

// adminSocket is a unix socket that is listened on, with the file by which others find it.
type adminSocket struct {
	net.Listener
	path string
	file fs.FileInfo
}

// listenSocket makes the socket. In the place of one that nobody listens on any more it may stand, but of nothing else.
func listenSocket(path string) (*adminSocket, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: restrictSocket}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it could be the file of another process by then
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

// removeStale removes the socket of a process that is gone.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there already, and is no socket", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another process listens on %s", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err // somebody may listen whom we cannot reach
	}
	return os.Remove(path)
}

// reachable tells whether others still find this socket at its path.
func (s *adminSocket) reachable() bool {
	file, err := os.Lstat(s.path)
	return err == nil && os.SameFile(file, s.file)
}

// Close removes the file as well, unless it is another one by now.
func (s *adminSocket) Close() error {
	var err error
	if s.reachable() {
		err = os.Remove(s.path)
	}
	return errors.Join(err, s.Listener.Close())
}
