package integration

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// typist is s_client within TLS of a version, as the user who types there: a line of one letter is an order to it, others go to
// jackdaw.
func (jd *jackdaw) typist(version string) *dialog {
	jd.t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(jd.t, err)
	ours, theirs := os.NewFile(uintptr(ends[0]), "ours"), os.NewFile(uintptr(ends[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	must(jd.t, err)
	cmd := exec.Command("openssl", "s_client", "-connect", jd.at(portIMAPS), "-servername", "mail.a.example",
		"-CAfile", jd.caFile(), "-verify_return_error", "-crlf", "-"+version)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
	detach(cmd)
	must(jd.t, cmd.Start())
	jd.t.Cleanup(func() {
		conn.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	d := &dialog{t: jd.t}
	d.over(conn)
	d.until("* OK ")
	d.write("a LOGIN alice@a.example " + password + "\n")
	d.until("a OK")
	return d
}

// types has openssl send a command and see the answer to it.
func (d *dialog) types(tag string) {
	d.t.Helper()
	d.write(tag + " NOOP\n")
	d.until(tag + " OK")
}

// TestKeyUpdates: openssl changes its keys again and again, and asks for new ones of jackdaw's, in a session that is at rest and in
// one that gets a letter.
func TestKeyUpdates(t *testing.T) {
	t.Parallel()
	jd := startJackdaw(t, quickBackend("store", quickStore(t)))
	d := jd.typist("tls1_3")
	for i := range 10 {
		for _, order := range []string{"k", "K"} {
			d.write(order + "\n")
			d.until("KEYUPDATE")
			d.types(fmt.Sprintf("n%s%d", order, i))
		}
		if i == 5 {
			d.write("f FETCH 1 BODY[]\n")
			d.write("K\n") // while the letter is on its way
			d.until("f OK")
		}
	}
	if n := jd.count(`"msg":"session"`, `"user":"alice@a.example"`); n > 0 {
		t.Error("the session has ended")
	}
	jd.served()
}

// TestRenegotiation: a client of TLS 1.2 that wants new keys in the middle of its session is sent away, and nobody else notices.
func TestRenegotiation(t *testing.T) {
	t.Parallel()
	jd := startJackdaw(t, quickBackend("store", quickStore(t)))
	other := jd.login("mail.a.example", "alice@a.example")
	d := jd.typist("tls1_2")
	d.types("b")
	d.write("R\n")
	if said := d.ended(); !strings.Contains(said, "RENEGOTIATING") || !strings.Contains(said, "alert") {
		t.Errorf("openssl says %q", said)
	}
	jd.logged(t, `"msg":"session"`, `"tls":"TLS 1.2"`, "unexpected handshake message")
	other.ask("NOOP")
	jd.served()
}

// TestHalfClose: a client that says all it has to say, and then that nothing more will come, by close_notify or in the clear by
// FIN, gets all answers, and the same sign at the end of them. So does a client whose letter is on its way.
func TestHalfClose(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example").serving("imap", "pop3")
	dovecot.seed(t, "alice@a.example")
	jd := frontend{listen: inClear}.start(t, dovecot.backend())
	jd.knows(dovecot)
	for service, words := range map[string]string{
		"imap": "x SELECT INBOX\r\ny FETCH 1 BODY.PEEK[]\r\nz LOGOUT\r\n",
		"pop3": "STAT\r\nRETR 1\r\nQUIT\r\n",
	} {
		for _, c := range []client{client{}.at(service+"s", "mail.a.example"), client{}.at(service, "mail.a.example")} {
			for range 5 {
				d := jd.knock(t, c)
				if implicit(c.service) {
					d.handshake(jd.config(c))
				}
				d.greeting()
				d.wants(letIn, d.plain("alice@a.example", password))
				d.write(words)
				must(t, d.conn.(interface{ CloseWrite() error }).CloseWrite())
				d.wait()
				said, err := io.ReadAll(d.in) // within TLS, an end without close_notify is an error
				if err != nil || !strings.Contains(string(said), "Subject: only for alice@a.example") || !strings.Contains(string(said), "Logging out") {
					t.Errorf("%s: %q, %v", c.service, said, err)
				}
			}
		}
	}
	logout := jd.enter(t, client{}.at("imaps", "mail.a.example"), "alice@a.example")
	must(t, logout.conn.(*tls.Conn).CloseWrite())
	logout.wait()
	if said, err := io.ReadAll(logout.in); err != nil {
		t.Errorf("who says nothing more hears %q, %v", said, err)
	}
}

// TestHalfCloseLetter: a letter that is on its way when its reader has said the last word arrives as a whole.
func TestHalfCloseLetter(t *testing.T) {
	t.Parallel()
	jd := startJackdaw(t, quickBackend("store", quickStore(t)))
	d := jd.login("mail.a.example", "alice@a.example")
	d.tag++
	d.send(fmt.Sprintf("a%d FETCH 1 BODY[]", d.tag))
	must(t, d.conn.(*tls.Conn).CloseWrite())
	d.takesLetter()
	if _, err := d.in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the letter: %v", err)
	}
	jd.served()
}
