package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ReadSMTP is ReadLine for SMTP and LMTP, where CR LF alone ends a line (RFC 5321 section 2.3.8): what one server takes for
// the end of a line and another does not has been a way to smuggle commands. A line with a bare CR or LF, or with NUL, is
// consumed up to its LF, and ErrBadLine returned.
func (c *Conn) ReadSMTP() (string, error) {
	line, err := c.readRaw(MaxCommand)
	if err != nil {
		return "", err
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok || strings.ContainsAny(text, "\x00\r") {
		return "", ErrBadLine
	}
	return text, nil
}

// XText writes what may stand in a parameter's value of SMTP (RFC 3461 section 4).
func XText(s string) string {
	var text strings.Builder
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != '+' && c != '=' {
			text.WriteByte(c)
		} else {
			fmt.Fprintf(&text, "+%02X", c)
		}
	}
	return text.String()
}

// Reply is an answer of an SMTP or LMTP server (RFC 5321 section 4.2).
type Reply struct {
	Code  int
	Lines []string // the text of each line, without code and separator
}

// maxReplyLines bounds the lines of one reply.
const maxReplyLines = 100

var errReply = errors.New("malformed reply")

// ReadReply reads one reply with all its lines.
func (c *Conn) ReadReply() (Reply, error) {
	var r Reply
	for range maxReplyLines {
		line, err := c.ReadLine()
		if err != nil {
			return Reply{}, err
		}
		code, text, last, ok := replyLine(string(line))
		if !ok || r.Code != 0 && code != r.Code {
			return Reply{}, fmt.Errorf("%w: %.80q", errReply, line)
		}
		r.Code, r.Lines = code, append(r.Lines, text)
		if last {
			return r, nil
		}
	}
	return Reply{}, errReply
}

// replyLine takes one line of a reply apart. A code alone, without a blank behind it, is a last line, too.
func replyLine(line string) (code int, text string, last, ok bool) {
	if len(line) < 3 {
		return 0, "", false, false
	}
	for _, digit := range []byte(line[:3]) {
		if digit < '0' || digit > '9' {
			return 0, "", false, false
		}
		code = code*10 + int(digit-'0')
	}
	switch {
	case code < 200 || code > 599:
		return 0, "", false, false
	case len(line) == 3:
		return code, "", true, true
	case line[3] == ' ':
		return code, line[4:], true, true
	case line[3] == '-':
		return code, line[4:], false, true
	}
	return 0, "", false, false
}

// Text is the text of the reply in one line, with what is no printable ASCII replaced: it goes into logs, and from a store
// of LMTP to the client.
func (r Reply) Text() string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, strings.Join(r.Lines, " "))
}

// maxReplyLine bounds a line of a reply (RFC 5321 section 4.5.3.1.5), less its end.
const maxReplyLine = 512 - len("\r\n")

// Line is the reply in one line, as a server's that another server asked: printable, bounded, and with an enhanced status code
// (RFC 2034 section 4), which is a general one where the reply has none of its class.
func (r Reply) Line() string {
	class := r.Code / 100
	status := ""
	var text []string
	for _, line := range r.Lines {
		own, rest, _ := strings.Cut(line, " ")
		if !isStatus(own, class) {
			rest = line
		} else if status == "" {
			status = own // Cyrus has it in the last line alone
		}
		text = append(text, rest)
	}
	if status == "" {
		status = fmt.Sprintf("%d.0.0", class)
	}
	line := fmt.Sprintf("%d %s %s", r.Code, status, Reply{Lines: text}.Text())
	return strings.TrimRight(line[:min(len(line), maxReplyLine)], " ")
}

// isStatus recognises an enhanced status code of a class (RFC 3463 section 2).
func isStatus(s string, class int) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] != strconv.Itoa(class) {
		return false
	}
	for _, part := range parts[1:] {
		if n, err := strconv.ParseUint(part, 10, 16); err != nil || n > 999 || len(part) > 3 {
			return false
		}
	}
	return true
}

// Positive reports whether the server has done what it was asked to do.
func (r Reply) Positive() bool { return r.Code >= 200 && r.Code < 300 }
