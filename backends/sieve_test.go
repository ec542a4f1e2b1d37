package backends

import (
	"strings"
	"testing"

	"jackdaw/internal/wire"
)

func TestSieveOpen(t *testing.T) {
	playDialogues(t, sieveStore{}, []dialogue{
		{what: "capabilities", open: true, caps: "IMPLEMENTATION=Cyrus timsieved;SIEVE=fileinto vacation;STARTTLS;UNAUTHENTICATE | PLAIN LOGIN", talk: `
			B: "IMPLEMENTATION" "Cyrus timsieved"
			B: "SASL" "PLAIN LOGIN"
			B: "SIEVE" "fileinto vacation"
			B: "STARTTLS"
			B: "UNAUTHENTICATE"
			B: OK "ready"`},
		{what: "small letters", open: true, caps: "SIEVE=x | PLAIN", talk: `
			B: "sieve" "x"
			B: "sasl" "plain"
			B: ok`},
		{what: "literals", open: true, caps: "SIEVE=x y | PLAIN", talk: `
			B: {5}
			B: SIEVE {3}
			B: x y
			B: "SASL" {5}
			B: PLAIN
			B: OK {5}
			B: ready`},
		{what: "no mechanisms without TLS", open: true, caps: "SIEVE=x |", talk: `
			B: "SIEVE" "x"
			B: "SASL" ""
			B: OK`},
		{what: "a greeting with a code", open: true, caps: "SIEVE=x |", talk: `
			B: "SIEVE" "x"
			B: OK (TAG {3}
			B: abc) "ready"`},
		{what: "NO", open: true, err: `reading the greeting: refused with "go away"`, talk: `B: NO "go away"`},
		{what: "BYE", open: true, err: `reading the greeting: refused with [TRYLATER] "too many"`, talk: `B: BYE (TRYLATER) "too many"`},
		{what: "BYE behind capabilities", open: true, err: `refused with "enough"`, talk: `
			B: "SIEVE" "x"
			B: BYE "enough"`},
		{what: "another protocol", open: true, err: `store answers "*"`, talk: `B: * OK ready`},
		{what: "an empty line", open: true, err: `store answers ""`, talk: `B:`},
		{what: "the end", open: true, err: "EOF", talk: `
			B: "SIEVE" "x"
			B* close`},
		{what: "a string that does not end", open: true, err: "store answers", talk: `B: "SIEVE`},
		{what: "NUL", open: true, err: "NUL or bare CR", talk: `B> "SIE\x00VE"\r\n`},
		{what: "a literal too big", open: true, err: "literal too big", talk: `B: "SIEVE" {16385}`},
		{what: "a line too long", open: true, err: "line too long", talk: `
			B> "SIEVE" "` + strings.Repeat("x", wire.MaxCommand) + `
			B> "\r\n`},
		{what: "a flood", open: true, err: "store talks without answering", talk: `B* flood "X" "Y"`},
	})
}

func TestSieveStartTLS(t *testing.T) {
	const before = `
			B: "SASL" "EVIL"
			B: "SIEVE" "evil"
			B: "STARTTLS"
			B: OK "ready"
			P: STARTTLS
`
	playDialogues(t, sieveStore{}, []dialogue{
		{what: "capabilities come again", tls: true, open: true, caps: "SIEVE=x | PLAIN", talk: before + `
			B: OK "begin"
			B* starttls
			B: "SASL" "PLAIN"
			B: "SIEVE" "x"
			B: OK "TLS is active"`},
		{what: "a store that does not say them again", tls: true, open: true, err: "reading capabilities after STARTTLS: EOF", talk: before + `
			B: OK
			B* starttls
			B* close`},
		{what: "NO under TLS", tls: true, open: true, err: `reading capabilities after STARTTLS: refused with "no"`, talk: before + `
			B: OK
			B* starttls
			B: NO "no"`},
		{what: "NO", tls: true, open: true, err: `STARTTLS: refused with "no certificate"`, talk: before + `
			B: NO "no certificate"`},
		{what: "BYE", tls: true, open: true, err: `STARTTLS: refused with "no certificate"`, talk: before + `
			B: BYE "no certificate"`},
		{what: "capabilities behind the answer", tls: true, open: true, err: "plaintext bytes behind STARTTLS",
			after: "\"SASL\" \"PLAIN\"\r\nOK\r\n", talk: before + `
			B> OK "begin"\r\n"SASL" "PLAIN"\r\nOK\r\n`},
		{what: "a challenge", tls: true, open: true, err: "challenge unasked for", talk: before + `
			B: "what"`},
	})
}

