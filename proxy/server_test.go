package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/freeport"
	"jackdaw/internal/inherit"
)

// host is a server whose store nobody can reach.
type host struct {
	*Server
	t     *testing.T
	setup Setup
}

func newHost(t *testing.T) *host {
	config := testConfig()
	access := testAccess
	access.Addresses = []configs.Address{{Network: "unix", Address: "/nonexistent"}}
	h := &host{NewServer(zap.NewNop(), inherit.NewSockets()), t, testSetup(t, config, access)}
	t.Cleanup(func() {
		if err := h.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// listens applies the configuration with these listeners.
func (h *host) listens(listeners ...configs.Listener) {
	h.t.Helper()
	if err := h.apply(listeners...); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) apply(listeners ...configs.Listener) error {
	config := *h.setup.Config
	config.Listen.Listeners = listeners
	setup := h.setup
	setup.Config = &config
	return h.Apply(setup)
}

// imap is a listener for IMAP.
func imap(network, address string) configs.Listener {
	return configs.Listener{Service: configs.IMAP, Name: "imap", Address: configs.Address{Network: network, Address: address},
		TLS: configs.TLSStartTLS, Mode: 0o660}
}

// freePort returns a port that nobody listened on a moment ago.
func freePort(t *testing.T) string {
	l, err := freeport.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// greeting connects and returns the first line, or "" if there is none.
func greeting(t *testing.T, network, address string) string {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return line
}

func wantGreeting(t *testing.T, network, address string, want bool) {
	t.Helper()
	if line := greeting(t, network, address); strings.HasPrefix(line, "* OK") != want {
		t.Errorf("%s greets with %q, want a greeting: %v", address, line, want)
	}
}

// Listeners come and go; those that stay keep their sockets, and sessions what they began with.
func TestApply(t *testing.T) {
	h := newHost(t)
	stays, goes := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	h.listens(imap("tcp", stays), imap("tcp", goes))
	kept := h.sockets[configs.Address{Network: "tcp", Address: stays}].Listener
	old, err := net.Dial("tcp", stays)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	read := bufio.NewReader(old)
	if line, err := read.ReadString('\n'); !strings.Contains(line, "proxy.example.net") {
		t.Fatal(line, err)
	}

	comes := "127.0.0.1:" + freePort(t)
	h.setup.Config.Hostname = "new.example.net"
	h.listens(imap("tcp", stays), imap("tcp", comes))
	wantGreeting(t, "tcp", goes, false)
	wantGreeting(t, "tcp", comes, true)
	if line := greeting(t, "tcp", stays); !strings.Contains(line, "new.example.net") {
		t.Errorf("a new session has old settings: %q", line)
	}
	if h.sockets[configs.Address{Network: "tcp", Address: stays}].Listener != kept {
		t.Error("the socket was opened anew")
	}
	say(t, old, "a NOOP\r\n")
	if line, err := read.ReadString('\n'); line != "a OK done\r\n" {
		t.Errorf("an old session says %q, %v", line, err)
	}
}

// If one listener cannot be had, everything stays as it was.
func TestApplyError(t *testing.T) {
	h := newHost(t)
	stays, comes := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	h.listens(imap("tcp", stays))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	h.setup.Config.Hostname = "new.example.net"
	// The order of listeners is not the order of opening, so there are several to be closed again.
	more := "127.0.0.1:" + freePort(t)
	err = h.apply(imap("tcp", comes), imap("tcp", taken.Addr().String()), imap("tcp", more))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.HasPrefix(err.Error(), "listening for imap: ") ||
		!strings.Contains(err.Error(), "another program has the port") {
		t.Error("the error is", err)
	}
	if line := greeting(t, "tcp", stays); !strings.Contains(line, "proxy.example.net") {
		t.Errorf("after an error: %q", line)
	}
	wantGreeting(t, "tcp", comes, false)
	wantGreeting(t, "tcp", more, false)
}

// A unix socket gets its mode, and goes with its listener.
func TestApplyUnix(t *testing.T) {
	h := newHost(t)
	path := filepath.Join(t.TempDir(), "imap")
	listener := imap("unix", path)
	listener.Mode = 0o606
	h.listens(listener)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o606 {
		t.Error("mode:", info.Mode(), err)
	}
	wantGreeting(t, "unix", path, true)
	listener.Mode = 0o600
	h.listens(listener)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error("mode after a reload:", info.Mode(), err)
	}
	wrong := imap("unix", path+"2")
	wrong.Group = "nobody's group"
	for range 20 { // as there is no order in which sockets have their turn
		listener.Mode = 0o666
		if err := h.apply(listener, wrong); err == nil {
			t.Fatal("there is a group of that name")
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatal("mode after a reload that has failed:", info.Mode(), err)
		}
	}
	h.listens()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket is still there:", err)
	}
}

// A group that does not exist is an error, and leaves no socket that everybody may use.
func TestApplyUnixGroup(t *testing.T) {
	h := newHost(t)
	path := filepath.Join(t.TempDir(), "imap")
	listener := imap("unix", path)
	listener.Group = "no-such-group"
	if err := h.apply(listener); err == nil {
		t.Error("no error")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket is still there:", err)
	}
}

// The socket of a dead process is removed, that of a living one and what is no socket are not.
func TestApplyStaleSocket(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	stale, alive, file := filepath.Join(dir, "stale"), filepath.Join(dir, "alive"), filepath.Join(dir, "file")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	living, err := net.Listen("unix", alive)
	if err != nil {
		t.Fatal(err)
	}
	defer living.Close()
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.listens(imap("unix", stale))
	wantGreeting(t, "unix", stale, true)
	for _, path := range []string{alive, file} {
		if err := h.apply(imap("unix", path)); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

// A socket whose queue is full belongs to somebody who is alive.
func TestApplyBusySocket(t *testing.T) {
	h := newHost(t)
	path := filepath.Join(t.TempDir(), "busy")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for { // nobody accepts
		conn, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		defer conn.Close()
	}
	if err := h.apply(imap("unix", path)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Error("the error is", err)
	}
}

// IPv6 is listened on like IPv4, and its clients are told apart.
func TestApplyIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("this system has no IPv6")
	} else {
		l.Close()
	}
	h := newHost(t)
	welcome, unwelcome := "[::1]:"+freePort(t), "[::1]:"+freePort(t)
	picky := imap("tcp", unwelcome)
	picky.From = loopback // of IPv4
	h.listens(imap("tcp", welcome), picky)
	wantGreeting(t, "tcp", welcome, true)
	wantGreeting(t, "tcp", unwelcome, false)
}

// Who is not in `from` hears nothing; an IPv4 client of a socket for both is the IPv4 client that it is.
func TestFrom(t *testing.T) {
	h := newHost(t)
	port := freePort(t)
	listener := imap("tcp", ":"+port)
	listener.From = loopback
	h.listens(listener)
	wantGreeting(t, "tcp", "127.0.0.1:"+port, true)
	listener.From = configs.Networks{Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	h.listens(listener)
	wantGreeting(t, "tcp", "127.0.0.1:"+port, false)
	listener.From = configs.Networks{Unix: true}
	h.listens(listener)
	wantGreeting(t, "tcp", "127.0.0.1:"+port, false)
}

// A listener on one address beside a wildcard of the same port has its own settings, from its own clients.
func TestWildcard(t *testing.T) {
	h := newHost(t)
	port := freePort(t)
	own := imap("tcp", "127.0.0.1:"+port)
	own.PlaintextFrom = loopback
	h.listens(imap("tcp", ":"+port), own)
	if line := greeting(t, "tcp", "127.0.0.1:"+port); strings.Contains(line, "LOGINDISABLED") {
		t.Errorf("the address has not its own settings: %q", line)
	}
	if line := greeting(t, "tcp", "127.0.0.2:"+port); !strings.Contains(line, "LOGINDISABLED") {
		t.Errorf("another address has its settings: %q", line)
	}
	if all := h.Addresses(); len(all) != 2 || all[0].Service != configs.IMAP {
		t.Error("addresses:", all)
	}
}

// exhausted is a listener in a process that has no file descriptors left, for a while.
type exhausted struct {
	net.Listener
	failures int
}

func (e *exhausted) Accept() (net.Conn, error) {
	if e.failures--; e.failures < 0 {
		return nil, net.ErrClosed
	}
	return nil, syscall.EMFILE
}

func (e *exhausted) Addr() net.Addr { return &net.TCPAddr{} }

// Errors at accept pass: the server waits, longer each time up to a second, and goes on.
func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		NewServer(zap.NewNop(), inherit.NewSockets()).accept(&socket{Listener: &exhausted{failures: 10}})
		if took := time.Since(began); took != (5+10+20+40+80+160+320+640+1000+1000)*time.Millisecond {
			t.Error("it paused for", took)
		}
	})
}

