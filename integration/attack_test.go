package integration

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// inClear has those log in without TLS who attack what is under it: a handshake takes longer than all else that they do.
const inClear = `plaintext_from = ["local"]`

// protocols are what one can attack.
var protocols = []string{"imap", "pop3", "submission", "sieve", "lmtp"}

// attacked is a jackdaw before a Dovecot for alice@a.example, and a Postfix that takes her mail, with taps between.
type attacked struct {
	*jackdaw
	stores    []*store
	box, smtp *tap
}

func startAttacked(t testing.TB, limits string) attacked {
	t.Helper()
	dovecot := dovecot{extra: crowd}.start(t, "store1", "alice@a.example")
	mta := postfix{sasl: dovecotSASL(dovecot)}.start(t, "mta")
	box, boxTap := dovecot.serving("imap", "pop3", "sieve", "lmtp").tapped(t)
	sends, smtpTap := mta.tapped(t)
	a := attacked{
		jackdaw: frontend{listen: inClear, limits: limits}.start(t, box.backend(sends.as("submission"))),
		stores:  []*store{dovecot, mta}, box: boxTap, smtp: smtpTap,
	}
	t.Cleanup(func() {
		if a.count("crashed") > 0 {
			t.Error("a session has crashed")
		}
	})
	return a
}

// tap is what stands before the store of a protocol.
func (a attacked) tap(protocol string) *tap {
	if protocol == "submission" {
		return a.smtp
	}
	return a.box
}

// knows waits until jackdaw does, for what is offered depends on it.
func (a attacked) knows() {
	a.t.Helper()
	for _, protocol := range protocols {
		a.logged(a.t, "learned capabilities", `"protocol":"`+protocol+`"`)
	}
}

// evil begins what is to become a command, but must not.
const evil = "evil" // names are written on in small letters

var (
	// evilLine finds it at a place where a store could take it for one.
	evilLine = regexp.MustCompile(`(?i)(^|[\x00\r\n])[ \t]*` + evil)
	base64s  = regexp.MustCompile(`[A-Za-z0-9+/]{8,}={0,2}`)
	// evilName finds it in a name or in a password that somebody writes on. NUL parts the fields of PLAIN.
	evilName = regexp.MustCompile(`(?i)[\x01-\x1f]` + evil)
)

// spared wants a store not to have been told of it.
func (x *tap) spared(t testing.TB, service string) {
	t.Helper()
	told := x.told(service)
	if evilLine.MatchString(told) {
		t.Errorf("%s: the store was told %q", service, told)
	}
	for _, word := range base64s.FindAllString(told, -1) {
		if text, err := base64.StdEncoding.DecodeString(word); err == nil && evilName.Match(text) {
			t.Errorf("%s: the store was told %q", service, text)
		}
	}
}

// authLine is a login by one message of SASL.
func authLine(protocol, mechanism, message string) string {
	switch protocol {
	case "imap":
		return "a AUTHENTICATE " + mechanism + " " + encode(message)
	case "sieve":
		return fmt.Sprintf("AUTHENTICATE %q %q", mechanism, encode(message))
	}
	return "AUTH " + mechanism + " " + encode(message)
}

