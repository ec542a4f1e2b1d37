package wire

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

// CR LF ends a line, and nothing else does: no octet of a line with anything near it is taken for a command.
func TestReadSMTP(t *testing.T) {
	for _, test := range []struct {
		said, want string
		err        error
		rest       string
	}{
		{said: "EHLO x\r\nNOOP\r\n", want: "EHLO x", rest: "NOOP\r\n"},
		{said: "\r\nNOOP\r\n", rest: "NOOP\r\n"},
		{said: "EHLO x\nNOOP\r\n", err: ErrBadLine, rest: "NOOP\r\n"},
		{said: "\nNOOP\r\n", err: ErrBadLine, rest: "NOOP\r\n"},
		{said: "EHLO\rNOOP\r\nQUIT\r\n", err: ErrBadLine, rest: "QUIT\r\n"},
		{said: "EHLO x\r\r\nQUIT\r\n", err: ErrBadLine, rest: "QUIT\r\n"},
		{said: "EH\x00LO\r\nQUIT\r\n", err: ErrBadLine, rest: "QUIT\r\n"},
		{said: x(MaxCommand) + "\r\n", want: x(MaxCommand)},
		{said: x(2*MaxCommand) + "\r\n", err: ErrTooLong},
		{said: "EHLO", err: io.ErrUnexpectedEOF},
		{said: "EHLO\r", err: io.ErrUnexpectedEOF},
		{err: io.EOF},
	} {
		c := said(test.said)
		got, err := c.ReadSMTP()
		if got != test.want || !same(err, test.err) {
			t.Errorf("%q: read %q and %v, want %q and %v", shorten(test.said), shorten(got), err, shorten(test.want), test.err)
		}
		if test.err != ErrTooLong {
			if got := rest(c); got != test.rest {
				t.Errorf("%q: left %q, want %q", shorten(test.said), got, test.rest)
			}
		}
	}
}

func TestReadReply(t *testing.T) {
	for _, test := range []struct {
		said string
		want Reply
		rest string
	}{
		{said: "220 ready\r\n", want: Reply{220, []string{"ready"}}},
		{said: "250-a\r\n250-SIZE 5\r\n250 c\r\n221 x\r\n", want: Reply{250, []string{"a", "SIZE 5", "c"}}, rest: "221 x\r\n"},
		{said: "334 \r\n", want: Reply{334, []string{""}}},
		{said: "334\r\n", want: Reply{334, []string{""}}},
		{said: "250\n", want: Reply{250, []string{""}}},
	} {
		c := said(test.said)
		got, err := c.ReadReply()
		if err != nil || !reflect.DeepEqual(got, test.want) || rest(c) != test.rest {
			t.Errorf("%q: read %+v and %v, want %+v", test.said, got, err, test.want)
		}
	}
	for what, reply := range map[string]string{
		"another code in the next line": "250-a\r\n550 b\r\n",
		"another protocol":              "* OK ready\r\n",
		"too few digits":                "25\r\n",
		"a code that there is not":      "150 wait\r\n",
		"a greater code":                "600 no\r\n",
		"no separator":                  "250x\r\n",
		"an empty line":                 "\r\n",
		"too many lines":                strings.Repeat("250-x\r\n", maxReplyLines+1),
	} {
		if got, err := said(reply).ReadReply(); !errors.Is(err, errReply) {
			t.Errorf("%s: read %+v and %v", what, got, err)
		}
	}
}

// What a server says goes into one line of a log or of another answer.
func TestReplyText(t *testing.T) {
	r := Reply{550, []string{"over\tquota", "\x1b[31mred", "für immer", "\x00\x7f"}}
	if got, want := r.Text(), "over?quota ?[31mred f?r immer ??"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestXText(t *testing.T) {
	for in, want := range map[string]string{
		"mail.example":         "mail.example",
		"a b":                  "a+20b",
		"a+b=c":                "a+2Bb+3Dc",
		"a\r\nQUIT\t\x00\x7fü": "a+0D+0AQUIT+09+00+7F+C3+BC",
		"[UNAVAILABLE]":        "[UNAVAILABLE]",
		"":                     "",
	} {
		if got := XText(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