func TestSieveLogin(t *testing.T) {
	const greeting = "B: \"SASL\" \"PLAIN SCRAM-SHA-256\"\nB: OK\n"
	const initial = greeting + "P: AUTHENTICATE \"PLAIN\" \"" + plain + "\"\n"
	scram := mechanism{name: "SCRAM-SHA-256", first: []byte("first"), next: []string{"final", ""}}
	late := scram
	late.first = nil
	short := scram
	short.next = nil
	other := scram
	other.name = "XOAUTH2"
	tests := []dialogue{
		{what: "OK", talk: initial + `B: OK "Logged in"`},
		{what: "OK without a text", talk: initial + `B: OK`},
		{what: "what comes behind the login is the client's", after: "\"x\"\r\n", talk: initial + `B> OK\r\n"x"\r\n`},
		{what: "a literal in the answer", after: "", talk: initial + `
			B: OK (WARNINGS) {2}
			B: hi`},
		{what: "a store without PLAIN", err: "store does not offer PLAIN", talk: `
			B: "SASL" "GSSAPI"
			B: OK`},
		{what: "a store without mechanisms", err: "store does not offer PLAIN", talk: `
			B: "SIEVE" "x"
			B: OK`},

		{what: "NO", err: `refused with "Authentication failed"`, deny: true, talk: initial + `B: NO "Authentication failed"`},
		{what: "NO alone", err: `refused with ""`, deny: true, talk: initial + `B: NO`},
		{what: "NO with another code", err: `refused with [X-FOO] "what"`, deny: true, talk: initial + `B: NO (X-FOO) "what"`},
		{what: "NO with a code and arguments", err: `refused with [X-FOO] "what"`, deny: true, talk: initial + `B: NO (X-FOO "a)" b (c) "d") "what"`},
		{what: "a code in small letters", err: `refused with [TRYLATER] "later"`, talk: initial + `B: no (trylater) "later"`},
		{what: "a referral is not followed", err: "refused with [REFERRAL]", talk: initial + `B: NO (REFERRAL "sieve://evil.example/") "there"`},
		{what: "BYE", err: `refused with "enough"`, talk: initial + `B: BYE "enough"`},
		{what: "BYE with a code", err: `refused with [REFERRAL]`, talk: initial + `B: BYE (REFERRAL "sieve://evil.example/")`},
		{what: "neither", err: `store answers "WHAT"`, talk: initial + `B: WHAT`},
		{what: "the end", err: "EOF", talk: initial + `B* close`},
		{what: "a challenge to PLAIN", err: "challenge to PLAIN", talk: initial + `B: ""`},
		{what: "a challenge to PLAIN as a literal", err: "challenge to PLAIN", talk: initial + "B: {0}\nB:"},
		{what: "a flood", err: "challenge to PLAIN", talk: initial + `B* flood ""`},

		{what: "an exchange", with: scram, talk: greeting + `
			P: AUTHENTICATE "SCRAM-SHA-256" "Zmlyc3Q="
			B: "Y2hhbGxlbmdl"
			P: "ZmluYWw="
			B: {4}
			B: dj14
			P: ""
			B: OK`},
		{what: "an exchange whose last message comes with the success", with: scram, got: " = v=x", talk: greeting + `
			P: AUTHENTICATE "SCRAM-SHA-256" "Zmlyc3Q="
			B: "Y2hhbGxlbmdl"
			P: "ZmluYWw="
			B: OK (SASL "dj14") "in"`},
		{what: "the last message as a literal", with: scram, got: " = v=x", talk: greeting + `
			P: AUTHENTICATE "SCRAM-SHA-256" "Zmlyc3Q="
			B: OK (SASL {4}
			B: dj14)`},
		{what: "a last message that is no base64", with: scram, err: "malformed base64", talk: greeting + `
			P: AUTHENTICATE "SCRAM-SHA-256" "Zmlyc3Q="
			B: OK (SASL "v=x")`},
		{what: "without an initial response", with: late, talk: greeting + `
			P: AUTHENTICATE "SCRAM-SHA-256"
			B: ""
			P: "ZmluYWw="
			B: OK`},
		{what: "a challenge that is no base64", with: scram, err: "challenge of the store: malformed base64", talk: greeting + `
			P: AUTHENTICATE "SCRAM-SHA-256" "Zmlyc3Q="
			B: "what?"`},
		{what: "a client that breaks off", with: short, err: "nothing to say", talk: greeting + `
			P: AUTHENTICATE "SCRAM-SHA-256" "Zmlyc3Q="
			B: "Y2hhbGxlbmdl"`},
		{what: "a mechanism that is not offered", with: other, err: "store does not offer XOAUTH2", talk: greeting},
	}
	for _, code := range sieveTemporary {
		tests = append(tests, dialogue{what: "NO with " + code, err: "refused with [" + code + "]",
			talk: initial + "B: NO (" + code + ") \"later\""})
	}
	playDialogues(t, sieveStore{}, tests)
}

func FuzzSieveStore(f *testing.F) {
	for _, says := range []string{
		"\"SASL\" \"PLAIN SCRAM-SHA-256\"\r\n\"SIEVE\" \"x\"\r\nOK\r\nOK (SASL \"dj14\") \"x\"\r\n",
		"OK\r\nOK\r\n\"SASL\" \"PLAIN SCRAM-SHA-256\"\r\nOK\r\n\"Y2hhbGxlbmdl\"\r\n{4}\r\ndj14\r\nOK\r\n",
		"\"SASL\" {5}\r\nPLAIN\r\nOK (TAG {1}\r\nx (y \"z\")) \"a\"\r\nNO (TRYLATER \"a\" b) {1}\r\nx\r\n", "BYE (\r\n", "NO (((((\r\n", "\"a\" {99999}\r\n",
	} {
		for way := range byte(4) {
			f.Add([]byte(says), way)
		}
	}
	f.Fuzz(func(t *testing.T, says []byte, way byte) { fuzzStore(t, sieveStore{}, says, way) })
}
