package integration

import (
	"io"
	"strings"
	"testing"
)

// shout writes text, whether or not anybody listens any more.
func (d *dialog) shout(text string) { _, _ = io.WriteString(d.conn, text) }

// web are requests that a browser can be made to send to any port, with what the attacker likes in them (ALPACA).
func web(protocol string) []string {
	return []string{
		"GET / HTTP/1.1\r\nHost: mail.a.example\r\n\r\n",
		"GET /<script> HTTP/1.0\r\n\r\n",
		"POST /" + visits[protocol][:8] + " HTTP/1.1\r\nHost: mail.a.example\r\n\r\n" + visits[protocol],
		"PUT / HTTP/1.1\r\n" + visits[protocol],
	}
}

// endless are what nobody could read to its end, as far as it takes to see that.
func endless(protocol string) []string {
	much := strings.Repeat("x", 21<<10)
	all := []string{
		much,
		strings.Repeat("NOOP ", 5<<10),
		strings.Repeat("\x00", 21<<10),
		strings.Repeat("nonsense\r\n", 50),
		strings.Repeat("\r\n", 50),
		strings.Repeat("\xff\xfe\r\n", 50),
	}
	switch protocol {
	case "imap":
		all = append(all, "a LOGIN {4294967296+}\r\n", "a LOGIN {20000+}\r\n"+much, "a FOO {99999999999999999999999+}\r\n",
			"a LOGIN "+strings.Repeat("{2000+}\r\n"+strings.Repeat("x", 2000), 10),
			"a ID ("+strings.Repeat("{0+}\r\n ", 5<<10),
			"a ID "+strings.Repeat("(", 21<<10),
			"a AUTHENTICATE PLAIN\r\n"+much)
	case "sieve":
		all = append(all, "AUTHENTICATE {10}\r\n", "AUTHENTICATE {4294967296+}\r\n", "PUTSCRIPT \"x\" {20000+}\r\n"+much,
			"NOOP "+strings.Repeat("{2000+}\r\n"+strings.Repeat("x", 2000), 10),
			"AUTHENTICATE \"PLAIN\"\r\n"+much)
	case "pop3":
		all = append(all, "AUTH PLAIN\r\n"+much, "USER "+much)
	case "submission":
		all = append(all, "AUTH PLAIN\r\n"+much, "BDAT 100 LAST\r\n"+visits[protocol], "EHLO "+much)
	case "lmtp":
		all = append(all, "BDAT 99999999999999999999 LAST\r\n", "BDAT -1\r\n", "BDAT x\r\n"+visits[protocol],
			"BDAT 10 FIRST\r\n", "MAIL FROM:<"+much)
	}
	return all
}

// TestNonsense: who does not speak the protocol, or speaks without end, is sent away and has done nothing.
func TestNonsense(t *testing.T) {
	t.Parallel()
	a := startAttacked(t, "")
	a.untouched(t)
	for _, service := range append(loginServices, "lmtp") {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			var all []*dialog
			attacks := append(web(protocol(service)), endless(protocol(service))...)
			for _, attack := range attacks {
				c := client{service: service, name: "mail.a.example"}
				d := a.knock(t, c)
				if implicit(service) {
					d.handshake(a.config(c))
				}
				d.shout(attack)
				all = append(all, d)
			}
			if implicit(service) { // it is no TLS, either
				for _, attack := range append(attacks, visits[protocol(service)], "\x16\x03\x01\xff\xff\x01", "\x80\x2e\x01\x03\x01") {
					d := a.knock(t, client{service: service})
					d.shout(attack)
					d.saysNoMore()
				}
			}
			for i, d := range all {
				said := d.ended()
				for _, word := range []string{"HTTP", "script", "nonsense", "xxx", "\xff"} {
					if strings.Contains(said, word) {
						t.Errorf("to %.100q somebody hears %q", attacks[i], said)
					}
				}
				if n := strings.Count(said, "\r\n"); n > 60 {
					t.Errorf("to %.100q somebody hears %d lines", attacks[i], n)
				}
			}
		})
	}
}

// TestTooMuch: what is too much, but can be answered, spoils nothing that comes behind it.
func TestTooMuch(t *testing.T) {
	t.Parallel()
	a := startAttacked(t, "attempts = 10")
	big := strings.Repeat("x", 600)
	for protocol, lines := range map[string][]string{
		"imap": {"a LOGIN {4294967296}", "a LOGIN {99999999999999999999999}", "a LOGIN x {20000}", "a NOOP {20000}",
			"a NOOP {-1}", "a NOOP {1e9}",
			"a LOGIN " + big + " x", "a ID (" + strings.Repeat(`"k" "v" `, 31) + ")", strings.Repeat("t", 200) + " NOOP"},
		"pop3": {"USER x" + big, "PASS x", "AUTH PLAIN " + encode(strings.Repeat("x", 10000)), "CAPA " + big},
		"sieve": {`AUTHENTICATE "PLAIN" "` + encode(strings.Repeat("x", 10000)) + `"`, `NOOP "` + big + `" x`,
			"PUTSCRIPT {5+}\r\nhello"},
		"submission": {"AUTH PLAIN " + encode(strings.Repeat("x", 10000)), "EHLO " + big, "NOOP " + big,
			"MAIL FROM:<" + big + ">"},
		"lmtp": {"MAIL FROM:<" + big + ">", "LHLO " + big, "RCPT TO:<alice@a.example>",
			"BDAT 20000\r\n" + strings.Repeat("x", 20000-len("\r\n"))},
	} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			d := a.knock(t, client{service: protocol})
			d.greeting()
			d.hello("")
			for _, line := range lines {
				d.send(line)
			}
			if protocol == "imap" {
				d.until("* BAD") // the last
			} else {
				for range lines {
					d.reply()
				}
			}
			d.hello("")
			if protocol != "lmtp" {
				d.wants(letIn, d.plain("alice@a.example", password))
			}
			d.use("After all")
		})
	}
}
