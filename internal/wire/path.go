package wire

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPath bounds a path (RFC 5321 section 4.5.3.1.3). A local part may fill it: senders that carry a recipient in theirs go
// beyond the 64 octets of the RFC every day.
const maxPath = 256

// Path is the address in a MAIL or RCPT command (RFC 5321 section 4.1.2), without quotes and without a source route. The zero
// Path is the null reverse path, which bounces come from.
type Path struct {
	Local  string
	Domain string // or an address literal with its brackets; "" where a local part stands alone
}

// Path consumes a path. A source route is dropped, as RFC 5321 appendix C wants it.
func (a *Args) Path() (Path, bool) {
	place := *a
	if !place.Take("<") {
		return Path{}, false
	}
	if place.Take(">") {
		*a = place
		return Path{}, true
	}
	p, ok := place.mailbox()
	if !ok || !place.Take(">") || len(p.String()) > maxPath {
		return Path{}, false
	}
	*a = place
	return p, true
}

// mailbox consumes what stands within the brackets. Dots that RFC 5321 would have quoted are taken as they come: there are
// senders that have them.
func (a *Args) mailbox() (p Path, ok bool) {
	if !a.sourceRoute() {
		return Path{}, false
	}
	if p.Local, ok = a.quotedLocal(); !ok {
		p.Local, _ = a.while(func(c byte) bool { return isAText(c) || c == '.' })
	}
	if p.Local == "" || !isText(p.Local) {
		return Path{}, false
	}
	if a.Take("@") {
		p.Domain, ok = a.domain()
		return p, ok
	}
	return p, true
}

// sourceRoute consumes "@one,@two:", if there is one. It is false for half of one.
func (a *Args) sourceRoute() bool {
	for a.Take("@") {
		if _, ok := a.domain(); !ok {
			return false
		}
		if a.Take(":") {
			return true
		}
		if !a.Take(",") || !strings.HasPrefix(a.text(), "@") {
			return false
		}
	}
	return true
}

// domain consumes a domain or an address literal.
func (a *Args) domain() (string, bool) {
	if a.Take("[") {
		literal, ok := a.while(func(c byte) bool { return c > ' ' && c < 0x7f && !strings.ContainsRune(`[\]<>`, rune(c)) })
		return "[" + literal + "]", ok && a.Take("]")
	}
	domain, _ := a.while(func(c byte) bool { return isLetDig(c) || c == '-' || c == '_' || c == '.' || c >= utf8.RuneSelf })
	if !isText(domain) {
		return "", false
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" {
			return "", false
		}
	}
	return domain, true
}

// quotedLocal consumes a quoted string, in which a backslash may stand before anything printable.
func (a *Args) quotedLocal() (string, bool) {
	text := a.text()
	if !strings.HasPrefix(text, `"`) {
		return "", false
	}
	var s strings.Builder
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			a.pos += i + 1
			return s.String(), true
		case c == '\\':
			if i++; i == len(text) || text[i] >= utf8.RuneSelf {
				return "", false
			}
		}
		s.WriteByte(text[i])
	}
	return "", false
}

// String writes the path with its brackets. What need not be quoted is not, and what must be always is: an address never
// becomes another one.
func (p Path) String() string {
	if p.Local == "" {
		return "<>"
	}
	local := p.Local
	if !isDotString(local) {
		local = `"` + escape.Replace(local) + `"`
	}
	if p.Domain == "" {
		return "<" + local + ">"
	}
	return "<" + local + "@" + p.Domain + ">"
}

// ASCII reports whether the path can be said to a server without SMTPUTF8 (RFC 6531).
func (p Path) ASCII() bool {
	return !strings.ContainsFunc(p.Local+p.Domain, func(r rune) bool { return r >= utf8.RuneSelf })
}

// isDotString tells what needs no quotes: atoms with single dots between them.
func isDotString(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(r rune) bool { return r < utf8.RuneSelf && !isAText(byte(r)) }) {
			return false
		}
	}
	return true
}

// isAText tells what an atom is of (RFC 5322 section 3.2.3, RFC 6531 section 3.3).
func isAText(c byte) bool {
	return isLetDig(c) || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0 || c >= utf8.RuneSelf
}

func isLetDig(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isText refuses what is no UTF-8, and control characters, those of Unicode as well.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
