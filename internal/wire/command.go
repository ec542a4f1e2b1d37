package wire

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// LiteralError means that a literal was announced that is not wanted. If it is Sync, the peer waits for an invitation
// and sends nothing of it; else its octets are on their way and would be read as commands.
type LiteralError struct {
	Sync bool
	Why  error
}

func (e *LiteralError) Error() string { return "literal refused: " + e.Why.Error() }
func (e *LiteralError) Unwrap() error { return e.Why }

var errLiteralTooBig = errors.New("literal too big")

// ReadCommand reads one logical line: text, with the literals that are announced at the ends of its physical lines
// (RFC 9051 section 4.3, RFC 5804 section 4). Before a synchronising literal is read, invite is called with what came so
// far; it sends the invitation that the peer waits for, or refuses by an error. With a nil invite they are read as they come.
//
// The arguments are returned even with a *LiteralError or ErrBadLine, so that an answer can carry a tag.
func (c *Conn) ReadCommand(invite func(*Args) error) (*Args, error) {
	args := &Args{}
	room := MaxCommand
	for {
		line, err := c.readLine(room)
		if err != nil {
			if len(args.parts) > 0 {
				err = noEOF(err)
			}
			return args, err
		}
		room -= len(line)
		size, sync, announced := literalAt(line)
		args.parts = append(args.parts, string(line))
		if !announced {
			return args, args.checkText()
		}
		if size > room {
			return args, &LiteralError{Sync: sync, Why: errLiteralTooBig}
		}
		if sync && invite != nil {
			if err := invite(args); err != nil {
				return args, &LiteralError{Sync: true, Why: err}
			}
		}
		literal := make([]byte, size)
		if _, err := io.ReadFull(c.r, literal); err != nil {
			return args, noEOF(err)
		}
		room -= size
		args.dropAnnouncement()
		args.parts = append(args.parts, string(literal))
	}
}

// ReadText is ReadCommand for protocols without literals.
func (c *Conn) ReadText() (*Args, error) {
	line, err := c.ReadLine()
	args := NewArgs(string(line))
	if err == nil {
		err = args.checkText()
	}
	return args, err
}

// literalAt recognises "{n}" and "{n+}" at the end of a line. A number that no literal can have counts as too big for
// any room.
func literalAt(line []byte) (size int, sync, announced bool) {
	if len(line) == 0 || line[len(line)-1] != '}' {
		return 0, false, false
	}
	sync = true
	i := len(line) - 2
	if i >= 0 && line[i] == '+' {
		sync = false
		i--
	}
	end := i
	for i >= 0 && '0' <= line[i] && line[i] <= '9' {
		i--
	}
	if i < 0 || line[i] != '{' || i == end {
		return 0, false, false
	}
	for _, digit := range line[i+1 : end+1] {
		if size = size*10 + int(digit-'0'); size > MaxCommand {
			return math.MaxInt, sync, true
		}
	}
	return size, sync, true
}

// Args is a logical line and a place in it. Its methods consume what they recognise, or leave the place where it was.
type Args struct {
	parts []string // text, literal, text, literal, ..., text
	part  int      // the part that the place is in
	pos   int      // and how far in
}

// NewArgs makes a logical line without literals.
func NewArgs(line string) *Args { return &Args{parts: []string{line}} }

// checkText refuses what no protocol allows in a line. Literals may hold anything.
func (a *Args) checkText() error {
	for i := 0; i < len(a.parts); i += 2 {
		if strings.ContainsAny(a.parts[i], "\x00\r") {
			return ErrBadLine
		}
	}
	return nil
}

// dropAnnouncement cuts "{n}" off the last text: its literal takes its place.
func (a *Args) dropAnnouncement() {
	last := &a.parts[len(a.parts)-1]
	*last = (*last)[:strings.LastIndexByte(*last, '{')]
}

// text is what is left before the next literal or the end.
func (a *Args) text() string {
	if a.part >= len(a.parts) || a.part%2 == 1 {
		return ""
	}
	return a.parts[a.part][a.pos:]
}

// Take consumes the given text.
func (a *Args) Take(text string) bool {
	if !strings.HasPrefix(a.text(), text) {
		return false
	}
	a.pos += len(text)
	return true
}

// Space consumes exactly one blank.
func (a *Args) Space() bool { return a.Take(" ") }

// Spaces consumes any number of blanks, for grammars that allow it.
func (a *Args) Spaces() {
	for a.Space() {
	}
}

// End reports whether nothing is left.
func (a *Args) End() bool {
	return a.text() == "" && a.part >= len(a.parts)-1
}

// Rest consumes the text up to the next literal or the end.
func (a *Args) Rest() string {
	rest := a.text()
	a.pos += len(rest)
	return rest
}

// Atom consumes a run of characters that need no quoting (RFC 9051 section 9: ATOM-CHAR, and "]").
func (a *Args) Atom() (string, bool) {
	return a.while(isAtom)
}

// Word consumes everything up to a blank, a parenthesis or the end.
func (a *Args) Word() (string, bool) {
	return a.while(func(c byte) bool { return c != ' ' && c != '(' && c != ')' })
}

func (a *Args) while(in func(byte) bool) (string, bool) {
	text := a.text()
	n := 0
	for n < len(text) && in(text[n]) {
		n++
	}
	a.pos += n
	return text[:n], n > 0
}

// String consumes a quoted string or a literal. Strings hold no NUL (RFC 9051 section 9: CHAR8).
func (a *Args) String() (string, bool) {
	if s, ok := a.quoted(); ok {
		return s, true
	}
	if a.text() != "" || a.part+1 >= len(a.parts) {
		return "", false
	}
	s := a.parts[a.part+1]
	if strings.IndexByte(s, 0) >= 0 {
		return "", false
	}
	a.part, a.pos = a.part+2, 0
	return s, true
}

// AString consumes an atom or a string (RFC 9051 section 9: astring). In the atom it takes "%" and "*", too, which clients
// leave unquoted in user%domain and in passwords.
func (a *Args) AString() (string, bool) {
	if s, ok := a.while(func(c byte) bool { return isAtom(c) || c == '%' || c == '*' }); ok {
		return s, true
	}
	return a.String()
}

func isAtom(c byte) bool { return c > ' ' && c < 0x7f && !strings.ContainsRune(`(){%*"\`, rune(c)) }

// quoted consumes a quoted string, in which a backslash stands before a quote or a backslash and nowhere else.
func (a *Args) quoted() (string, bool) {
	text := a.text()
	if !strings.HasPrefix(text, `"`) {
		return "", false
	}
	var s strings.Builder
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '"':
			a.pos += i + 1
			return s.String(), true
		case '\\':
			i++
			if i == len(text) || text[i] != '"' && text[i] != '\\' {
				return "", false
			}
		}
		s.WriteByte(text[i])
	}
	return "", false
}

// escape puts a backslash before what cannot stand in a quoted string without one.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// Quote writes a quoted string. It refuses what cannot stand in one (RFC 9051 section 9: QUOTED-CHAR).
func Quote(s string) (string, error) {
	if strings.ContainsAny(s, "\x00\r\n") {
		return "", fmt.Errorf("quoting a string with NUL, CR or LF")
	}
	return `"` + escape.Replace(s) + `"`, nil
}
