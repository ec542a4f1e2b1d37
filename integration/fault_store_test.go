package integration

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// quickly has a store looked at often, so that nobody waits long to see it back.
const quickly = `health = "1s"`

// TestStoreKilled: the sessions on a store that is killed end, those on the other one go on. When it is back the first login is good.
func TestStoreKilled(t *testing.T) {
	t.Parallel()
	one := startDovecot(t, "store1", passwords, "alice@a.example").serving("imap", "pop3")
	two := startDovecot(t, "store2", passwords, "bob@b.example").serving("imap", "pop3")
	jd := startJackdaw(t, one.backend(quickly), two.backend(quickly), domainTo("a.example", one), domainTo("b.example", two))
	jd.knows(one, two)
	other := jd.login("mail.b.example", "bob")
	var lost []*dialog
	for range 8 {
		lost = append(lost, jd.login("mail.a.example", "alice"), jd.enter(t, client{}.at("pop3s", "mail.a.example"), "alice@a.example"))
	}
	one.fail(t)
	for _, d := range lost {
		d.ended()
	}
	jd.wantsStatus(t, "mail.a.example", "alice", unavailable)
	other.ask("NOOP")
	jd.login("mail.b.example", "bob").conn.Close()
	jd.recovers(one.restart)
	other.ask("NOOP")
}

// TestStoreHung: a store that takes connections and says nothing is a temporary failure, in a bounded time, and in nobody else's
// way. Sessions that were on it go on when it does.
func TestStoreHung(t *testing.T) {
	t.Parallel()
	one := startDovecot(t, "store1", passwords, "alice@a.example").serving("imap")
	two := startDovecot(t, "store2", passwords, "bob@b.example").serving("imap")
	jd := startJackdaw(t, one.backend(quickly), two.backend(quickly), domainTo("a.example", one), domainTo("b.example", two))
	jd.knows(one, two)
	there := jd.login("mail.a.example", "alice")
	resume := one.hang(t)
	defer resume()
	there.send("x NOOP")
	var hopeful sync.WaitGroup
	for range 8 {
		d := jd.imap("mail.a.example")
		d.send("a LOGIN alice " + password)
		hopeful.Go(func() {
			if line, err := d.in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "a "+unavailable) {
				t.Errorf("of a store that hangs somebody is told %q, %v", line, err)
			}
		})
	}
	for range 8 {
		jd.login("mail.b.example", "bob").conn.Close()
	}
	hopeful.Wait()
	jd.recovers(resume)
	there.until("x OK")
}

// TestStoreDrips: a store that says one byte a second is a temporary failure, and in nobody else's way. Who was on it already gets
// what it says, as it says it.
func TestStoreDrips(t *testing.T) {
	t.Parallel()
	drip := startDrip(t, quickStore(t))
	jd := startJackdaw(t, quickBackend("store1", drip.at, quickly), quickBackend("store2", quickStore(t)),
		"[[route]]\ndomain = [\"a.example\"]\nto = \"store1\"\n[[route]]\nto = \"store2\"\n")
	jd.logged(t, "learned capabilities", `"backend":"store1"`)
	there := jd.login("mail.a.example", "alice@a.example")
	drip.slow.Store(true)
	there.send("x NOOP")
	hopeful := jd.imap("mail.a.example")
	hopeful.send("a LOGIN alice@a.example " + password)
	for range 8 {
		jd.login("mail.b.example", "bob@b.example").conn.Close()
	}
	hopeful.expect("a " + unavailable)
	there.until("x OK")
	jd.recovers(func() { drip.slow.Store(false) })
}

// drip stands before a store, and lets its words through one byte a second, if it is to be slow.
type drip struct {
	at   string
	slow atomic.Bool
	done chan struct{}
}

func startDrip(t testing.TB, store string) *drip {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	d := &drip{at: l.Addr().String(), done: make(chan struct{})}
	var calls sync.WaitGroup
	calls.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			calls.Go(func() { d.connect(client, store) })
		}
	})
	t.Cleanup(func() {
		close(d.done)
		l.Close()
		calls.Wait()
	})
	return d
}

func (d *drip) connect(client net.Conn, address string) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(server, client)
		server.Close()
	}()
	defer server.Close()
	for buffer := make([]byte, 4096); ; {
		room := buffer
		if d.slow.Load() {
			room = buffer[:1]
			select {
			case <-d.done:
				return
			case <-time.After(time.Second):
			}
		}
		n, err := server.Read(room)
		if err != nil {
			return
		}
		if _, err := client.Write(room[:n]); err != nil {
			return
		}
	}
}