// injections are what a client can write in each protocol that would give a store one more line to read, if it were written
// on as it came.
func injections(protocol string) []string {
	var all []string
	for _, end := range []string{"\r\n", "\n", "\r", "\x00"} {
		e := end + evil
		if protocol != "lmtp" {
			for _, message := range []string{
				"\x00alice@a.example" + e + "\x00" + password,
				"\x00alice" + e + "@a.example\x00" + password,
				"\x00alice@a.example\x00" + password + e,
				"alice@a.example" + e + "\x00alice@a.example\x00" + password,
			} {
				all = append(all, authLine(protocol, "PLAIN", message))
			}
			all = append(all, authLine(protocol, "SCRAM-SHA-256", "n,,n=alice@a.example"+e+",r=abcdef"),
				authLine(protocol, "SCRAM-SHA-256", "n,a=alice@a.example"+e+",n=alice@a.example,r=abcdef"))
		}
		literal := func(text string) string { return fmt.Sprintf("{%d+}\r\n%s", len(text), text) }
		answer := func(text string) string { return "\r\n" + encode(text) }
		switch protocol {
		case "imap":
			all = append(all,
				"a LOGIN "+literal("alice@a.example"+e)+" "+password,
				"a LOGIN alice@a.example "+literal(password+e),
				"a LOGIN alice@a.example "+literal(password)+literal(evil),
				`a LOGIN "alice@a.example`+e+`" `+password,
				`a LOGIN alice@a.example "`+password+e+`"`,
				`a ID ("name" `+literal("x"+e)+`)`+"\r\na LOGIN alice@a.example "+literal(password+e),
				`a ID (`+literal("x"+e)+` "y")`,
				"a AUTHENTICATE LOGIN"+answer("alice@a.example"+e)+answer(password),
				"a AUTHENTICATE LOGIN"+answer("alice@a.example")+answer(password+e),
				"a AUTHENTICATE PLAIN "+encode("\x00alice@a.example\x00")+e,
			)
		case "pop3":
			all = append(all,
				"USER alice@a.example"+strings.ReplaceAll(e, "\n", "\x00")+"\r\nPASS "+password,
				"USER alice@a.example\r\nPASS "+password+strings.ReplaceAll(e, "\n", "\x00"), // at LF its line ends indeed
				"AUTH LOGIN"+answer("alice@a.example"+e)+answer(password),
				"AUTH LOGIN"+answer("alice@a.example")+answer(password+e),
			)
		case "sieve":
			all = append(all,
				"AUTHENTICATE \"PLAIN\" "+literal(encode("\x00alice@a.example\x00"+password)+e),
				"AUTHENTICATE \"PLAIN\" \""+encode("\x00alice@a.example\x00"+password)+e+"\"",
				"AUTHENTICATE "+literal("PLAIN"+e)+" \""+encode("\x00alice@a.example\x00"+password)+"\"",
				"AUTHENTICATE \"LOGIN\"\r\n"+literal(encode("alice@a.example"+e))+"\r\n"+literal(encode(password)),
				"NOOP "+literal("x"+e)+"\r\nNOOP \"x"+end+"\"",
			)
		case "submission":
			all = append(all,
				"EHLO client.example"+e,
				"EHLO client.example "+evil+"=1",
				"HELO client.example"+end+"EHLO "+evil,
				"AUTH PLAIN "+encode("\x00alice@a.example\x00")+e,
				"AUTH LOGIN"+answer("alice@a.example"+e)+answer(password),
				"AUTH PLAIN"+answer("\x00alice@a.example\x00"+password+e),
				"EHLO client.example+0D+0A"+evil+"\r\n"+authLine(protocol, "PLAIN", "\x00alice@a.example\x00wrong"),
				"EHLO [192.0.2.1]+0D+0A"+evil+"\r\n"+authLine(protocol, "PLAIN", "\x00alice@a.example\x00wrong"),
			)
		case "lmtp":
			to := func(address string) string { return "MAIL FROM:<>\r\nRCPT TO:" + address }
			all = append(all,
				"LHLO client.example"+e+"\r\n"+to("<alice@a.example>"),
				"LHLO client.example+0D+0A"+evil+"\r\n"+to("<alice@a.example>"),
				"MAIL FROM:<alice@a.example"+e+">\r\nRCPT TO:<alice@a.example>",
				"MAIL FROM:<\"alice"+e+"\"@a.example>\r\nRCPT TO:<alice@a.example>",
				"MAIL FROM:<> BODY=8BITMIME"+e+"\r\nRCPT TO:<alice@a.example>",
				"MAIL FROM:<> AUTH=<>"+e+"\r\nRCPT TO:<alice@a.example>",
				to("<alice@a.example"+e+">"),
				to("<alice"+e+"@a.example>"),
				to("<\"alice"+e+"\"@a.example>"),
				to("<\"alice\\"+e+"\"@a.example>"),
				to("<@relay.example"+e+":alice@a.example>"),
				to("<alice@a.example>"+e),
				to("<alice@a.example> NOTIFY=NEVER"+e),
				to("<alice@a.example> ORCPT=rfc822;x+0D+0A"+evil),
				to("<alice+a"+e+"@a.example>"),
			)
		}
	}
	return all
}

// TestInjection: nothing that a client can put into a name, a password, a greeting or an address becomes a line that a store
// reads, or one that the client itself does.
func TestInjection(t *testing.T) {
	t.Parallel()
	a := startAttacked(t, "attempts = 5")
	a.knows()
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			attacks := injections(protocol)
			var all []*dialog
			for _, attack := range attacks {
				d := a.knock(t, client{service: protocol})
				d.greeting()
				d.hello("")
				d.write(attack + strings.Repeat("\r\n"+farewell[protocol], 2) + "\r\n") // one may be taken for a response
				all = append(all, d)
			}
			for i, d := range all {
				if said := d.ended(); strings.Contains(said, evil) && !strings.HasPrefix(attacks[i], "NOOP") { // which is an echo
					t.Errorf("to %q the client hears %q", attacks[i], said)
				}
			}
			if n := a.count(`"msg":"login"`, `"service":"`+protocol+`"`); n > 0 {
				t.Errorf("%d attackers are in", n)
			}
			// The same tap sees an honest client.
			d := a.knock(t, client{service: protocol})
			d.greeting()
			d.hello("")
			honest := "TO:<alice@a.example>"
			if protocol != "lmtp" {
				d.wants(letIn, d.plain("alice@a.example", password))
				honest = encode("\x00alice@a.example\x00" + password)
			}
			d.use("Honest")
			if !strings.Contains(a.tap(protocol).told(protocol), honest) {
				t.Error("the tap is none")
			}
			a.tap(protocol).spared(t, protocol)
		})
	}
	t.Cleanup(func() {
		for _, s := range a.stores {
			for line := range strings.Lines(s.Log()) {
				if strings.Contains(line, evil) && !strings.Contains(line, "auth failed") {
					t.Errorf("%s logs %q", s.name, line)
				}
			}
		}
	})
}

// use does with a service what it is for, as alice@a.example or, by LMTP, for her.
func (d *dialog) use(subject string) {
	d.t.Helper()
	switch d.protocol {
	case "imap":
		d.ask("SELECT INBOX")
	case "pop3":
		d.send("STAT")
		d.expect("+OK")
	case "sieve":
		d.send("LISTSCRIPTS")
		d.until("OK")
	case "submission":
		d.submit(subject, "alice@a.example", "somebody@elsewhere.example")
	case "lmtp":
		verdicts(d.t, d.deliver(subject, "somebody@elsewhere.example", "alice@a.example"), "250 ")
	}
}
