package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jackdaw/internal/devca"
)

func TestReadLine(t *testing.T) {
	for _, test := range []struct {
		name  string
		said  string
		lines []string
		end   error
	}{
		{"CR LF and LF", "a\r\nb\nc\r\n", []string{"a", "b", "c"}, io.EOF},
		{"empty lines", "\r\n\n", []string{"", ""}, io.EOF},
		{"nothing", "", nil, io.EOF},
		{"one CR belongs to the end", "a\r\r\n", []string{"a\r"}, io.EOF},
		{"a bare CR does not end a line", "a\rb\r\n", []string{"a\rb"}, io.EOF},
		{"the end within a line is no orderly one", "a\r\nb", []string{"a"}, io.ErrUnexpectedEOF},
		{"the end within a long line", x(5000), nil, io.ErrUnexpectedEOF},
		{"around the size of the buffer", x(4094) + "\r\n" + x(4095) + "\r\n" + x(4096) + "\r\n" + x(4097) + "\n",
			[]string{x(4094), x(4095), x(4096), x(4097)}, io.EOF},
		{"a CR at the end of the buffer", x(4095) + "\r\nb\n", []string{x(4095), "b"}, io.EOF},
		{"as long as can be", x(MaxCommand) + "\r\n" + x(MaxCommand) + "\n", []string{x(MaxCommand), x(MaxCommand)}, io.EOF},
		{"too long", x(MaxCommand+1) + "\r\n", nil, ErrTooLong},
		{"too long with LF", x(MaxCommand+1) + "\n", nil, ErrTooLong},
		{"far too long", x(10 * MaxCommand), nil, ErrTooLong},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := said(test.said)
			for _, want := range test.lines {
				line, err := c.ReadLine()
				if err != nil || string(line) != want {
					t.Fatalf("read %q and %v, want %q", shorten(string(line)), err, shorten(want))
				}
			}
			if line, err := c.ReadLine(); !same(err, test.end) {
				t.Errorf("read %q and %v at last, want %v", shorten(string(line)), err, test.end)
			}
		})
	}
}

// A peer that sends no line end is not heard out.
func TestReadLineGivesUp(t *testing.T) {
	peer := &script{chunks: slices.Repeat([]string{x(1000)}, 1000)}
	if _, err := New(peer).ReadLine(); !errors.Is(err, ErrTooLong) {
		t.Fatal(err)
	}
	if read := 1000 * (1000 - len(peer.chunks)); read > 2*MaxCommand {
		t.Errorf("took %d octets of a line", read)
	}
}

// Answers are kept back as long as there is something to read, and leave together before the network is waited for.
func TestFlushBeforeRead(t *testing.T) {
	peer := &script{chunks: []string{"a NOOP\r\nb NOOP\r\nc N", "OOP\r\n"}}
	c := New(peer)
	c.Send("* OK ", "ready", "\r\n")
	for range 3 {
		line, err := c.ReadLine()
		if err != nil {
			t.Fatal(err)
		}
		tag, _, _ := strings.Cut(string(line), " ")
		c.Send(tag, " OK\r\n")
	}
	if _, err := c.ReadLine(); err != io.EOF {
		t.Fatal(err)
	}
	want := []string{
		"> * OK ready\r\n",
		"< a NOOP\r\nb NOOP\r\nc N",
		"> a OK\r\nb OK\r\n",
		"< OOP\r\n",
		"> c OK\r\n",
		"< end",
	}
	if !slices.Equal(peer.record, want) {
		t.Errorf("the conversation was\n%q\nwant\n%q", peer.record, want)
	}
}

func TestFlushFails(t *testing.T) {
	broken := errors.New("broken")
	peer := &script{chunks: []string{"a\r\nb\r\n", "c\r\n"}}
	c := New(peer)
	if _, err := c.ReadLine(); err != nil {
		t.Fatal(err)
	}
	peer.broken = broken
	c.Send("answer\r\n")
	if line, err := c.ReadLine(); string(line) != "b" || err != nil {
		t.Errorf("what was read already is lost: %q, %v", line, err)
	}
	if _, err := c.ReadLine(); !errors.Is(err, broken) {
		t.Errorf("read on without being heard: %v", err)
	}
	peer.broken = nil
	c.Send("more\r\n")
	if err := c.Flush(); !errors.Is(err, broken) {
		t.Errorf("went on behind a gap: %v", err)
	}
	if _, _, err := c.Detach(); !errors.Is(err, broken) {
		t.Errorf("handed on behind a gap: %v", err)
	}
}

func TestDetach(t *testing.T) {
	peer := &script{chunks: []string{"a LOGIN\r\nb SELECT\r\nc ", "NOOP\r\n"}}
	c := New(peer)
	if _, err := c.ReadLine(); err != nil {
		t.Fatal(err)
	}
	c.Send("a OK\r\n")
	conn, rest, err := c.Detach()
	if conn != net.Conn(peer) || string(rest) != "b SELECT\r\nc " || err != nil {
		t.Fatalf("got %v, %q, %v", conn, rest, err)
	}
	if want := []string{"< a LOGIN\r\nb SELECT\r\nc ", "> a OK\r\n"}; !slices.Equal(peer.record, want) {
		t.Errorf("the conversation was %q, want %q", peer.record, want)
	}
	// The copy is ours: the reader's buffer is used again.
	again := New(&script{chunks: []string{"XXXXXXXXXXXX\r\n"}})
	if _, err := again.ReadLine(); err != nil || string(rest) != "b SELECT\r\nc " {
		t.Errorf("then it is %q, %v", rest, err)
	}
}

