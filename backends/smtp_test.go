package backends

import (
	"strings"
	"testing"

	"jackdaw/internal/wire"
)

func TestSMTPOpen(t *testing.T) {
	playDialogues(t, smtpStore{}, []dialogue{
		{what: "capabilities", open: true, caps: "PIPELINING;SIZE=1000;ENHANCEDSTATUSCODES | PLAIN LOGIN", talk: `
			B: 220 store1 ESMTP
			P: EHLO proxy.example.net
			B: 250-store1 at your service
			B: 250-PIPELINING
			B: 250-SIZE 1000
			B: 250-AUTH PLAIN LOGIN
			B: 250-AUTH=PLAIN LOGIN
			B: 250-Ok SESSIONID=<cyrus-1-2>
			B> 250-DSN \r250 XCLIENT\r\n
			B: 250-SMTPUTF8 für alle
			B: 250 enhancedstatuscodes`},
		{what: "a long greeting, and nothing that it can do", open: true, caps: "|", talk: `
			B: 220-store1
			B: 220-welcomes
			B: 220 you
			P: EHLO proxy.example.net
			B: 250 store1`},
		{what: "mechanisms in small letters", open: true, caps: "| PLAIN", talk: `
			B: 220 store1
			P: EHLO proxy.example.net
			B: 250-store1
			B: 250 auth plain`},
		{what: "no", open: true, err: `reading the greeting: refused with [554] "5.7.1 go away"`, talk: `B: 554 5.7.1 go away`},
		{what: "too busy", open: true, err: `EHLO: refused with [421] "too busy"`, talk: `
			B: 220 store1
			P: EHLO proxy.example.net
			B: 421 too busy`},
		{what: "a refusal of credentials where there are none", open: true, err: `EHLO: refused with [535]`, talk: `
			B: 220 store1
			P: EHLO proxy.example.net
			B: 535 no`},
		{what: "another protocol", open: true, err: "malformed reply", talk: `B: * OK ready`},
		{what: "the end", open: true, err: "EOF", talk: `
			B: 220 store1
			P: EHLO proxy.example.net
			B: 250-store1
			B* close`},
		{what: "a line too long", open: true, err: "line too long", talk: `
			B> 220 ` + strings.Repeat("x", wire.MaxCommand) + `
			B> \r\n`},
		{what: "a flood", open: true, err: "malformed reply", talk: `B* flood 220-x`},
	})
}

func TestSMTPStartTLS(t *testing.T) {
	const before = `
		B: 220 store1
		P: EHLO proxy.example.net
		B: 250-store1
		B: 250-SIZE 1
		B: 250 AUTH PLAIN
		P: STARTTLS`
	playDialogues(t, smtpStore{}, []dialogue{
		{what: "what was said before is forgotten", tls: true, open: true, caps: "SIZE=2 | LOGIN", talk: before + `
			B: 220 go
			B* starttls
			P: EHLO proxy.example.net
			B: 250-store1
			B: 250-SIZE 2
			B: 250 AUTH LOGIN`},
		{what: "refused", tls: true, open: true, err: `STARTTLS: refused with [454] "not now"`, talk: before + `
			B: 454 not now`},
		{what: "answers that came too early (CVE-2021-38371)", tls: true, open: true, err: "plaintext bytes behind STARTTLS", after: "250-store1\r\n250 AUTH PLAIN\r\n", talk: before + `
			B> 220 go\r\n250-store1\r\n250 AUTH PLAIN\r\n`},
	})
}

func TestSMTPLogin(t *testing.T) {
	const before = `
		B: 220 store1
		P: EHLO proxy.example.net
		B: 250-store1
		B: 250 AUTH PLAIN SCRAM-SHA-256
		P~ AUTH `
	const plain = before + "PLAIN AGFsaWNlAHNlY3JldA=="
	playDialogues(t, smtpStore{}, []dialogue{
		{what: "let in", talk: plain + `
			B: 235 2.7.0 in`},
		{what: "let in with what the client will read", after: "250 early\r\n", talk: plain + `
			B> 235 2.7.0 in\r\n250 early\r\n`},
		{what: "a wrong password", err: `refused with [535] "5.7.8 no"`, deny: true, talk: plain + `
			B: 535 5.7.8 no`},
		{what: "a wrong password in several lines", err: `refused with [535] "5.7.8 no and no"`, deny: true, talk: plain + `
			B: 535-5.7.8 no
			B: 535 and no`},
		{what: "a temporary failure", err: `refused with [454]`, talk: plain + `
			B: 454 4.7.0 later`},
		{what: "TLS first", err: `refused with [538]`, talk: plain + `
			B: 538 5.7.11 encrypt`},
		{what: "a success that is none", err: `refused with [250]`, talk: plain + `
			B: 250 fine`},
		{what: "one more question", err: "challenge to PLAIN", talk: plain + `
			B: 334 `},
		{what: "the end", err: "EOF", talk: plain + `
			B* close`},
		{what: "a mechanism that there is not", err: "store does not offer XOAUTH2", with: mechanism{name: "XOAUTH2"}, talk: `
			B: 220 store1
			P: EHLO proxy.example.net
			B: 250-store1
			B: 250 AUTH PLAIN`},
		{what: "an empty first message", with: mechanism{name: "SCRAM-SHA-256", first: []byte{}, next: []string{"more"}}, talk: before + `SCRAM-SHA-256 =
			B: 334 YQ==
			P: bW9yZQ==
			B: 235 in`},
		{what: "no first message", with: mechanism{name: "SCRAM-SHA-256", next: []string{"first"}}, talk: before + `SCRAM-SHA-256
			B: 334 ` + `
			P: Zmlyc3Q=
			B: 235 in`},
		{what: "a challenge with blanks (CVE-2026-33603)", err: "malformed base64", with: mechanism{name: "SCRAM-SHA-256", first: []byte("x")}, talk: before + `SCRAM-SHA-256 eA==
			B: 334 YQ ==`},
		{what: "challenges without end", err: "nothing to say", with: mechanism{name: "SCRAM-SHA-256", first: []byte("x")}, talk: before + `SCRAM-SHA-256 eA==
			B: 334 YQ==`},
	})
}

func FuzzSMTPStore(f *testing.F) {
	f.Add([]byte("220 x\r\n250-x\r\n250-XCLIENT ADDR\r\n250 AUTH PLAIN SCRAM-SHA-256\r\n334 YQ==\r\n235 in\r\n"), byte(0))
	f.Add([]byte("220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n250 AUTH PLAIN\r\n535 no\r\n"), byte(1))
	f.Add([]byte("220-x\r\n220 y\r\n250 x\r\n"), byte(2))
	f.Fuzz(func(t *testing.T, says []byte, way byte) { fuzzStore(t, smtpStore{lmtp: way&4 != 0}, says, way) })
}
