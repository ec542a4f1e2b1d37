package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// manager plays systemd: it hears what a service says of itself.
type manager struct {
	t    testing.TB
	conn *net.UnixConn
	path string
}

func newManager(t testing.TB) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(serverDir(t), "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	m.conn = conn
	return m
}

// hears waits for a message that has all the words, and returns its lines by their names.
func (m *manager) hears(words ...string) map[string]string {
	m.t.Helper()
	_ = m.conn.SetReadDeadline(time.Now().Add(patience))
	for text := make([]byte, 4096); ; {
		n, err := m.conn.Read(text)
		if err != nil {
			m.t.Fatalf("no message with %q: %v", words, err)
		}
		if !containsAll(string(text[:n]), words) {
			continue
		}
		lines := make(map[string]string)
		for line := range strings.SplitSeq(string(text[:n]), "\n") {
			name, value, _ := strings.Cut(line, "=")
			lines[name] = value
		}
		return lines
	}
}

// TestSystemd: the service manager hears when jackdaw serves, reads its configuration again, hands over, and stops, and all the
// while that it is alive. It listens on the socket that it is given.
func TestSystemd(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	d := newDynasty(t)
	given, idle := passedSocket(t, d.at(portIMAPS)), passedSocket(t, d.at(portIMAP))
	d.files = []*os.File{given, idle}
	d.env = []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=1000000", "LISTEN_FDS=2", "LISTEN_FDNAMES=imaps:surplus"}
	d.start()
	given.Close()
	idle.Close()
	m.hears("READY=1", "STATUS=Serving")
	m.hears("WATCHDOG=1")
	d.logged(t, "systemd has given a socket that is no listener", d.at(portIMAP))
	session := d.login("mail.a.example", "alice@a.example")

	d.ask("reload")
	if m.hears("RELOADING=1")["MONOTONIC_USEC"] == "" {
		t.Error("there is no time with the reload")
	}
	m.hears("READY=1", "STATUS=Serving")
	d.write("surplus = 1\n")
	d.refuses("reload", "surplus")
	m.hears("RELOADING=1")
	m.hears("READY=1", "could not be read")
	d.write("")

	next := d.upgrade()
	m.hears("RELOADING=1")
	if lines := m.hears("MAINPID="); lines["MAINPID"] != fmt.Sprint(next) {
		t.Errorf("heard %v, want the process %d", lines, next)
	}
	m.hears("READY=1", "STATUS=Serving")
	m.hears("WATCHDOG=1")
	session.ask("NOOP")
	d.login("mail.a.example", "alice@a.example").conn.Close()

	must(t, syscall.Kill(next, syscall.SIGTERM))
	m.hears("STOPPING=1", "EXTEND_TIMEOUT_USEC=")
	session.until("* BYE") // of the former process, which is told to stop
	d.ends(next)
}

// passedSocket is a socket as systemd makes one, and passes it on.
func passedSocket(t testing.TB, address string) *os.File {
	t.Helper()
	l, err := net.Listen("tcp", address)
	must(t, err)
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	must(t, err)
	return file
}
