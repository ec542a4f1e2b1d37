package integration

import (
	"crypto/tls"
	"strings"
	"testing"
)

// visits are what somebody does in each protocol who has just connected: log in, or bring mail.
var visits = map[string]string{
	"imap":       authLine("imap", "PLAIN", aliceLogin) + "\r\nb SELECT INBOX\r\n",
	"pop3":       authLine("pop3", "PLAIN", aliceLogin) + "\r\nSTAT\r\n",
	"sieve":      authLine("sieve", "PLAIN", aliceLogin) + "\r\nLISTSCRIPTS\r\n",
	"submission": "EHLO evil.example\r\n" + authLine("submission", "PLAIN", aliceLogin) + "\r\n" + mailLines + ".\r\n",
	"lmtp":       "LHLO evil.example\r\n" + mailLines + ".\r\n",
}

const (
	aliceLogin = "\x00alice@a.example\x00" + password
	mailLines  = "MAIL FROM:<>\r\nRCPT TO:<alice@a.example>\r\nDATA\r\nSubject: evil\r\n\r\nHello.\r\n"
)

// startTLS asks for TLS in each protocol.
var startTLS = answers{
	"imap": "s STARTTLS\r\n", "pop3": "STLS\r\n",
	"submission": "STARTTLS\r\n", "sieve": "STARTTLS\r\n", "lmtp": "STARTTLS\r\n",
}

// granted is how TLS is granted, and nothing else.
var granted = answers{"imap": "s OK ", "pop3": "+OK begin TLS", "submission": "220 ", "sieve": `OK "begin TLS"`, "lmtp": "220 "}

// untouched wants nobody to have logged in, to have tried to, or to have brought mail, when all have left.
func (a attacked) untouched(t testing.TB) {
	t.Helper()
	t.Cleanup(func() {
		for _, msg := range []string{"login", "login failed", "delivery"} {
			if n := a.count(`"msg":"` + msg + `"`); n > 0 {
				t.Errorf("%d times: %s", n, msg)
			}
		}
		for _, protocol := range protocols {
			if told := a.tap(protocol).told(protocol); strings.Contains(told, encode(aliceLogin)) || strings.Contains(told, "MAIL") {
				t.Errorf("%s: the store was told %q", protocol, told)
			}
		}
	})
}

// saysNoMore wants the server to say nothing more in the clear, and to leave: it can but speak of an alert.
func (d *dialog) saysNoMore() {
	d.t.Helper()
	const alert = "\x15"
	if said := d.ended(); said != "" && !strings.HasPrefix(said, alert) {
		d.t.Errorf("%s: somebody hears %q", d.protocol, said)
	}
}

// TestBehindStartTLS: what is sent in the clear behind the command for TLS is never a command, neither before TLS begins nor
// within it (CVE-2011-0411 and those that followed).
func TestBehindStartTLS(t *testing.T) {
	t.Parallel()
	a := startAttacked(t, "")
	a.untouched(t)
	for _, protocol := range protocols {
		start := func(t testing.TB) *dialog {
			d := a.knock(t, client{service: protocol})
			d.greeting()
			d.hello("")
			return d
		}
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			for _, behind := range []string{visits[protocol], "\r\n", "x", "\x00", farewell[protocol] + "\r\n", startTLS[protocol]} {
				d := start(t)
				d.write(startTLS[protocol] + behind)
				d.expect(granted[protocol])
				if tls.Client(d.conn, a.tls("mail.a.example")).Handshake() == nil {
					t.Errorf("TLS begins behind %q", behind)
				}

				d = start(t)
				d.write(startTLS[protocol] + behind)
				d.expect(granted[protocol])
				d.shout(visits[protocol])
				d.saysNoMore()
			}
			d := start(t)
			d.startTLS()
			d.shout(visits[protocol] + visits[protocol])
			d.saysNoMore()
		})
	}
}

// TestStartTLSForgets: who has begun TLS is as new, and has it once.
func TestStartTLSForgets(t *testing.T) {
	t.Parallel()
	a := startAttacked(t, "")
	for protocol, said := range map[string]struct {
		before  string
		within  []string
		refusal string
	}{
		"imap":       {"a NOOP", []string{"s STARTTLS"}, "s BAD"},
		"pop3":       {"USER alice@a.example", []string{"PASS " + password}, "-ERR USER first"},
		"sieve":      {"NOOP", []string{"STARTTLS"}, "NO"},
		"submission": {"EHLO before.example", []string{authLine("submission", "PLAIN", aliceLogin)}, "503 "},
		"lmtp":       {"LHLO before.example\r\nMAIL FROM:<>\r\nRCPT TO:<alice@a.example>", []string{"DATA", "MAIL FROM:<>"}, "503 "},
	} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			d := a.knock(t, client{service: protocol})
			d.greeting()
			d.write(said.before + "\r\n" + startTLS[protocol])
			d.until(granted[protocol])
			d.handshake(a.tls("mail.a.example"))
			if protocol == "sieve" {
				d.until("OK")
			}
			for _, line := range said.within {
				d.send(line)
				d.expect(said.refusal)
			}
			if offer := d.offers(); strings.Contains(offer, "STARTTLS") || strings.Contains(offer, "STLS") {
				t.Errorf("TLS is offered again: %q", offer)
			}
			d.write(startTLS[protocol])
			if got := d.read(); strings.HasPrefix(got, granted[protocol]) {
				t.Errorf("TLS begins within TLS: %q", got)
			}
			d.hello("after.example")
			if protocol != "lmtp" {
				d.wants(letIn, d.plain("alice", password))
			}
			d.use("Within TLS")
			for _, c := range a.tap(protocol).heard(protocol) {
				if told := string(c.up); strings.Contains(told, "before.example") && strings.Contains(told, "after.example") {
					t.Errorf("the store was told %q", told)
				}
			}
		})
	}
}
