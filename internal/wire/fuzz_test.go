package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// chunked makes a Conn whose peer sends data in chunks of a size.
func chunked(data string, size int) *Conn {
	peer := &script{}
	for len(data) > 0 {
		n := min(size, len(data))
		peer.chunks = append(peer.chunks, data[:n])
		data = data[n:]
	}
	return New(peer)
}

// outcome is what came of reading all commands in some data.
type outcome struct {
	commands []string // described
	err      string   // what ended it
}

// readAll reads commands until one cannot be read, and checks each against the data that it was read from.
func readAll(t *testing.T, data string, c *Conn) outcome {
	var o outcome
	for {
		args, err := c.ReadCommand(nil)
		if err != nil && !errors.Is(err, ErrBadLine) {
			checkEnd(t, err)
			o.commands, o.err = append(o.commands, describe(args)), fmt.Sprint(err)
			return o
		}
		size := 0
		for _, part := range args.parts {
			size += len(part)
		}
		if size > MaxCommand {
			t.Fatalf("a command of %d octets", size)
		}
		if bad := badText(args); bad != (err != nil) {
			t.Fatalf("%q is read with %v", describe(args), err)
		}
		data = unread(t, data, args)
		o.commands = append(o.commands, describe(args))
	}
}

func badText(args *Args) bool {
	for i := 0; i < len(args.parts); i += 2 {
		if strings.ContainsAny(args.parts[i], "\x00\r\n") {
			return true
		}
	}
	return false
}

func checkEnd(t *testing.T, err error) {
	_, literal := errors.AsType[*LiteralError](err)
	if err != io.EOF && err != io.ErrUnexpectedEOF && err != ErrTooLong && !literal {
		t.Fatalf("ended with %v", err)
	}
}

var (
	announcement = regexp.MustCompile(`^\{([0-9]+)\+?\}\r?\n`)
	lineEnd      = regexp.MustCompile(`^\r?\n`)
)

// unread takes off data what a command was read from: writing it again gives what was read.
func unread(t *testing.T, data string, args *Args) string {
	for i, part := range args.parts {
		var ok bool
		if data, ok = strings.CutPrefix(data, part); !ok {
			t.Fatalf("part %d, %q, was not in %q", i, part, data)
		}
		switch {
		case i%2 == 1:
		case i == len(args.parts)-1:
			end := lineEnd.FindString(data)
			if end == "" {
				t.Fatalf("no line end behind %q", part)
			}
			data = data[len(end):]
		default:
			found := announcement.FindStringSubmatch(data)
			if found == nil {
				t.Fatalf("no announcement behind %q", part)
			}
			if n, err := strconv.ParseUint(found[1], 10, 64); err != nil || n != uint64(len(args.parts[i+1])) {
				t.Fatalf("announced %s, read %d octets", found[1], len(args.parts[i+1]))
			}
			data = data[len(found[0]):]
		}
	}
	return data
}

func FuzzReadCommand(f *testing.F) {
	for _, seed := range []string{
		"", "a NOOP\r\n", "a LOGIN {3}\r\nbob {6+}\r\nsecret\r\nb NOOP\n", "a {00}\r\n\r\n", "{4294967299}\r\nbob\r\n",
		"a\x00{1}\r\nx\r\n", "a \r\r\n", "{1}\r\nx{1}\r\ny", "* OK {5}\r\n12345 text {\r\n", "~\r\n~~\n",
	} {
		f.Add(seed, uint16(7), uint16(4095))
		f.Add(seed, uint16(1000), uint16(MaxCommand))
	}
	// A tilde stands for a long text, which is seldom found by chance.
	f.Fuzz(func(t *testing.T, data string, size, long uint16) {
		data = strings.Replace(data, "~", x(int(long)), 2)
		whole := chunked(data, len(data))
		want := readAll(t, data, whole)
		for _, n := range []int{1, 3, int(size) + 1, 4096} {
			if got := readAll(t, data, chunked(data, n)); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("in chunks of %d: %q\nwant %q", n, got, want)
			}
		}
	})
}

// Whatever is taken of a line in whatever order: what is not there is left alone, and what is there comes once.
func FuzzArgs(f *testing.F) {
	f.Add("a1 LOGIN \"b\\\"o\" «lit» {", []byte{0, 1, 2, 3, 4, 5, 6})
	f.Add("«»«\x00»\"", []byte{4, 4, 3, 6})
	f.Add("()\\\" \t\x7f", []byte{5, 0, 0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, line string, order []byte) {
		args := argsOf(line)
		for range len(line) + 1 {
			for _, way := range order {
				take(t, args, way)
			}
		}
		if args.End() != (left(args) == "") {
			t.Fatalf("End is %v with %q left", args.End(), left(args))
		}
	})
}

// take tries one way to take something.
func take(t *testing.T, args *Args, way byte) {
	before := left(args)
	var got string
	var ok bool
	switch way % 7 {
	case 0:
		got, ok = args.Atom()
		ok = ok && strings.HasPrefix(before, got)
	case 1:
		got, ok = args.Word()
		ok = ok && strings.HasPrefix(before, got)
	case 2:
		ok = args.Space()
	case 3:
		if got, ok = args.quoted(); ok {
			again, err := Quote(got)
			if back, ok := NewArgs(again).String(); err == nil && (!ok || back != got) {
				t.Fatalf("%q is quoted as %q and read as %q", got, again, back)
			}
			if err == nil && !strings.HasPrefix(before, again) {
				t.Fatalf("%q was read from %q", got, before)
			}
		}
	case 4:
		got, ok = args.String()
		if strings.IndexByte(got, 0) >= 0 && !strings.HasPrefix(before, `"`) {
			t.Fatalf("%q has NUL", got)
		}
	case 5:
		ok = args.Take("(")
	case 6:
		got = args.Rest()
		ok = got != ""
	}
	switch after := left(args); {
	case ok && (len(after) >= len(before) || !strings.HasSuffix(before, after)):
		t.Fatalf("took %q in way %d, and %q became %q", got, way%7, before, after)
	case !ok && (after != before || got != ""):
		t.Fatalf("took nothing in way %d, and %q became %q", way%7, before, after)
	}
}

func FuzzDecodeBase64(f *testing.F) {
	f.Add("AGFsaWNlAHNlY3JldA==")
	f.Add("YQ\r\n==")
	f.Fuzz(func(t *testing.T, s string) {
		out, err := DecodeBase64(s)
		if err == nil && EncodeBase64(out) != s {
			t.Fatalf("%q and %q mean the same", s, EncodeBase64(out))
		}
		if back, err := DecodeBase64(EncodeBase64([]byte(s))); err != nil || !bytes.Equal(back, []byte(s)) {
			t.Fatalf("%q comes back as %q, %v", s, back, err)
		}
	})
}
