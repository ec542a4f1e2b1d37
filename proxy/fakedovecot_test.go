package proxy

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeDovecot is Dovecot's auth service, in the hands of a test. Lines have a blank for each tab, and N for the number of a question;
// of a question they have the mechanism and the first message alone.
type fakeDovecot struct {
	socket string
	lines  chan heardLine
	last   heardLine
}

// heardLine is a line, and where it has come from.
type heardLine struct {
	conn   net.Conn
	number string
	text   string
}

func newFakeDovecot(t *testing.T, mechanisms []string) *fakeDovecot {
	dir, err := os.MkdirTemp("", "jackdaw") // a socket's name has room for about a hundred octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &fakeDovecot{socket: filepath.Join(dir, "auth"), lines: make(chan heardLine, 10)}
	listener, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go d.serve(conn, mechanisms)
		}
	}()
	return d
}

func (d *fakeDovecot) serve(conn net.Conn, mechanisms []string) {
	defer conn.Close()
	fmt.Fprintf(conn, "VERSION\t1\t2\nMECH\t%s\nSPID\t1\nDONE\n", strings.Join(mechanisms, "\nMECH\t"))
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		words := strings.Split(lines.Text(), "\t")
		switch words[0] {
		case "VERSION", "CPID":
			continue
		case "AUTH":
			d.lines <- heardLine{conn, words[1], strings.Join([]string{"AUTH N", words[2], words[len(words)-1]}, " ")}
		default:
			d.lines <- heardLine{conn, words[1], strings.TrimSpace(words[0] + " N " + strings.Join(words[2:], " "))}
		}
	}
}

// hears is what it is told next; "" if that does not come.
func (d *fakeDovecot) hears() string {
	select {
	case d.last = <-d.lines:
		return d.last.text
	case <-time.After(patience):
		return ""
	}
}

// says answers who has spoken last.
func (d *fakeDovecot) says(line string) error {
	verdict, rest, _ := strings.Cut(line, " N")
	_, err := fmt.Fprintf(d.last.conn, "%s\t%s%s\n", verdict, d.last.number, strings.ReplaceAll(rest, " ", "\t"))
	return err
}
