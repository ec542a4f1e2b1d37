package wire

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
)

// describe writes a logical line with its literals in «».
func describe(a *Args) string {
	var s strings.Builder
	for i, part := range a.parts {
		if i%2 == 1 {
			part = "«" + part + "»"
		}
		s.WriteString(part)
	}
	return s.String()
}

func TestReadCommand(t *testing.T) {
	const most = MaxCommand
	for _, test := range []struct {
		name string
		said string
		want string // what was read, with literals in «»
		err  error
		sync bool   // of a *LiteralError
		rest string // what is left to read
	}{
		{name: "no literal", said: "a NOOP\r\nb NOOP\r\n", want: "a NOOP", rest: "b NOOP\r\n"},
		{name: "an empty line", said: "\r\nb\r\n", want: "", rest: "b\r\n"},
		{name: "two literals", said: "a LOGIN {3}\r\nbob {6}\r\nsecret\r\nb NOOP\r\n", want: "a LOGIN «bob» «secret»", rest: "b NOOP\r\n"},
		{name: "non-synchronising", said: "a LOGIN {3+}\r\nbob {6+}\r\nsecret\r\n", want: "a LOGIN «bob» «secret»"},
		{name: "text behind a literal", said: "a LOGIN {3}\r\nbob secret\r\n", want: "a LOGIN «bob» secret"},
		{name: "an empty literal", said: "a LOGIN {0}\r\n {0+}\r\n\r\n", want: "a LOGIN «» «»"},
		{name: "nothing before a literal", said: "{3}\r\nbob\r\n", want: "«bob»"},
		{name: "literals side by side", said: "{1}\r\na{1+}\r\nb\r\n", want: "«a»«b»"},
		{name: "a literal holds anything", said: "a {14}\r\n\x00\r\nb NOOP\r\n{9} \r\nc NOOP\r\n",
			want: "a «\x00\r\nb NOOP\r\n{9}» ", rest: "c NOOP\r\n"},
		{name: "LF ends the announcement, too", said: "a {1}\nx\n", want: "a «x»"},
		{name: "leading zeros", said: "a {0003}\r\nbob\r\n", want: "a «bob»"},
		{name: "many leading zeros", said: "a {" + strings.Repeat("0", 100) + "3+}\r\nbob\r\n", want: "a «bob»"},

		{name: "an announcement inside of text", said: "a {5} b\r\nc\r\n", want: "a {5} b", rest: "c\r\n"},
		{name: "one in quotes", said: "a LOGIN bob \"x{5}\"\r\nc\r\n", want: "a LOGIN bob \"x{5}\"", rest: "c\r\n"},
		{name: "one behind a blank", said: "a {5} \r\nc\r\n", want: "a {5} ", rest: "c\r\n"},
		{name: "no number", said: "a {}\r\nc\r\n", want: "a {}", rest: "c\r\n"},
		{name: "only a plus", said: "a {+}\r\nc\r\n", want: "a {+}", rest: "c\r\n"},
		{name: "two pluses", said: "a {5++}\r\nc\r\n", want: "a {5++}", rest: "c\r\n"},
		{name: "a sign", said: "a {-1}\r\nc\r\n", want: "a {-1}", rest: "c\r\n"},
		{name: "a minus behind", said: "a {5-}\r\nc\r\n", want: "a {5-}", rest: "c\r\n"},
		{name: "a blank in it", said: "a { 5}\r\nc\r\n", want: "a { 5}", rest: "c\r\n"},
		{name: "hexadecimal", said: "a {0x5}\r\nc\r\n", want: "a {0x5}", rest: "c\r\n"},
		{name: "no brace", said: "a 5}\r\nc\r\n", want: "a 5}", rest: "c\r\n"},
		{name: "a brace alone", said: "}\r\n5}\r\n", want: "}", rest: "5}\r\n"},
		{name: "a number alone", said: "5}\r\nc\r\n", want: "5}", rest: "c\r\n"},
		{name: "a tilde is text: literal8", said: "a ~{3}\r\nbob\r\n", want: "a ~«bob»"},

		{name: "as much as can be", said: fmt.Sprintf("a {%d}\r\n%s\r\n", most-9, x(most-9)), want: "a «" + x(most-9) + "»"},
		{name: "one octet more", said: fmt.Sprintf("a {%d}\r\n%s\r\n", most-8, x(most-8)), want: fmt.Sprintf("a {%d}", most-8),
			err: errLiteralTooBig, sync: true, rest: x(most-8) + "\r\n"},
		{name: "text beyond what can be", said: fmt.Sprintf("a {%d}\r\n%sy\r\n", most-9, x(most-9)), want: "a «" + x(most-9) + "»", err: ErrTooLong},
		{name: "a second literal too much", said: fmt.Sprintf("a {%d}\r\n%s {10000+}\r\n", most-10000, x(most-10000)),
			want: "a «" + x(most-10000) + "» {10000+}", err: errLiteralTooBig},
		{name: "too big", said: "a LOGIN {16385}\r\nb NOOP\r\n", want: "a LOGIN {16385}", err: errLiteralTooBig, sync: true, rest: "b NOOP\r\n"},
		{name: "too big, on its way", said: "a LOGIN {16385+}\r\nx", want: "a LOGIN {16385+}", err: errLiteralTooBig, rest: "x"},
		{name: "2^31", said: "a {2147483648}\r\n", want: "a {2147483648}", err: errLiteralTooBig, sync: true},
		{name: "2^32, which is 0 in 32 bits", said: "a {4294967296}\r\n", want: "a {4294967296}", err: errLiteralTooBig, sync: true},
		{name: "2^64, which is 0 in 64", said: "a {18446744073709551616+}\r\n", want: "a {18446744073709551616+}", err: errLiteralTooBig},
		{name: "2^64+3", said: "a {18446744073709551619}\r\nbob\r\n", want: "a {18446744073709551619}",
			err: errLiteralTooBig, sync: true, rest: "bob\r\n"},
		{name: "more digits than any number", said: "a {" + strings.Repeat("9", 1000) + "}\r\n", want: "a {" + strings.Repeat("9", 1000) + "}",
			err: errLiteralTooBig, sync: true},

		{name: "NUL", said: "a NO\x00OP\r\nb\r\n", want: "a NO\x00OP", err: ErrBadLine, rest: "b\r\n"},
		{name: "a bare CR", said: "a NO\rOP\r\nb\r\n", want: "a NO\rOP", err: ErrBadLine, rest: "b\r\n"},
		{name: "two CRs", said: "a NOOP\r\r\nb\r\n", want: "a NOOP\r", err: ErrBadLine, rest: "b\r\n"},
		{name: "NUL before a literal, which is read", said: "a\x00 {3}\r\nbob\r\nb\r\n", want: "a\x00 «bob»", err: ErrBadLine, rest: "b\r\n"},
		{name: "NUL behind a literal", said: "a {3}\r\nbob \x00\r\nb\r\n", want: "a «bob» \x00", err: ErrBadLine, rest: "b\r\n"},
		{name: "too long", said: x(most+1) + "\r\n", want: "", err: ErrTooLong},

		{name: "the end", said: "", want: "", err: io.EOF},
		{name: "the end in a line", said: "a NO", want: "", err: io.ErrUnexpectedEOF},
		{name: "the end before a literal", said: "a {3}\r\n", want: "a {3}", err: io.ErrUnexpectedEOF},
		{name: "the end in a literal", said: "a {3}\r\nbo", want: "a {3}", err: io.ErrUnexpectedEOF},
		{name: "the end behind a literal", said: "a {3}\r\nbob", want: "a «bob»", err: io.ErrUnexpectedEOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := said(test.said)
			args, err := c.ReadCommand(nil)
			if got := describe(args); got != test.want {
				t.Errorf("read %q, want %q", shorten(got), shorten(test.want))
			}
			if !same(err, test.err) {
				t.Errorf("error is %v, want %v", err, test.err)
			}
			literal, ok := errors.AsType[*LiteralError](err)
			if ok != (test.err == errLiteralTooBig) || ok && literal.Sync != test.sync {
				t.Errorf("error is %#v, want Sync %v", err, test.sync)
			}
			if test.err != ErrTooLong { // behind which nothing is in step
				if got := rest(c); got != test.rest {
					t.Errorf("left %q, want %q", shorten(got), shorten(test.rest))
				}
			}
		})
	}
}

