package wire

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// readData reads a message, and returns what came before its end or an error.
func readData(c *Conn) (message string, bare bool, err error) {
	d := c.Data()
	var all strings.Builder
	for {
		p, err := d.Next()
		if err != nil {
			return all.String(), d.Bare(), err
		}
		all.Write(p)
	}
}

func TestData(t *testing.T) {
	for _, test := range []struct {
		said string // up to | it is the message
		bare bool
	}{
		{".\r\n|RSET\r\n", false},
		{"a\r\n.\r\n|", false},
		{"a\r\n.\r\n|\r\n.\r\n", false},
		{"..\r\n.a\r\n...\r\n.\r\n|RSET\r\n", false},
		{"\r\n\r\n.\r\n|.\r\n", false},
		{" .\r\n.\r\n|", false},
		{". \r\n.\r\n|", false},
		{"\x80\xff\r\n.\r\n|", false},
		// Ends of data of other servers, which are none here (CVE-2023-51764, -51765, -51766; Dovecot).
		{"a\n.\nMAIL FROM:<x>\r\n.\r\n|", true},
		{"a\n.\r\nMAIL FROM:<x>\r\n.\r\n|", true},
		{"a\r\n.\nMAIL FROM:<x>\r\n.\r\n|", true},
		{"a\r\n.\rMAIL FROM:<x>\r\n.\r\n|", true},
		{"a\r.\r\nMAIL FROM:<x>\r\n.\r\n|", true},
		{"a\r.\rMAIL FROM:<x>\r\n.\r\n|", true},
		{"a\r\n.\r\rMAIL FROM:<x>\r\n.\r\n|", true},
		{"a\r\n\r.\r\n.\r\n|", true},
		{"a\r\n.\x00\r\n.\r\n|", true},
		{"\x00\r\n.\r\n|", true},
		{"a\r\r\n.\r\n|", true},
		{"a\n\r\n.\r\n|", true},
		{"\n.\r\n.\r\n|", true},
		{".\n.\r\n.\r\n|", true},
		{"\r\n.\r\r\n.\r\n|", true},
	} {
		message, rest_, _ := strings.Cut(test.said, "|")
		for size := 1; size <= len(test.said); size++ {
			c := chunked(message+rest_, size)
			got, bare, err := readData(c)
			if got != message || bare != test.bare || err != io.EOF {
				t.Errorf("%q by %d: read %q, %v, %v", test.said, size, got, bare, err)
			}
			if left := rest(c); left != rest_ {
				t.Errorf("%q by %d: %q is left", test.said, size, left)
			}
		}
	}
	for _, said := range []string{"", ".", ".\r", "a\r\n.\r", "a\r\n.\n", "a\r\n..\r\n"} {
		if got, _, err := readData(chunked(said, 3)); got != said || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: read %q and %v", said, got, err)
		}
	}
}

// The end is the first CR LF . CR LF, and what is bare is found, however the octets are parted.
func FuzzData(f *testing.F) {
	for _, said := range []string{".\r\n", "a\r\n.\r\nRSET\r\n", "a\n.\nb\r\n.\r\n", "\r\n.\r\r\n.\r\n", "..\r\n.\r\n"} {
		f.Add(said, uint16(1))
		f.Add(said, uint16(4096))
	}
	f.Fuzz(func(t *testing.T, said string, size uint16) {
		want, left, found := strings.Cut("\r\n"+said, "\r\n.\r\n")
		if want += "\r\n.\r\n"; !found {
			want, left = "\r\n"+said, ""
		}
		want = want[len("\r\n"):]
		inside := want
		if !found { // a last CR may yet get its LF
			inside = strings.TrimSuffix(want, "\r")
		}
		c := chunked(said, 1+int(size))
		got, bare, err := readData(c)
		if got != want || (err == io.EOF) != found || rest(c) != left {
			t.Errorf("read %q and %v, want %q", got, err, want)
		}
		if bare != strings.ContainsAny(strings.ReplaceAll(inside, "\r\n", ""), "\x00\r\n") {
			t.Errorf("%q: bare is %v", want, bare)
		}
	})
}

func TestReadOctets(t *testing.T) {
	c := said("MAIL\r\n12345RSET\r\n")
	if _, err := c.ReadSMTP(); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 5)
	for _, want := range []string{"123", "45"} {
		if n, err := c.ReadOctets(p[:len(want)]); string(p[:n]) != want || err != nil {
			t.Errorf("read %q and %v", p[:n], err)
		}
	}
	if got := rest(c); got != "RSET\r\n" {
		t.Errorf("%q is left", got)
	}
	if _, err := c.ReadOctets(p); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the end is %v", err)
	}
}

func TestHasLine(t *testing.T) {
	c := New(&script{chunks: []string{"a\r\nb\r\nc", "\r\n"}})
	var had []bool
	for range 3 {
		had = append(had, c.HasLine())
		if _, err := c.ReadSMTP(); err != nil {
			t.Fatal(err)
		}
	}
	if had[0] || !had[1] || had[2] {
		t.Error(had)
	}
}

func TestWrite(t *testing.T) {
	peer := &script{}
	c := New(peer)
	c.Send("BDAT 3\r\n")
	if n, err := c.Write([]byte("abc")); n != 3 || err != nil {
		t.Error(n, err)
	}
	if got := strings.Join(peer.record, "|"); got != "> BDAT 3\r\n|> abc" {
		t.Error(got)
	}
	peer.broken = io.ErrClosedPipe
	for range 2 {
		if _, err := c.Write([]byte("abc")); !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
		peer.broken = nil // it stays broken: nobody knows what has arrived
	}
}