func TestDeadline(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := New(ours)
	defer c.Close()
	if err := c.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadLine(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read after the deadline: %v", err)
	}
	if c.RemoteAddr() != ours.RemoteAddr() {
		t.Error("another peer's address")
	}
}

// ends makes the settings of both sides of a TLS connection for mail.example.
var ends = sync.OnceValues(func() (server, client *tls.Config) {
	ca, err := devca.New()
	if err != nil {
		panic(err)
	}
	leaf, err := ca.Issue(devca.Options{Names: []string{"mail.example"}})
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{leaf.TLS}}, &tls.Config{RootCAs: ca.Pool(), ServerName: "mail.example"}
})

// side is one of the two that can begin TLS.
type side struct {
	name  string
	begin func(*Conn) error            // as the side that is tested
	peer  func(raw net.Conn) *tls.Conn // as the other
}

func sides() []side {
	server, client := ends()
	return []side{
		{"ServeTLS", func(c *Conn) error { return c.ServeTLS(context.Background(), server, nil) },
			func(raw net.Conn) *tls.Conn { return tls.Client(raw, client) }},
		{"DialTLS", func(c *Conn) error { return c.DialTLS(context.Background(), client) },
			func(raw net.Conn) *tls.Conn { return tls.Server(raw, server) }},
	}
}

// talk runs a peer beside the test; what it does is over when the test is.
func talk(t *testing.T, peer func(raw net.Conn)) *Conn {
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		peer(theirs)
	}()
	t.Cleanup(func() {
		_ = ours.Close()
		<-done
	})
	return New(ours)
}

func TestStartTLS(t *testing.T) {
	for _, side := range sides() {
		t.Run(side.name, func(t *testing.T) {
			c := talk(t, func(raw net.Conn) {
				_, _ = io.WriteString(raw, "STARTTLS\r\n")
				answer := make([]byte, len("OK\r\n"))
				if _, err := io.ReadFull(raw, answer); err != nil || string(answer) != "OK\r\n" {
					t.Errorf("peer got %q, %v", answer, err)
				}
				conn := side.peer(raw)
				_, _ = io.WriteString(conn, "secret\r\nmore")
				_, _ = io.ReadFull(conn, answer)
				if string(answer) != "YES\n" {
					t.Errorf("peer got %q under TLS", answer)
				}
			})
			if line, err := c.ReadLine(); string(line) != "STARTTLS" || err != nil {
				t.Fatalf("read %q, %v", line, err)
			}
			if c.TLS() != nil {
				t.Error("TLS before its time")
			}
			c.Send("OK\r\n") // leaves in the clear, before the handshake
			if err := side.begin(c); err != nil {
				t.Fatal(err)
			}
			if line, err := c.ReadLine(); string(line) != "secret" || err != nil {
				t.Fatalf("read %q, %v under TLS", line, err)
			}
			if state := c.TLS(); state == nil || !state.HandshakeComplete {
				t.Error("no TLS afterwards")
			}
			c.Send("YES\n")
			conn, rest, err := c.Detach()
			if _, ok := conn.(*tls.Conn); !ok || string(rest) != "more" || err != nil {
				t.Errorf("detached %T, %q, %v", conn, rest, err)
			}
		})
	}
}

// What is read in one go with the line before the handshake must not be taken for something that came inside of it.
func TestStartTLSInjection(t *testing.T) {
	for _, side := range sides() {
		for _, injected := range []string{"a", "\r\n", "NOOP\r\n", "\x16\x03\x01"} {
			t.Run(side.name+" "+injected, func(t *testing.T) {
				c := talk(t, func(raw net.Conn) {
					_, _ = io.WriteString(raw, "STARTTLS\r\n"+injected)
					if sent, _ := io.ReadAll(raw); string(sent) != "OK\r\n" {
						t.Errorf("peer got %q, want no handshake", sent)
					}
				})
				if _, err := c.ReadLine(); err != nil {
					t.Fatal(err)
				}
				c.Send("OK\r\n")
				if err := side.begin(c); !errors.Is(err, ErrInjection) {
					t.Errorf("began TLS with %v, want ErrInjection", err)
				}
				if c.TLS() != nil {
					t.Error("TLS was begun")
				}
				_ = c.Close()
			})
		}
	}
}

// What comes in the clear later meets the TLS layer, which takes no plaintext.
func TestStartTLSLateInjection(t *testing.T) {
	for _, side := range sides() {
		t.Run(side.name, func(t *testing.T) {
			c := talk(t, func(raw net.Conn) {
				_, _ = io.WriteString(raw, "STARTTLS\r\n")
				go func() { _, _ = io.Copy(io.Discard, raw) }()
				_, _ = io.WriteString(raw, "a LOGIN alice secret\r\n")
			})
			if _, err := c.ReadLine(); err != nil {
				t.Fatal(err)
			}
			err := side.begin(c)
			if err == nil || errors.Is(err, ErrInjection) {
				t.Errorf("handshake ended with %v", err)
			}
			_ = c.Close()
		})
	}
}

// The end of ctx ends a handshake with a silent peer.
func TestStartTLSContext(t *testing.T) {
	server, _ := ends()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := New(ours)
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(time.Millisecond, cancel)
	if err := c.ServeTLS(ctx, server, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("handshake ended with %v", err)
	}
}
