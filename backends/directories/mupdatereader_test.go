package directories

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// readResponses writes down what a reader makes of some data: responses, one by one, and the error that ends them.
func readResponses(t testing.TB, from io.Reader) (all []string, end error) {
	m := &mupdateReader{r: bufio.NewReader(from)}
	for {
		r, err := m.read()
		if cap(m.kept) > 1<<15 {
			t.Fatalf("%d octets are kept of one response", cap(m.kept))
		}
		if err != nil {
			return all, err
		}
		all = append(all, describe(t, r))
	}
}

// describe writes a response as a master could.
func describe(t testing.TB, r mupdateResponse) string {
	text := fmt.Sprintf("%s %s", r.tag, r.what)
	for i := range r.count {
		if i >= len(r.strings) {
			text += ` "..."`
			continue
		}
		s := r.strings[i]
		if len(s) > maxMupdateName {
			t.Fatalf("a name of %d octets", len(s))
		}
		if s == nil {
			s = []byte(strings.Repeat("x", maxMupdateName+1))
		}
		text += fmt.Sprintf(" {%d+}\r\n%s", len(s), s)
	}
	return text + "\r\n"
}

func TestMupdateReader(t *testing.T) {
	long := strings.Repeat("x", maxMupdateName+1)
	for _, test := range []struct{ what, data, want, end string }{
		{"strings", "U1 MAILBOX \"user.anna\" \"store1!default\" \"anna lrs\"\r\n", "U1 MAILBOX {9+}\r\nuser.anna {14+}\r\nstore1!default \"...\"\r\n", ""},
		{"literals", "U1 MAILBOX {9+}\r\nuser.anna {6}\r\nstore1 {0+}\r\n\r\n", "U1 MAILBOX {9+}\r\nuser.anna {6+}\r\nstore1 \"...\"\r\n", ""},
		{"what literals may hold", "U1 DELETE {5}\r\n\"\r\n\x00\xff\r\n", "U1 DELETE {5+}\r\n\"\r\n\x00\xff\r\n", ""},
		{"nothing is escaped", `U1 DELETE "a\"` + "\r\n", "U1 DELETE {2+}\r\na\\\r\n", ""},
		{"lower case", "n1 ok \"Done\"\r\n", "n1 OK {4+}\r\nDone\r\n", ""},
		{"LF alone", "N1 OK \"done\"\n", "N1 OK {4+}\r\ndone\r\n", ""},
		{"no strings", "N1 OK\r\n", "N1 OK\r\n", ""},
		{"one without a tag", "* BYE \"\"\r\n", "* BYE {0+}\r\n\r\n", ""},
		{"a long string", `U1 DELETE "` + long + "\"\r\n", "U1 DELETE {513+}\r\n" + long + "\r\n", ""},
		{"a long literal", "U1 DELETE {513+}\r\n" + long + "\r\n", "U1 DELETE {513+}\r\n" + long + "\r\n", ""},
		{"as long as can be", "U1 DELETE {512+}\r\n" + long[1:] + "\r\nU1 DELETE \"" + long[1:] + "\"\r\n", strings.Repeat("U1 DELETE {512+}\r\n"+long[1:]+"\r\n", 2), ""},
		{"an end within a tag", "U1", "", "unexpected EOF"},
		{"an end within a string", "U1 OK \"a", "", "unexpected EOF"},
		{"an end within a literal", "U1 OK {3+}\r\nab", "", "unexpected EOF"},
		{"an end within a long literal", "U1 OK {513+}\r\nab", "", "unexpected EOF"},
		{"an end before LF", "U1 OK \"\"\r", "", "unexpected EOF"},
		{"an empty line", "\r\n", "", `'\r' behind ""`},
		{"a tag alone", "U1\r\n", "", `nothing follows "U1"`},
		{"two blanks", "U1  OK\r\n", "", `' ' behind ""`},
		{"a blank at the end", "U1 OK \r\n", "", `'\r' in the place of a string`},
		{"an atom", "U1 DELETE user.anna\r\n", "", `'u' in the place of a string`},
		{"something behind a string", "U1 DELETE \"a\"b\r\n", "", `'b' in the place of a line's end`},
		{"CR alone", "U1 DELETE \"a\"\rx", "", `'x' in the place of a line's end`},
		{"a string over two lines", "U1 DELETE \"a\r\nb\"\r\n", "", `'\r' in a quoted string`},
		{"NUL", "U1 DELETE \"a\x00\"\r\n", "", `'\x00' in a quoted string`},
		{"a literal without a length", "U1 DELETE {}\r\n\r\n", "", "without a length"},
		{"a literal of a negative length", "U1 DELETE {-1}\r\n\r\n", "", "without a length"},
		{"a literal not at the end of a line", "U1 DELETE {1+} a\r\n", "", `' ' in the place of a line's end`},
		{"a literal that is too long", "U1 DELETE {1048577+}\r\n", "", "more than 1048576 octets"},
		{"a number that is too long", "U1 DELETE {00000000001+}\r\n", "", "more than 1048576 octets"},
		{"a string that is too long", `U1 DELETE "` + strings.Repeat("x", 1<<21), "", "more than 1048576 octets"},
		{"a word that is too long", "U1 " + strings.Repeat("x", 65), "", "'x' behind"},
		{"too many strings", "U1 DELETE" + strings.Repeat(` ""`, 17), "", "more than 16 strings"},
	} {
		t.Run(test.what, func(t *testing.T) {
			got, end := readResponses(t, strings.NewReader(test.data))
			if test.end == "" {
				test.end = "EOF"
			}
			if strings.Join(got, "") != test.want || !strings.HasSuffix(end.Error(), test.end) && !strings.Contains(end.Error(), test.end) {
				t.Errorf("read %q, and then: %v", got, end)
			}
		})
	}
}

// However data comes, and whatever it is, the same is made of it; and what is read can be written and read again.
func FuzzMupdateReader(f *testing.F) {
	f.Add([]byte("* OK MUPDATE \"a\"\r\nU1 MAILBOX {9+}\r\nuser.anna {6}\r\nstore1 \"anna lrs\"\r\nU1 RESERVE \"a\" \"b\"\r\nU1 OK \"done\"\r\n"))
	f.Add([]byte("U1 DELETE {513+}\r\n" + strings.Repeat("x", 513) + "\r\nN1 OK \"\"\r\n"))
	f.Add([]byte("U1 DELETE \"a\\\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		text := string(data)
		all, end := readResponses(t, strings.NewReader(text))
		slow, slowEnd := readResponses(t, iotest.OneByteReader(strings.NewReader(text)))
		if strings.Join(all, "") != strings.Join(slow, "") || end.Error() != slowEnd.Error() {
			t.Errorf("at once %q, %v; octet by octet %q, %v", all, end, slow, slowEnd)
		}
		again, end := readResponses(t, strings.NewReader(strings.Join(all, "")))
		if strings.Join(again, "") != strings.Join(all, "") || !errors.Is(end, io.EOF) {
			t.Errorf("%q is read again as %q, %v", all, again, end)
		}
		list := newMailboxes()
		m := &mupdateReader{r: bufio.NewReader(strings.NewReader(text))}
		for {
			r, err := m.read()
			if err != nil {
				break
			}
			_ = list.apply(r) // what is no record of a mailbox is an error
		}
		checkMailboxes(t, list)
	})
}
