package integration

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// dialog is a conversation with a server, line by line.
type dialog struct {
	t        testing.TB
	conn     net.Conn
	in       *bufio.Reader
	tag      int
	protocol string // where somebody asks for it
}

// dial begins a conversation in the clear.
func dial(t testing.TB, address string) *dialog {
	t.Helper()
	return dialFrom(t, "", "tcp", address)
}

// dialFrom is dial from a loopback address of the client's own, or on a socket.
func dialFrom(t testing.TB, host, network, address string) *dialog {
	t.Helper()
	var dialer net.Dialer
	if host != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(host)}
	}
	conn, err := dialer.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	d := &dialog{t: t}
	d.over(conn)
	return d
}

// dialTLS begins a conversation within TLS.
func dialTLS(t testing.TB, address string, config *tls.Config) *dialog {
	t.Helper()
	d := dial(t, address)
	d.handshake(config)
	return d
}

func (d *dialog) over(conn net.Conn) { d.conn, d.in = conn, bufio.NewReader(conn) }

// wait gives the next step its time.
func (d *dialog) wait() { _ = d.conn.SetDeadline(time.Now().Add(patience)) }

// handshake begins TLS, now or after STARTTLS.
func (d *dialog) handshake(config *tls.Config) {
	d.t.Helper()
	conn := tls.Client(d.conn, config)
	d.wait()
	if err := conn.Handshake(); err != nil {
		d.t.Fatal(err)
	}
	d.over(conn)
}

// send writes a line.
func (d *dialog) send(line string) {
	d.t.Helper()
	d.write(line + "\r\n")
}

// write writes text as it is.
func (d *dialog) write(text string) {
	d.t.Helper()
	d.wait()
	if _, err := io.WriteString(d.conn, text); err != nil {
		d.t.Fatalf("sending %q: %v", text[:min(len(text), 100)], err)
	}
}

// read returns the next line.
func (d *dialog) read() string {
	d.t.Helper()
	d.wait()
	line, err := d.in.ReadString('\n')
	if err != nil {
		d.t.Fatalf("after %q: %v", line, err)
	}
	return strings.TrimRight(line, "\r\n")
}

// expect wants the next line to begin with a prefix, and returns the rest of it.
func (d *dialog) expect(prefix string) string {
	d.t.Helper()
	line := d.read()
	rest, ok := strings.CutPrefix(line, prefix)
	if !ok {
		d.t.Fatalf("got %q, want %q", line, prefix)
	}
	return rest
}

// until reads up to a line that begins with one of the prefixes, and returns all lines.
func (d *dialog) until(prefixes ...string) string {
	d.t.Helper()
	var all strings.Builder
	for {
		line := d.read()
		all.WriteString(line + "\n")
		for _, prefix := range prefixes {
			if strings.HasPrefix(line, prefix) {
				return all.String()
			}
		}
	}
}

// command sends an IMAP command with a new tag, and returns the answer with the tag cut off.
func (d *dialog) command(line string) (untagged, status string) {
	d.t.Helper()
	d.tag++
	tag := fmt.Sprintf("a%d ", d.tag)
	d.send(tag + line)
	all := d.until(tag)
	cut := strings.LastIndex(all, "\n"+tag) + 1
	return all[:cut], strings.TrimSuffix(strings.TrimPrefix(all[cut:], tag), "\n")
}

// ask sends an IMAP command that must succeed, and returns what was said on it.
func (d *dialog) ask(line string) (untagged string) {
	d.t.Helper()
	untagged, status := d.command(line)
	if !strings.HasPrefix(status, "OK") {
		d.t.Fatalf("%s: %s", line, status)
	}
	return untagged
}

// smtp sends a command of SMTP or LMTP, and returns the answer, whose lines are joined by a newline.
func (d *dialog) smtp(line string) string {
	d.t.Helper()
	d.send(line)
	return d.reply()
}

// reply reads one answer of SMTP or LMTP.
func (d *dialog) reply() string {
	d.t.Helper()
	var lines []string
	for {
		line := d.read()
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n")
		}
	}
}

// submit sends a message, which must be taken.
func (d *dialog) submit(subject, from string, recipients ...string) {
	d.t.Helper()
	answers := []string{d.smtp("MAIL FROM:<" + from + ">")}
	for _, to := range recipients {
		answers = append(answers, d.smtp("RCPT TO:<"+to+">"))
	}
	answers = append(answers, d.data(subject))
	for _, answer := range answers {
		if !strings.HasPrefix(answer, "250 ") {
			d.t.Fatalf("submitting %q: %s", subject, answer)
		}
	}
}

// deliver sends a message by LMTP, and returns the last answer to each recipient, which is a refusal or comes after the
// message.
func (d *dialog) deliver(subject, from string, recipients ...string) []string {
	d.t.Helper()
	if answer := d.smtp("MAIL FROM:<" + from + ">"); !strings.HasPrefix(answer, "250 ") {
		d.t.Fatal(answer)
	}
	var accepted []int
	answers := make([]string, len(recipients))
	for i, to := range recipients {
		answers[i] = d.smtp("RCPT TO:<" + to + ">")
		if strings.HasPrefix(answers[i], "250 ") {
			accepted = append(accepted, i)
		}
	}
	for n, i := range accepted {
		if n == 0 {
			answers[i] = d.data(subject)
		} else {
			answers[i] = d.reply()
		}
	}
	return answers
}

// data sends a message to the recipients that were named before, and returns the first answer to it.
func (d *dialog) data(subject string) string {
	d.t.Helper()
	if answer := d.smtp("DATA"); !strings.HasPrefix(answer, "354 ") {
		d.t.Fatal(answer)
	}
	return d.smtp("Subject: " + subject + "\r\n\r\nHello.\r\n.")
}

// ended wants the server to have closed the connection, whatever it says before.
func (d *dialog) ended() (last string) {
	d.t.Helper()
	d.wait()
	text, err := io.ReadAll(d.in)
	if err, ok := err.(net.Error); ok && err.Timeout() {
		d.t.Fatalf("the connection is still open after %q", text)
	}
	return string(text)
}

// sieveString reads a string as ManageSieve's servers write them, quoted or as a literal.
func (d *dialog) sieveString() string {
	d.t.Helper()
	return d.stringFrom(d.read())
}

// sieveEnd reads the last message of SASL, which comes as one more challenge or with the OK. ended: the exchange is over.
func (d *dialog) sieveEnd() (message string, ended bool) {
	d.t.Helper()
	line := d.read()
	if text, ok := strings.CutPrefix(line, "OK (SASL "); ok {
		text, _, _ = strings.Cut(text, ")")
		return d.stringFrom(text), true
	}
	return d.stringFrom(line), false
}

func (d *dialog) stringFrom(line string) string {
	d.t.Helper()
	if strings.HasPrefix(line, "{") {
		return d.read()
	}
	text, err := strconv.Unquote(line)
	if err != nil {
		d.t.Fatalf("%q is not a string", line)
	}
	return text
}
