package proxy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"jackdaw/configs"
)

// maxTraced is how much of a line a trace shows.
const maxTraced = 1000

// mask makes lines of what a client and a server say to each other, without the secrets in it. In a dialogue it shows what it knows to
// be harmless; in the relay everything but logins, which no client tries there that means well. It is not safe for concurrent use.
type mask struct {
	protocol configs.Service
	relay    bool

	secret  string // the command with a secret that has no answer yet: its tag in IMAP, else its name; "" for none
	odd     string // the tag of the latest command in IMAP that is hidden as a whole; "" for none
	letter  bool   // what the client says is a message, by DATA
	literal int    // octets of one that the client sends
	parts   [2]partial
}

// partial is the beginning of a line; of one that is too long, without its end.
type partial struct {
	text []byte
	lost int // octets
}

// harmless are the commands before a login whose arguments are shown. The others are hidden.
var harmless = map[configs.Service][]string{
	configs.IMAP:       {"CAPABILITY", "ID", "LOGOUT", "NOOP", "STARTTLS"},
	configs.POP3:       {"CAPA", "LANG", "NOOP", "QUIT", "STLS", "USER", "UTF8"},
	configs.Submission: {"EHLO", "HELO", "HELP", "NOOP", "QUIT", "RSET", "STARTTLS", "XCLIENT"},
	configs.LMTP:       {"BDAT", "DATA", "HELP", "LHLO", "MAIL", "NOOP", "QUIT", "RCPT", "RSET", "STARTTLS", "VRFY"},
	configs.Sieve:      {"CAPABILITY", "LOGOUT", "NOOP", "STARTTLS"},
}

// secretive are the commands that carry a secret, or have one follow.
var secretive = []string{"APOP", "AUTH", "AUTHENTICATE", "LOGIN", "PASS"}

// lines returns the lines that become complete with what one side has said.
func (m *mask) lines(fromClient bool, said []byte) (shown []string) {
	part := &m.parts[0]
	if fromClient {
		part = &m.parts[1]
	}
	for len(said) > 0 {
		if fromClient && m.literal > 0 {
			n := min(m.literal, len(said))
			if m.literal -= n; m.literal == 0 {
				shown = append(shown, "(a literal)")
			}
			said = said[n:]
			continue
		}
		line, rest, whole := bytes.Cut(said, []byte("\n"))
		room := max(0, maxTraced-len(part.text))
		part.text = append(part.text, line[:min(room, len(line))]...)
		part.lost += max(0, len(line)-room)
		if said = rest; !whole {
			break
		}
		text := strings.TrimSuffix(string(part.text), "\r")
		if part.lost > 0 {
			text += fmt.Sprintf(" (and %d octets)", part.lost)
		}
		*part = partial{}
		if fromClient {
			shown = append(shown, m.client(text))
		} else {
			shown = append(shown, m.server(text))
		}
	}
	return shown
}

// hidden stands for what is not shown, of which the length, too, would tell something.
const hidden = "(hidden)"

// client returns what may be shown of the client's line.
func (m *mask) client(line string) string {
	switch {
	case m.letter && line == ".":
		m.letter = false
		return line
	case m.letter && m.relay:
		return line
	case m.letter:
		return "(a line of a message)"
	}
	if octets, ok := m.announced(line); ok {
		m.literal = octets
	}
	if m.secret != "" {
		return hidden
	}
	tag, verb, argument := "", "", ""
	rest := line
	if m.protocol == configs.IMAP {
		tag, rest, _ = strings.Cut(rest, " ")
	}
	verb, argument, _ = strings.Cut(rest, " ")
	switch name := strings.ToUpper(verb); {
	case slices.Contains(secretive, name):
		if m.secret = name; m.protocol == configs.IMAP {
			m.secret = tag
		}
		if mechanism, _, _ := strings.Cut(argument, " "); strings.HasPrefix(name, "AUTH") {
			verb += " " + mechanism
		}
		return strings.TrimSpace(tag+" "+verb) + " " + hidden
	case m.relay, slices.Contains(harmless[m.protocol], name):
		return line
	}
	m.odd = tag
	return hidden
}

// announced reads how many octets the client sends that are no line: by a literal at its end, or BDAT.
func (m *mask) announced(line string) (octets int, ok bool) {
	switch m.protocol {
	case configs.IMAP, configs.Sieve:
		if i := strings.LastIndexByte(line, '{'); i >= 0 && strings.HasSuffix(line, "}") {
			n, err := fmt.Sscanf(strings.TrimSuffix(strings.TrimSuffix(line[i+1:], "}"), "+"), "%d", &octets)
			return octets, n == 1 && err == nil && octets > 0
		}
	case configs.LMTP, configs.Submission:
		if len(line) > len("BDAT ") && strings.EqualFold(line[:len("BDAT ")], "BDAT ") {
			n, err := fmt.Sscanf(line[len("BDAT "):], "%d", &octets)
			return octets, n == 1 && err == nil && octets > 0
		}
	}
	return 0, false
}

// server returns what may be shown of the server's line.
func (m *mask) server(line string) string {
	if strings.HasPrefix(line, "354") && (m.protocol == configs.LMTP || m.protocol == configs.Submission) {
		m.letter = true
	}
	if rest, ok := strings.CutPrefix(line, m.odd+" "); ok && m.odd != "" { // it may be anything that was typed at the wrong place
		m.odd = ""
		return hidden + " " + rest
	}
	if m.secret == "" {
		return line
	}
	if m.answers(line) {
		m.secret = ""
		if i := strings.Index(line, "(SASL "); i >= 0 { // RFC 5804 section 2.1
			return line[:i] + hidden
		}
		return line
	}
	if m.protocol == configs.IMAP && strings.HasPrefix(line, "* ") {
		return line
	}
	return hidden
}

// answers reports whether the server's line ends the command with a secret.
func (m *mask) answers(line string) bool {
	switch m.protocol {
	case configs.IMAP:
		return strings.HasPrefix(line, m.secret+" ")
	case configs.POP3:
		return strings.HasPrefix(line, "+OK") || strings.HasPrefix(line, "-ERR")
	case configs.Sieve:
		word, _, _ := strings.Cut(strings.ToUpper(line), " ")
		return word == "OK" || word == "NO" || word == "BYE"
	}
	return !strings.HasPrefix(line, "334")
}

// readable leaves nothing in a line that would move a terminal's cursor.
func readable(line string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, line)
}