// Where there are no literals, nothing that looks like one is.
func TestReadText(t *testing.T) {
	for _, test := range []struct {
		said, want string
		err        error
		rest       string
	}{
		{said: "PASS x{5}\r\nQUIT\r\n", want: "PASS x{5}", rest: "QUIT\r\n"},
		{said: "PASS {5+}\nQUIT\r\n", want: "PASS {5+}", rest: "QUIT\r\n"},
		{said: "\r\nQUIT\r\n", rest: "QUIT\r\n"},
		{said: x(MaxCommand) + "\r\n", want: x(MaxCommand)},
		{said: "PA\x00SS\r\nQUIT\r\n", want: "PA\x00SS", err: ErrBadLine, rest: "QUIT\r\n"},
		{said: "PASS a\rb\r\nQUIT\r\n", want: "PASS a\rb", err: ErrBadLine, rest: "QUIT\r\n"},
		{said: "PASS a\r\r\nQUIT\r\n", want: "PASS a\r", err: ErrBadLine, rest: "QUIT\r\n"},
		{said: x(MaxCommand+1) + "\r\n", err: ErrTooLong},
		{said: "PASS", err: io.ErrUnexpectedEOF},
		{err: io.EOF},
	} {
		c := said(test.said)
		args, err := c.ReadText()
		if got := describe(args); got != test.want || !same(err, test.err) {
			t.Errorf("%q: read %q and %v, want %q and %v", shorten(test.said), shorten(got), err, shorten(test.want), test.err)
		}
		if got := rest(c); got != test.rest {
			t.Errorf("%q: left %q, want %q", shorten(test.said), got, test.rest)
		}
	}
}

