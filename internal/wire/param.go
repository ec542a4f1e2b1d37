package wire

import (
	"strconv"
	"strings"
)

// ReadXText reads what XText writes, as far as a client may use it (RFC 3461 section 4.4): printable ASCII.
func ReadXText(text string) (string, bool) {
	var s strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '+' {
			hex, err := strconv.ParseUint(text[i+1:min(i+3, len(text))], 16, 8)
			if err != nil || i+3 > len(text) || strings.ToUpper(text[i+1:i+3]) != text[i+1:i+3] {
				return "", false
			}
			c = byte(hex)
			i += 2
		} else if c == '=' || c == ' ' {
			return "", false
		}
		if c < ' ' || c > '~' {
			return "", false
		}
		s.WriteByte(c)
	}
	return s.String(), text != ""
}

// Param consumes a blank and a parameter of MAIL or RCPT (RFC 5321 section 4.1.2, RFC 6531 section 3.3): its name in upper
// case, and its value, "" where it has none.
func (a *Args) Param() (name, value string, ok bool) {
	place := *a
	place.Spaces()
	if place.pos == a.pos {
		return "", "", false
	}
	name, ok = place.while(func(c byte) bool { return isLetDig(c) || c == '-' })
	if ok && place.Take("=") {
		value, ok = place.while(func(c byte) bool { return c > ' ' && c != '=' && c != 0x7f })
		ok = ok && isText(value)
	}
	if !ok || name[0] == '-' {
		return "", "", false
	}
	*a = place
	return strings.ToUpper(name), value, true
}
