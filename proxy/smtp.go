package proxy

import (
	"strings"
	"unicode/utf8"

	"jackdaw/configs"
)

// smtpTalk is what the dialogues of submission and LMTP have in common.
type smtpTalk struct{ talk }

// smtpBye ends a session with 421, which may come at any time (RFC 5321 section 3.8).
func smtpBye(r Reason) string {
	code := "4.7.0"
	switch r {
	case ReasonTimeout, ReasonIdle:
		code = "4.4.2"
	case ReasonShutdown, ReasonMoved:
		code = "4.3.2"
	}
	return "421 " + code + " " + r.sentence() + "\r\n"
}

// say answers the command at hand.
func (t *smtpTalk) say(parts ...string) {
	t.conn.Send(parts...)
	t.conn.Send("\r\n")
}

// mistaken answers what the client should not have said.
func (t *smtpTalk) mistaken(reply string) error {
	t.say(reply)
	return t.mistake()
}

// list answers EHLO or LHLO (RFC 5321 section 4.1.1.1).
func (t *smtpTalk) list(lines []string) {
	last := len(lines) - 1
	for _, line := range lines[:last] {
		t.say("250-", line)
	}
	t.say("250 ", lines[last])
}

// maxHello is the length that a domain may have (RFC 5321 section 4.5.3.1.2).
const maxHello = 255

// hello keeps what the client calls itself. It travels to the store, so it must be one word of visible ASCII; a name in other
// letters becomes its ASCII form.
func (t *smtpTalk) hello(name string) bool {
	t.peer.Hello = ""
	if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) && utf8.ValidString(name) {
		name, _ = configs.DNSName(name)
	}
	if name == "" || len(name) > maxHello || !utf8.ValidString(name) {
		return false
	}
	t.peer.Hello = name
	return true
}