// A chain of literals is bounded as a whole.
func TestReadCommandChain(t *testing.T) {
	const link = "{1}\r\nx"
	fit := MaxCommand / len("{1}x")
	c := said(strings.Repeat(link, fit) + "\r\n")
	if args, err := c.ReadCommand(nil); err != nil || strings.Count(describe(args), "«x»") != fit {
		t.Errorf("read %s, %v", shorten(describe(args)), err)
	}
	c = said(strings.Repeat(link, fit) + "y\r\n")
	if _, err := c.ReadCommand(nil); !errors.Is(err, ErrTooLong) {
		t.Errorf("read more than can be: %v", err)
	}
	endless := strings.Repeat("{0}\r\n", MaxCommand)
	c = said(endless)
	if _, err := c.ReadCommand(nil); !errors.Is(err, ErrTooLong) {
		t.Errorf("read a chain of nothing: %v", err)
	}
	if read := len(endless) - len(rest(c)); read > 2*MaxCommand {
		t.Errorf("took %d octets", read)
	}
}

func TestInvite(t *testing.T) {
	peer := &script{chunks: []string{"a LOGIN {3}\r\n", "bob {3+}\r\nbob {6}\r\n", "secret\r\n"}}
	c := New(peer)
	var soFar []string
	args, err := c.ReadCommand(func(a *Args) error {
		soFar = append(soFar, describe(a))
		c.Send("+ OK\r\n")
		return nil
	})
	if got := describe(args); err != nil || got != "a LOGIN «bob» «bob» «secret»" {
		t.Errorf("read %q, %v", got, err)
	}
	if want := []string{"a LOGIN {3}", "a LOGIN «bob» «bob» {6}"}; !slices.Equal(soFar, want) {
		t.Errorf("invited at %q, want %q", soFar, want)
	}
	want := []string{"< a LOGIN {3}\r\n", "> + OK\r\n", "< bob {3+}\r\nbob {6}\r\n", "> + OK\r\n", "< secret\r\n"}
	if !slices.Equal(peer.record, want) {
		t.Errorf("the conversation was\n%q\nwant\n%q", peer.record, want)
	}
}

