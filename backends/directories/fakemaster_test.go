package directories

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

// fakeMaster plays a conversation on each connection that it gets: "S:" is what it says, "C:" what the client has to say, "S*"
// something to do: starttls, hang or close. Where nothing of that comes last it answers NOOP, with what the test has it say
// before. The last conversation is played again and again.
type fakeMaster struct {
	net.Listener
	t     testing.TB
	tls   *tls.Config
	says  chan string
	plays chan int // the number of a conversation that begins
	done  sync.WaitGroup
}

const greeting = `
S: * AUTH "PLAIN"
S: * PARTIAL-UPDATE
S: * OK MUPDATE "master.example" "Cyrus IMAP" "3.6.1" "(master)"
C: U1 UPDATE
`

func startMaster(t testing.TB, conversations ...string) *fakeMaster {
	t.Helper()
	return startTLSMaster(t, devca.Leaf{}, conversations...)
}

func startTLSMaster(t testing.TB, leaf devca.Leaf, conversations ...string) *fakeMaster {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	settings := &tls.Config{Certificates: []tls.Certificate{leaf.TLS}}
	m := &fakeMaster{Listener: l, t: t, tls: settings, says: make(chan string), plays: make(chan int, 1000)}
	m.done.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			m.plays <- n
			m.done.Go(func() {
				defer conn.Close()
				if err := m.play(conn, conversations[min(n, len(conversations)-1)]); err != nil && !errors.Is(err, net.ErrClosed) {
					t.Errorf("conversation %d: %v", n, err)
				}
			})
		}
	})
	t.Cleanup(m.stop)
	return m
}

// stop ends it for all who come; those who are there go by themselves.
func (m *fakeMaster) stop() {
	m.Close()
	m.done.Wait()
}

func (m *fakeMaster) address() configs.Address {
	return configs.Address{Network: "tcp", Address: m.Addr().String()}
}

func (m *fakeMaster) play(conn net.Conn, conversation string) error {
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	in := bufio.NewReader(conn)
	for line := range strings.Lines(conversation) {
		line = strings.TrimSuffix(line, "\n")
		what, text, _ := strings.Cut(line, " ")
		switch {
		case line == "":
		case what == "S:":
			text = strings.ReplaceAll(text, `\r\n`, "\r\n")
			if _, err := io.WriteString(conn, text+"\r\n"); err != nil {
				return nil // the client has had enough
			}
		case what == "C:":
			got, err := in.ReadString('\n')
			if err != nil {
				return nil
			}
			if strings.TrimRight(got, "\r\n") != text {
				return errors.New("client says " + got + ", and not " + text)
			}
		case line == "S* starttls":
			conn = tls.Server(conn, m.tls)
			in = bufio.NewReader(conn)
		case line == "S* hang":
			_, _ = io.Copy(io.Discard, in)
		case line == "S* close":
			return nil
		default:
			return errors.New("no such line: " + line)
		}
	}
	return m.follow(conn, in)
}

// follow answers NOOP until the client goes, or is told "close".
func (m *fakeMaster) follow(conn net.Conn, in *bufio.Reader) error {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil
		}
		tag, ok := strings.CutSuffix(line, " NOOP\r\n")
		if !ok {
			return errors.New("client says " + line)
		}
		say := ""
		select {
		case say = <-m.says:
		default:
		}
		if say == "close" {
			return nil
		}
		if _, err := io.WriteString(conn, say+tag+" OK \"done\"\r\n"); err != nil {
			return nil
		}
	}
}

// say has the master say something before its next answer to NOOP.
func (m *fakeMaster) say(lines ...string) {
	m.t.Helper()
	text := strings.Join(lines, "\r\n")
	if text != "close" {
		text += "\r\n"
	}
	select {
	case m.says <- text:
	case <-time.After(10 * time.Second):
		m.t.Fatal("nobody asks the master")
	}
}

// awaitPlay waits until a conversation begins.
func (m *fakeMaster) awaitPlay(n int) {
	m.t.Helper()
	for {
		select {
		case got := <-m.plays:
			if got == n {
				return
			}
		case <-time.After(10 * time.Second):
			m.t.Fatalf("conversation %d does not begin", n)
		}
	}
}

func openMurder(t testing.TB, c configs.Directory, log *zap.Logger) Directory {
	t.Helper()
	c.Kind = configs.DirectoryMUPDATE
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	d, err := Open("murder", c, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}
