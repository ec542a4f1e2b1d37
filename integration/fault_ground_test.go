package integration

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the tests of faults stand on: a store without a will of its own, crowds of clients, and a system that grants jackdaw less.

// quickBackend is a backend of that name for a quickStore, with more lines.
func quickBackend(name, address string, lines ...string) string {
	return fmt.Sprintf("[[backend]]\nname = %q\nimap = %q\n%s\n", name, address, strings.Join(lines, "\n"))
}

// letterSize is more than there is room for between a store and a client who reads nothing.
const letterSize = 700 << 10

// letter is what a quickStore answers to FETCH. Every line says where it is.
var letter = sync.OnceValue(func() string {
	var b strings.Builder
	for b.Len() < letterSize {
		fmt.Fprintf(&b, "line %d\r\n", b.Len())
	}
	return b.String()
})

// sendLetter answers FETCH. What its reader does not take must not fill the system's memory for all connections.
func sendLetter(conn net.Conn, tag string) {
	_ = conn.(*net.TCPConn).SetWriteBuffer(32 << 10)
	fmt.Fprintf(conn, "* 1 FETCH (BODY[] {%d}\r\n", len(letter()))
	_, _ = io.WriteString(conn, letter())
	fmt.Fprintf(conn, ")\r\n%s OK done\r\n", tag)
}

// fetches reads a letter, which must be whole.
func (d *dialog) fetches() {
	d.t.Helper()
	d.tag++
	d.send(fmt.Sprintf("a%d FETCH 1 BODY[]", d.tag))
	d.takesLetter()
}

// takesLetter reads the answer to the latest command, which is FETCH.
func (d *dialog) takesLetter() {
	d.t.Helper()
	d.expect("* 1 FETCH (BODY[] {")
	got := make([]byte, len(letter()))
	d.wait()
	if n, err := io.ReadFull(d.in, got); err != nil {
		d.t.Fatalf("after %d bytes of a letter: %v", n, err)
	}
	if string(got) != letter() {
		d.t.Fatal("the letter is not what it was")
	}
	d.expect(")")
	d.expect(fmt.Sprintf("a%d OK", d.tag))
}

// crowded is held by who has thousands of connections: there are not descriptors enough for all such tests at once.
var crowded sync.Mutex

// fewer is a number of clients, or less where the race detector makes each of them dear.
func fewer(many int) int {
	if raceEnabled {
		return many / 10
	}
	return many
}

// all does something for each of many, some at a time, and fails for the first errors.
func all(t testing.TB, many int, do func(i int) error) {
	t.Helper()
	var workers sync.WaitGroup
	var next, failed atomic.Int64
	for range 8 {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < many; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil && failed.Add(1) <= 3 {
					t.Errorf("client %d: %v", i, err)
				}
			}
		})
	}
	workers.Wait()
	if n := failed.Load(); n > 0 {
		t.Fatalf("%d of %d failed", n, many)
	}
}

// member is one of a crowd.
type member struct {
	net.Conn
	in *bufio.Reader
}

// crowdOf has so many members logged in from far away. They leave with the test, if they have not before.
func (jd *jackdaw) crowdOf(many int) []*member {
	jd.t.Helper()
	config := jd.tls("mail.a.example")
	members := make([]*member, many)
	jd.t.Cleanup(func() {
		for _, m := range members {
			if m != nil {
				m.Close()
			}
		}
	})
	all(jd.t, many, func(i int) error {
		dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%200))},
			Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { beFarAway(int(fd)) })
			}}
		conn, err := tls.DialWithDialer(&dialer, "tcp", jd.at(portIMAPS), config)
		if err != nil {
			return err
		}
		members[i] = &member{conn, bufio.NewReaderSize(conn, 256)}
		return members[i].says(fmt.Sprintf("a LOGIN user%d@a.example %s", i, password), "a OK")
	})
	return members
}

// beFarAway makes a socket that is to connect a client's beyond a real network: loopback has buffers of megabytes for each.
func beFarAway(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 32<<10)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1400)
}

// says writes a line, and reads up to the answer.
func (m *member) says(line, answer string) error {
	_ = m.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(m, line+"\r\n"); err != nil {
		return err
	}
	return m.hears(answer)
}

// hears reads up to a line that begins so.
func (m *member) hears(answer string) error {
	_ = m.SetDeadline(time.Now().Add(patience))
	for {
		line, err := m.in.ReadString('\n')
		if err != nil {
			return fmt.Errorf("waiting for %q: %w", answer, err)
		}
		if strings.HasPrefix(line, answer) {
			return nil
		}
	}
}

// served wants the next client to log in, at the first try.
func (jd *jackdaw) served() {
	jd.t.Helper()
	d := jd.login("mail.a.example", "alice@a.example")
	d.ask("NOOP")
	d.ask("LOGOUT")
	d.conn.Close()
}

// recovers waits until jackdaw knows that a store's IMAP is down, mends the store, and waits until jackdaw knows that, too: the next
// client is served then.
func (jd *jackdaw) recovers(mend func()) {
	jd.t.Helper()
	jd.logged(jd.t, "store cannot be used", `"protocol":"imap"`)
	mend()
	jd.logged(jd.t, "store is back", `"protocol":"imap"`)
	jd.served()
}

// descriptors is how many a process has.
func (p *process) descriptors(t testing.TB) int {
	t.Helper()
	files, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(p.cmd.Process.Pid), "fd"))
	must(t, err)
	return len(files)
}