func TestInviteRefused(t *testing.T) {
	no := errors.New("not now")
	c := said("a LOGIN {3}\r\nb NOOP\r\n")
	args, err := c.ReadCommand(func(*Args) error { return no })
	literal, ok := errors.AsType[*LiteralError](err)
	if !ok || !literal.Sync || !errors.Is(err, no) {
		t.Fatalf("error is %v", err)
	}
	if tag, ok := args.Atom(); tag != "a" || !ok {
		t.Errorf("the tag is %q", tag)
	}
	if next, err := c.ReadCommand(nil); err != nil || describe(next) != "b NOOP" {
		t.Errorf("then read %q, %v", describe(next), err)
	}
	if err.Error() != "literal refused: not now" {
		t.Errorf("error reads %q", err)
	}
	// One that is too big is refused without a question.
	c = said("a LOGIN {99999}\r\n")
	if _, err := c.ReadCommand(func(*Args) error { t.Error("asked"); return nil }); !errors.Is(err, errLiteralTooBig) {
		t.Errorf("error is %v", err)
	}
}

// left describes what an Args has before it, with literals in «».
func left(a *Args) string {
	var s strings.Builder
	s.WriteString(a.text())
	for i := a.part + 1 - a.part%2; i < len(a.parts); i++ {
		if i%2 == 1 {
			s.WriteString("«" + a.parts[i] + "»")
		} else {
			s.WriteString(a.parts[i])
		}
	}
	return s.String()
}

// argsOf makes an Args of a line with literals in «».
func argsOf(line string) *Args {
	a := &Args{}
	for {
		text, more, literal := strings.Cut(line, "«")
		a.parts = append(a.parts, text)
		if !literal {
			return a
		}
		text, line, _ = strings.Cut(more, "»")
		a.parts = append(a.parts, text)
	}
}

func TestArgs(t *testing.T) {
	atom, word, str, astring := (*Args).Atom, (*Args).Word, (*Args).String, (*Args).AString
	for _, test := range []struct {
		name string
		take func(*Args) (string, bool)
		line string
		want string
		ok   bool
		left string
	}{
		{"an atom", atom, "a1 NOOP", "a1", true, " NOOP"},
		{"an atom to the end", atom, "NOOP", "NOOP", true, ""},
		{"an atom with a bracket", atom, "]x[", "]x[", true, ""},
		{"an atom ends at a parenthesis", atom, "ID(", "ID", true, "("},
		{"an atom ends at a wildcard", atom, "a%b", "a", true, "%b"},
		{"an atom ends at a star", atom, "a*b", "a", true, "*b"},
		{"an atom ends at a brace", atom, "a{3", "a", true, "{3"},
		{"an atom ends at a quote", atom, `a"b"`, "a", true, `"b"`},
		{"an atom ends at a backslash", atom, `a\b`, "a", true, `\b`},
		{"an atom ends at a tab", atom, "a\tb", "a", true, "\tb"},
		{"an atom is ASCII", atom, "aé", "a", true, "é"},
		{"an atom has no DEL", atom, "a\x7f", "a", true, "\x7f"},
		{"an atom ends at a literal", atom, "a«b»", "a", true, "«b»"},
		{"no atom", atom, " a", "", false, " a"},
		{"no atom in quotes", atom, `"a"`, "", false, `"a"`},
		{"no atom in a literal", atom, "«a»", "", false, "«a»"},
		{"no atom at the end", atom, "", "", false, ""},

		{"a word", word, `a\"*é b`, `a\"*é`, true, " b"},
		{"a word ends at a parenthesis", word, "TAG)", "TAG", true, ")"},
		{"no word", word, "(a", "", false, "(a"},

		{"a quoted string", str, `"a b" c`, "a b", true, " c"},
		{"an empty one", str, `"" c`, "", true, " c"},
		{"one with escapes", str, `"\"\\" c`, `"\`, true, " c"},
		{"one with 8-bit octets", str, `"é" c`, "é", true, " c"},
		{"one with a brace", str, `"{3}"`, "{3}", true, ""},
		{"one that does not end", str, `"a`, "", false, `"a`},
		{"one that ends in an escape", str, `"a\`, "", false, `"a\`},
		{"one whose end is escaped", str, `"a\"`, "", false, `"a\"`},
		{"an escape that is none", str, `"\a"`, "", false, `"\a"`},
		{"an escape before the end of text", str, `"a\«b»"`, "", false, `"a\«b»"`},
		{"a quoted string across a literal", str, `"a«b»c"`, "", false, `"a«b»c"`},
		{"a literal", str, "«a b» c", "a b", true, " c"},
		{"an empty literal", str, "«» c", "", true, " c"},
		{"a literal that looks quoted", str, `«"a"»`, `"a"`, true, ""},
		{"a literal with CR LF", str, "«a\r\nb»", "a\r\nb", true, ""},
		{"a literal with NUL", str, "«a\x00» c", "", false, "«a\x00» c"},
		{"a literal behind text", str, " «a»", "", false, " «a»"},
		{"literals side by side", str, "«a»«b»", "a", true, "«b»"},
		{"no string", str, "a", "", false, "a"},
		{"no string at the end", str, "", "", false, ""},

		{"an astring that is an atom", astring, "a b", "a", true, " b"},
		{"an astring with what clients leave unquoted", astring, "a%b*c d", "a%b*c", true, " d"},
		{"an astring that is quoted", astring, `"a b" c`, "a b", true, " c"},
		{"an astring that is a literal", astring, "«a b» c", "a b", true, " c"},
		{"no astring", astring, "(a)", "", false, "(a)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := argsOf(test.line)
			got, ok := test.take(args)
			if got != test.want || ok != test.ok || left(args) != test.left {
				t.Errorf("took %q, %v and left %q; want %q, %v, %q", got, ok, left(args), test.want, test.ok, test.left)
			}
			if end := args.End(); end != (test.left == "") {
				t.Errorf("End is %v with %q left", end, test.left)
			}
		})
	}
}

