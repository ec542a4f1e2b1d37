package proxy

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// Of a message no more is held than what a few sockets and a short queue take: it streams at the pace of the slowest store.
func TestStreaming(t *testing.T) {
	const size = 16 << 20
	fast, slow := newLMTPStore(t, "store1", nil), newLMTPStore(t, "store2", nil)
	slow.pause = make(chan struct{})
	m := newMailer(t, unchanged, fast, slow)
	m.begins("a@store1.example", "b@store2.example")
	line := bytes.Repeat([]byte("x"), 1022)
	line = append(line, "\r\n"...)
	sum := sha256.New()
	written := 0
	write := func(p []byte) error {
		n, err := m.client.Write(p)
		written += n
		_, _ = sum.Write(p[:n])
		return err
	}
	var err error
	for err == nil && written < size {
		_ = m.client.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		err = write(line)
	}
	if written > 1<<20 {
		t.Errorf("%d octets went into the proxy, and to no store", written)
	}
	close(slow.pause)
	_ = m.client.SetWriteDeadline(time.Now().Add(3 * patience))
	if err := write(line[written%len(line):]); err != nil {
		t.Fatal(err)
	}
	for written < size {
		if err := write(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := write([]byte(".\r\n")); err != nil {
		t.Fatal(err)
	}
	m.hears("250", "250")
	for _, s := range []*lmtpStore{fast, slow} {
		if got := s.got(); len(got) != 1 || got[0].size != written || !bytes.Equal(got[0].sum[:], sum.Sum(nil)) {
			t.Errorf("%s has got %d octets", s.name, got[0].size)
		}
	}
}

// A client that vanishes within its message has sent none, to any store.
func TestClientVanishes(t *testing.T) {
	for what, said := range map[string]string{"DATA": "DATA\r\nx\r\n.\r", "BDAT": "BDAT 10 LAST\r\n123456789", "no data": "NOOP\r\n"} {
		one, two := newLMTPStore(t, "store1", nil), newLMTPStore(t, "store2", nil)
		m := newMailer(t, unchanged, one, two)
		m.sends("MAIL FROM:<>", "250", "RCPT TO:<a@store1.example>", "250", "RCPT TO:<b@store2.example>", "250")
		go func() { _, _ = io.Copy(io.Discard, m.read) }()
		m.says(said)
		m.closes()
		for _, s := range []*lmtpStore{one, two} {
			s.down() // when all is read
			if got := s.got(); len(got) > 0 {
				t.Errorf("%s: %s has got %+v", what, s.name, got)
			}
		}
	}
}

// BDAT goes to all stores; one that did not announce it spoils its own recipients' mail, and the log tells why.
func TestFanOutBDAT(t *testing.T) {
	one, two, bad := newLMTPStore(t, "store1", nil), newLMTPStore(t, "store2", map[string]string{"BDAT": "452 4.3.1 full"}),
		newLMTPStore(t, "store3", nil)
	m := newMailer(t, unchanged, one, two, bad)
	bad.caps = "8BITMIME"
	m.sends("MAIL FROM:<>", "250", "RCPT TO:<c@store3.example>", "250", "RCPT TO:<b@store2.example>", "250",
		"RCPT TO:<a@store1.example>", "250")
	big := bytes.Repeat([]byte("QUIT\r\n.\r\n"), 20000)
	go fmt.Fprintf(m.client, "BDAT %d\r\n%sBDAT 3 LAST\r\nx\ny", len(big), big)
	m.hears("250 2.0.0 180000 octets received", "451 4.3.3 Store can do less", "452 4.3.1 full", "250 2.0.0 TO:<a@store1.example>")
	if got := one.got(); len(got) != 1 || got[0].size != len(big)+3 || got[0].sum != sha256.Sum256(append(big, "x\ny"...)) {
		t.Errorf("the store has got %+v", got)
	}
	m.sends("RSET", "250")
	for _, line := range m.logged("delivery") {
		if line["backend"] == "store3" && (line["level"] != "warn" || !strings.HasSuffix(fmt.Sprint(line["error"]), ": CHUNKING")) {
			t.Error(line)
		}
		if line["backend"] == "store2" && fmt.Sprint(line["reasons"]) != "[452 4.3.1 full]" {
			t.Error(line)
		}
	}
	// What comes in part and is dropped goes nowhere, and the connection can be used again.
	m.sends("MAIL FROM:<>", "250", "RCPT TO:<a@store1.example>", "250", "BDAT 5\r\nabc", "250", "RSET", "250",
		"MAIL FROM:<>", "250", "RCPT TO:<a@store1.example>", "250", "BDAT 2 LAST\r\n", "250")
	if lines := m.logged("delivery"); len(lines) != 4 || lines[3]["error"] != errDropped.Error() {
		t.Errorf("the log has %v", lines)
	}
	if got := one.got(); len(got) != 2 || got[1].size != 2 {
		t.Errorf("the store has got %+v", got)
	}
	if got := append(two.got(), bad.got()...); len(got) > 0 {
		t.Errorf("other stores have got %+v", got)
	}
}

// No command comes out of a message that ends where some servers see an end, and it goes nowhere (CVE-2023-51764 and its kin).
func TestSmuggling(t *testing.T) {
	for _, end := range []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r\n.\r\r\n", "\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\r\n.\r\n",
	} {
		one, two := newLMTPStore(t, "store1", nil), newLMTPStore(t, "store2", nil)
		m := newMailer(t, unchanged, one, two)
		m.begins("a@store1.example", "b@store2.example")
		evil := "MAIL FROM:<evil@b.example>\r\nRCPT TO:<a@store1.example>\r\nDATA\r\nevil\r\n.\r\n"
		if end == "\r\r\n.\r\n" { // this is an end, but a bare CR is in front of it
			evil = ""
		}
		m.says("good" + end + evil)
		m.hears("550 5.6.0 ", "550 5.6.0 ")
		m.sends("NOOP", "250 2.0.0 done")
		m.closes()
		for _, s := range []*lmtpStore{one, two} {
			s.down()
			if got := s.got(); len(got) > 0 {
				t.Errorf("%q: %s has got %+v", end, s.name, got)
			}
		}
		if lines := m.logged("delivery"); len(lines) != 2 || lines[0]["error"] != errBare.Error() || fmt.Sprint(lines[0]["codes"]) != "[550]" {
			t.Errorf("%q: the log has %v", end, lines)
		}
	}
}
