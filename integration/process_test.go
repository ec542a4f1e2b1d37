package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take that is waited for. Tests that pass never wait so long.
var patience = 30 * time.Second

// eventually asks until the answer is yes.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}

var hosts atomic.Int32

// newHost returns a loopback address that no other server has, of this or another run: each can have the ports it likes. There
// are about a thousand of them.
func newHost() string {
	const few = 250
	pid, n := os.Getpid(), int(hosts.Add(1))
	return fmt.Sprintf("127.%d.%d.%d", (64+n/few*64+pid>>8&63)&255, pid&255, 2+n%few)
}

var port6 atomic.Int32

// newPort6 returns a port of ::1, which is the only address of its kind, that nobody has at the moment. It is below those
// that the system gives to clients.
func newPort6(t testing.TB) string {
	t.Helper()
	for range 1000 {
		port := fmt.Sprint(12000 + (os.Getpid()*67+int(port6.Add(1)))%20000)
		if l, err := net.Listen("tcp", net.JoinHostPort("::1", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port of ::1 is free")
	return ""
}

// The ports of every server, real or under test.
const (
	portIMAP        = "10143"
	portIMAPS       = "10993"
	portPOP3        = "10110"
	portPOP3S       = "10995"
	portSubmission  = "10587"
	portSubmissions = "10465"
	portSieve       = "14190"
	portLMTP        = "10024"
	portSMTP        = "10025" // takes mail from anybody
)

// ports are values for configurations, by the names of services.
func ports() map[string]string {
	return map[string]string{
		"imap": portIMAP, "imaps": portIMAPS, "pop3": portPOP3, "pop3s": portPOP3S, "submission": portSubmission,
		"submissions": portSubmissions, "sieve": portSieve, "lmtp": portLMTP, "smtp": portSMTP,
	}
}

// process is a running server.
type process struct {
	cmd  *exec.Cmd
	log  string // a file
	done chan struct{}
	end  error // how it ended, once done is closed
}

// startProcess runs a server until the test ends, when nobody needs its data any more. What it writes goes to its log, which a failed test
// shows; its errors do not where they already go elsewhere.
func startProcess(t testing.TB, log string, cmd *exec.Cmd) *process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout = out
	if cmd.Stderr == nil {
		cmd.Stderr = out
	}
	detach(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		p.end = cmd.Wait()
		p.killGroup() // what it has left behind
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", filepath.Base(cmd.Path), p.Log())
		}
	})
	return p
}

// stop ends the server as an init system does, and says how it ended. It may be called again.
func (p *process) stop() error {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.kill()
	}
	return p.end
}

// kill ends the server and all of its children at once.
func (p *process) kill() {
	select {
	case <-p.done:
	default:
		p.killGroup()
		<-p.done
	}
}

func (p *process) killGroup() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// answers waits until the server takes connections.
func (p *process) answers(t testing.TB, network, address string) {
	t.Helper()
	eventually(t, address+" answers", func() bool {
		select {
		case <-p.done:
			t.Fatalf("%s ended (%v):\n%s", p.cmd.Path, p.end, p.Log())
		default:
		}
		conn, err := net.Dial(network, address)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

// Log is what the server has written so far.
func (p *process) Log() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// logged waits for a line of the log that has all the words, and returns it.
func (p *process) logged(t testing.TB, words ...string) (line string) {
	t.Helper()
	eventually(t, fmt.Sprintf("a log line with %q", words), func() bool {
		for l := range strings.Lines(p.Log()) {
			if containsAll(l, words) {
				line = l
				return true
			}
		}
		return false
	})
	return line
}

// loggedTimes waits until the log has that many lines with all the words.
func (p *process) loggedTimes(t testing.TB, times int, words ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d log lines with %q", times, words), func() bool { return p.count(words...) == times })
}

// count is how many lines of the log have all the words.
func (p *process) count(words ...string) (n int) {
	for line := range strings.Lines(p.Log()) {
		if containsAll(line, words) {
			n++
		}
	}
	return n
}

// servant is whom real servers run as: ourselves, and in place of root the user that install-servers.sh makes.
func servant(t testing.TB) *user.User {
	t.Helper()
	me, err := user.Current()
	if err == nil && me.Uid == "0" {
		me, err = user.Lookup("cyrus")
	}
	if err != nil {
		t.Fatal(err)
	}
	return me
}

// serverDir makes a directory that a server may write to. Its path is short, because sockets are going to stand in it.
func serverDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "jd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	give(t, dir)
	return dir
}

// give makes a path the servant's own.
func give(t testing.TB, path string) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	u := servant(t)
	if err := os.Chown(path, number(t, u.Uid), number(t, u.Gid)); err != nil {
		t.Fatal(err)
	}
}

// write makes a file for a server to read.
func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	give(t, path)
}

// expand puts values in the place of $names.
func expand(text string, values map[string]string) string {
	return os.Expand(text, func(name string) string { return values[name] })
}

func groupOf(t testing.TB, u *user.User) string {
	t.Helper()
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		t.Fatal(err)
	}
	return g.Name
}

func number(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
