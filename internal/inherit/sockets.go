package inherit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"jackdaw/configs"
)

// Sockets are what a process listens on, of its own or inherited. Safe for concurrent use.
type Sockets struct {
	serving chan struct{} // closed when connections may be accepted

	mu     sync.Mutex
	given  []*given
	open   map[configs.Address]*listener
	passed bool // to the next process
}

// given is a socket that was inherited.
type given struct {
	address   configs.Address // as the process has configured it from which it comes
	activated bool            // it comes from systemd, which keeps it: it may be asked for again and again
	bound     net.Addr
	file      *os.File
}

// listener is one socket that is listened on.
type listener struct {
	net.Listener
	sockets   *Sockets
	address   configs.Address
	given     *given               // nil where it is our own
	keepAlive *net.KeepAliveConfig // which an inherited socket does not know by itself
	file      fs.FileInfo          // of a unix socket
	closed    chan struct{}
	close     func() error
}

// NewSockets makes the sockets of a process that inherits nothing.
func NewSockets() *Sockets {
	s := &Sockets{serving: make(chan struct{}), open: make(map[configs.Address]*listener)}
	close(s.serving)
	return s
}

// Activated makes the sockets of a process that systemd has given some. Errors are of descriptors that nobody can listen on.
func Activated(files []*os.File) (*Sockets, error) {
	s := NewSockets()
	for _, file := range files {
		if err := s.give(&given{activated: true, file: file}); err != nil {
			return nil, fmt.Errorf("socket activation: descriptor %q: %w", file.Name(), err)
		}
	}
	return s, nil
}

func (s *Sockets) give(g *given) error {
	l, err := net.FileListener(g.file)
	if err != nil {
		return err
	}
	defer l.Close()
	g.bound = l.Addr()
	s.given = append(s.given, g)
	return nil
}

// Listen listens at an address, on the socket that was inherited for it if there is one. In the place of a unix socket that nobody
// listens on any more another one may stand, but of nothing else. Nothing is accepted before the process serves.
func (s *Sockets) Listen(config net.ListenConfig, address configs.Address) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &listener{sockets: s, address: address, closed: make(chan struct{})}
	l.close = sync.OnceValue(l.closeOnce)
	var err error
	if l.given = s.take(address); l.given != nil {
		l.keepAlive = &config.KeepAliveConfig
		l.Listener, err = net.FileListener(l.given.file)
		if !l.given.activated {
			l.given.file.Close()
		}
	} else {
		l.Listener, err = listen(config, address)
	}
	if err != nil {
		return nil, err
	}
	if unix, ok := l.Listener.(*net.UnixListener); ok {
		unix.SetUnlinkOnClose(false) // it could be the file of another process by then
		l.file, _ = os.Lstat(address.Address)
	}
	s.open[address] = l
	return l, nil
}

func listen(config net.ListenConfig, address configs.Address) (net.Listener, error) {
	if address.Network == "unix" {
		if err := removeStale(address.Address); err != nil {
			return nil, err
		}
	}
	return config.Listen(context.Background(), address.Network, address.Address)
}

// take finds an inherited socket for an address. systemd's stays.
func (s *Sockets) take(address configs.Address) *given {
	for i, g := range s.given {
		if !g.fits(address) {
			continue
		}
		if !g.activated {
			s.given = slices.Delete(s.given, i, i+1)
		}
		return g
	}
	return nil
}

// fits reports whether a socket is what listening at an address would make. Of systemd's sockets it is known only where they are
// bound; no name is resolved to compare that.
func (g *given) fits(address configs.Address) bool {
	if !g.activated {
		return g.address == address
	}
	switch bound := g.bound.(type) {
	case *net.UnixAddr:
		return address == configs.Address{Network: "unix", Address: bound.Name}
	case *net.TCPAddr:
		host, port, err := net.SplitHostPort(address.Address)
		if err != nil || port != strconv.Itoa(bound.Port) {
			return false
		}
		at := bound.AddrPort().Addr().Unmap()
		want, err := netip.ParseAddr(host)
		return host == "" && at.IsUnspecified() || err == nil && want.Unmap() == at
	}
	return false
}

// removeStale removes the unix socket of a process that is gone.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there already, and is no socket: %w", path, syscall.EADDRINUSE)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("another process listens on %s: %w", path, syscall.EADDRINUSE)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return nil // somebody may listen whom we cannot reach; listening tells
}

// Idle lists the sockets that systemd has given and nobody listens on: their clients wait in vain. Those of a former process
// that nobody wants are closed.
func (s *Sockets) Idle() (idle []net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = slices.DeleteFunc(s.given, func(g *given) bool {
		if !g.activated {
			g.file.Close()
		}
		return !g.activated
	})
	for _, g := range s.given {
		if !s.listens(g) {
			idle = append(idle, g.bound)
		}
	}
	return idle
}

func (s *Sockets) listens(g *given) bool {
	for _, l := range s.open {
		if l.given == g {
			return true
		}
	}
	return false
}

// serve lets connections be accepted.
func (s *Sockets) serve() { close(s.serving) }

// Pass says that another process has the sockets now: closing them removes no file any more.
func (s *Sockets) Pass() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passed = true
}

// describe duplicates the descriptors of all sockets. A unix socket whose file was removed or replaced is left out: nobody
// finds it any more.
func (s *Sockets) describe() (all []socket, fds []int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add := func(conn syscall.Conn, described socket) {
		fd, dupErr := duplicate(conn)
		if dupErr != nil {
			err = errors.Join(err, dupErr)
			return
		}
		all, fds = append(all, described), append(fds, fd)
	}
	for _, g := range s.given { // systemd's; the others were taken, or closed by Idle
		add(g.file, socket{Network: g.bound.Network(), Address: g.bound.String(), Activated: true})
	}
	for address, l := range s.open {
		if (l.given == nil || !l.given.activated) && l.reachable() {
			add(l.Listener.(syscall.Conn), socket{Network: address.Network, Address: address.Address})
		}
	}
	return all, fds, err
}

// reachable tells whether others still find this socket at its path.
func (l *listener) reachable() bool {
	if l.address.Network != "unix" {
		return true
	}
	file, err := os.Lstat(l.address.Address)
	return err == nil && l.file != nil && os.SameFile(file, l.file)
}

// Accept takes a connection, once the process serves.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.sockets.serving:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok && err == nil && l.keepAlive != nil {
		_ = tcp.SetKeepAliveConfig(*l.keepAlive) // a connection that is dead already is found to be so when it is read
	}
	return conn, err
}

// Close removes the file of a unix socket as well, unless it is another's by now.
func (l *listener) Close() error { return l.close() }

func (l *listener) closeOnce() error {
	s := l.sockets
	s.mu.Lock()
	defer s.mu.Unlock()
	close(l.closed)
	if s.open[l.address] == l {
		delete(s.open, l.address)
	}
	var err error
	if l.address.Network == "unix" && l.ours() && l.reachable() {
		err = os.Remove(l.address.Address)
	}
	return errors.Join(err, l.Listener.Close())
}

// ours reports whether the file goes with the listener: not if it is systemd's, nor if another process listens here, too.
func (l *listener) ours() bool {
	if l.given == nil {
		return !l.sockets.passed
	}
	select {
	case <-l.sockets.serving:
		return !l.sockets.passed && !l.given.activated
	default:
		return false
	}
}