// A server that goes says so to its clients, takes no more, and lets nobody set it up again.
func TestShutdown(t *testing.T) {
	h := newHost(t)
	address := "127.0.0.1:" + freePort(t)
	h.listens(imap("tcp", address))
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	read := bufio.NewReader(conn)
	if line, err := read.ReadString('\n'); !strings.HasPrefix(line, "* OK") {
		t.Fatal(line, err)
	}
	if err := h.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(read); string(rest) != "* BYE Server is shutting down, try again\r\n" || err != nil {
		t.Errorf("%q %v", rest, err)
	}
	wantGreeting(t, "tcp", address, false)
	if err := h.apply(imap("tcp", address)); err != errShutdown {
		t.Error("set up again:", err)
	}
}

// Shutdown waits no longer than it is told to.
func TestShutdownLimit(t *testing.T) {
	h := newHost(t)
	held := &session{settings: testSettings(h.setup, io.Discard), arrival: new(arrival), cancel: func(error) {}}
	h.sessions.enter(held)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.Shutdown(ctx); err != context.Canceled {
		t.Error("it waited:", err)
	}
	h.sessions.leave(held)
}

// A server without sessions has nobody to wait for, however little time there is.
func TestShutdownAtOnce(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 20 {
		if err := NewServer(zap.NewNop(), inherit.NewSockets()).Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