func TestArgsTake(t *testing.T) {
	a := argsOf("a1 LOGIN   x(«lit»)")
	steps := []struct {
		what string
		ok   bool
		left string
	}{
		{"a1", a.Take("a1"), " LOGIN   x(«lit»)"},
		{"a blank", a.Space(), "LOGIN   x(«lit»)"},
	}
	for _, step := range steps {
		if !step.ok {
			t.Fatalf("%s is not there", step.what)
		}
	}
	if a.Space() || a.Take("LOGIN!") || a.Take("login") {
		t.Error("took what is not there")
	}
	if left(a) != "LOGIN   x(«lit»)" {
		t.Errorf("left %q", left(a))
	}
	a.Take("LOGIN")
	if a.Spaces(); left(a) != "x(«lit»)" {
		t.Errorf("Spaces left %q", left(a))
	}
	if a.Spaces(); left(a) != "x(«lit»)" {
		t.Errorf("Spaces took more than blanks, and left %q", left(a))
	}
	if got := a.Rest(); got != "x(" || left(a) != "«lit»)" {
		t.Errorf("Rest took %q and left %q", got, left(a))
	}
	if got := a.Rest(); got != "" || a.End() {
		t.Errorf("Rest took %q of a literal", got)
	}
	if s, ok := a.String(); s != "lit" || !ok || a.End() {
		t.Errorf("String took %q", s)
	}
	if !a.Take(")") || !a.End() || a.Take(")") {
		t.Errorf("left %q", left(a))
	}
}

// What could not be read whole can still be looked at, and has no end that is one.
func TestArgsOfHalfCommand(t *testing.T) {
	args, err := said("a {3}\r\nbob").ReadCommand(nil)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	tag, _ := args.Atom()
	args.Space()
	if tag != "a" || args.End() {
		t.Errorf("tag %q, End %v", tag, args.End())
	}
	if s, ok := args.String(); s != "bob" || !ok {
		t.Errorf("string %q", s)
	}
	if _, ok := args.String(); ok || args.Space() || args.Rest() != "" {
		t.Error("took what is not there")
	}
}

func TestQuote(t *testing.T) {
	for _, test := range []struct {
		in, out string
		ok      bool
	}{
		{"", `""`, true},
		{"alice", `"alice"`, true},
		{`a"b\c`, `"a\"b\\c"`, true},
		{"é\t{3}", "\"é\t{3}\"", true},
		{"a\r\nb NOOP", "", false},
		{"a\rb", "", false},
		{"a\nb", "", false},
		{"a\x00b", "", false},
	} {
		out, err := Quote(test.in)
		if out != test.out || (err == nil) != test.ok {
			t.Errorf("Quote(%q) = %q, %v", test.in, out, err)
		}
		if back, ok := NewArgs(out).String(); test.ok && (!ok || back != test.in) {
			t.Errorf("%s is read as %q, %v", out, back, ok)
		}
	}
}
