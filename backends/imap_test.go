package backends

import (
	"fmt"
	"strings"
	"testing"

	"jackdaw/internal/wire"
)

// What PLAIN says for alice with the password "secret".
const plain = "AGFsaWNlAHNlY3JldA=="

func TestIMAPOpen(t *testing.T) {
	playDialogues(t, imapStore{}, []dialogue{
		{what: "capabilities in the greeting", open: true, caps: "IMAP4REV1;SASL-IR | PLAIN LOGIN", talk: `
			B: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=LOGIN] ready`},
		{what: "capabilities on demand", open: true, caps: "IMAP4REV1 | PLAIN", talk: `
			B: * OK ready
			P: J2 CAPABILITY
			B: * CAPABILITY IMAP4rev1 AUTH=PLAIN
			B: J2 OK done`},
		{what: "capabilities in the answer", open: true, caps: "IMAP4REV1 | PLAIN", talk: `
			B: * OK [ALERT] ready
			P: J2 CAPABILITY
			B: J2 OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] done`},
		{what: "small letters", open: true, caps: "IMAP4REV1 | PLAIN", talk: `
			B: * ok ready
			P: J2 CAPABILITY
			B: * capability imap4rev1 auth=plain
			B: J2 ok done`},
		{what: "a greeting without a text", open: true, caps: "IMAP4REV1 |", talk: `
			B: * OK
			P: J2 CAPABILITY
			B: * CAPABILITY IMAP4rev1
			B: J2 OK`},
		{what: "lines end with LF", open: true, caps: "IMAP4REV1 |", talk: `
			B> * OK [CAPABILITY IMAP4rev1] ready\n`},
		{what: "noise is passed over", open: true, caps: "IMAP4REV1 |", talk: `
			B: * OK ready
			P: J2 CAPABILITY
			B: * 5 EXISTS
			B: * OK [UNSEEN 3] hello
			B: J1 OK an answer to nobody
			B: * LIST () "/" {26}
			B: J2 OK [CAPABILITY X] trick
			B:
			B: * CAPABILITY IMAP4rev1
			B: J2 OK done`},

		{what: "PREAUTH", open: true, err: `greeting is "PREAUTH"`, talk: `
			B: * PREAUTH [CAPABILITY IMAP4rev1] logged in as somebody`},
		{what: "PREAUTH where STARTTLS is wanted", tls: true, open: true, err: `greeting is "PREAUTH"`, talk: `
			B: * PREAUTH ready`},
		{what: "BYE", open: true, err: `greeting is "BYE" "too many connections"`, talk: `
			B: * BYE [UNAVAILABLE] too many connections`},
		{what: "no greeting", open: true, err: "reading the greeting: EOF", talk: `B* close`},
		{what: "half a greeting", open: true, err: "reading the greeting: unexpected EOF", talk: `
			B> * OK rea
			B* close`},
		{what: "another protocol", open: true, err: `greeting is "220"`, talk: `B: 220 mail.example ESMTP`},
		{what: "an OK for nobody", open: true, err: `greeting is "OK" "ready"`, talk: `B: OK ready`},
		{what: "a NO", open: true, err: `greeting is "NO"`, talk: `B: * NO not now`},
		{what: "an empty line", open: true, err: `greeting is ""`, talk: `B:`},
		{what: "a greeting too long", open: true, err: "reading the greeting: line too long", talk: `
			B> * OK ` + strings.Repeat("x", wire.MaxCommand) + `
			B> \r\n`},
		{what: "a TLS alert", open: true, err: "reading the greeting: unexpected EOF", talk: `
			B> \x15\x03\x01\x00\x02\x02\x28
			B* close`},

		{what: "CAPABILITY refused", open: true, err: `CAPABILITY: refused with "what"`, talk: `
			B: * OK ready
			P: J2 CAPABILITY
			B: J2 BAD what`},
		{what: "NO is not about a password", open: true, err: `CAPABILITY: refused with "not now"`, talk: `
			B: * OK ready
			P: J2 CAPABILITY
			B: J2 NO not now`},
		{what: "CAPABILITY without an answer", open: true, err: "no answer to CAPABILITY", talk: `
			B: * OK ready
			P: J2 CAPABILITY
			B: J2 OK done`},
		{what: "BYE instead of capabilities", open: true, err: `refused with [UNAVAILABLE] "too late"`, talk: `
			B: * OK ready
			P: J2 CAPABILITY
			B: * BYE [UNAVAILABLE] too late`},
		{what: "a question to us", open: true, err: "continuation unasked for", talk: `
			B: * OK ready
			P: J2 CAPABILITY
			B: + go on`},
		{what: "the end", open: true, err: "CAPABILITY: EOF", talk: `
			B: * OK ready
			P: J2 CAPABILITY
			B* close`},
		{what: "NUL", open: true, err: "CAPABILITY: NUL or bare CR", talk: `
			B: * OK ready
			P: J2 CAPABILITY
			B> * CAPABILITY\x00IMAP4rev1\r\n`},
		{what: "a literal too big", open: true, err: "literal too big", talk: `
			B: * OK ready
			P: J2 CAPABILITY
			B: * ID ({1000000}`},
		{what: "as much noise as can be", open: true, caps: "IMAP4REV1 |", talk: `
			B: * OK ready
			P: J2 CAPABILITY
			` + noise(maxNoise-2, "* 1 EXISTS") + `
			B: * CAPABILITY IMAP4rev1
			B: J2 OK done`},
		{what: "more noise than can be", open: true, err: "store talks without answering", talk: `
			B: * OK ready
			P: J2 CAPABILITY
			` + noise(maxNoise, "* 1 EXISTS")},
		{what: "a flood", open: true, err: "store talks without answering", talk: `
			B: * OK ready
			P: J2 CAPABILITY
			B* flood * 1 EXISTS`},
		{what: "a flood of nothing", open: true, err: "store talks without answering", talk: `
			B: * OK ready
			P: J2 CAPABILITY
			B* flood `},
	})
}

func TestIMAPStartTLS(t *testing.T) {
	playDialogues(t, imapStore{}, []dialogue{
		// What is said before TLS counts for nothing: somebody else can have said it.
		{what: "capabilities come again", tls: true, open: true, caps: "IMAP4REV1 | PLAIN", talk: `
			B: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=EVIL] ready
			P: J1 STARTTLS
			B: * CAPABILITY IMAP4rev1 EVIL
			B: J1 OK begin
			B* starttls
			P: J2 CAPABILITY
			B: * CAPABILITY IMAP4rev1 AUTH=PLAIN
			B: J2 OK done`},
		{what: "they are asked for even if the answer has them", tls: true, open: true, caps: "IMAP4REV1 |", talk: `
			B: * OK ready
			P: J1 STARTTLS
			B: J1 OK [CAPABILITY IMAP4rev1 EVIL] begin
			B* starttls
			P: J2 CAPABILITY
			B: J2 OK [CAPABILITY IMAP4rev1] done`},
		{what: "NO", tls: true, open: true, err: `STARTTLS: refused with "no certificate"`, talk: `
			B: * OK ready
			P: J1 STARTTLS
			B: J1 NO no certificate`},
		{what: "BAD", tls: true, open: true, err: `STARTTLS: refused with "unknown command"`, talk: `
			B: * OK ready
			P: J1 STARTTLS
			B: J1 BAD unknown command`},
		{what: "an answer behind the answer", tls: true, open: true, err: "plaintext bytes behind STARTTLS",
			after: "* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nJ2 OK done\r\n", talk: `
			B: * OK ready
			P: J1 STARTTLS
			B> J1 OK begin\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nJ2 OK done\r\n`},
		{what: "half a line behind the answer", tls: true, open: true, err: "plaintext bytes behind STARTTLS", after: "*", talk: `
			B: * OK ready
			P: J1 STARTTLS
			B> J1 OK begin\r\n*`},
		{what: "an end instead of TLS", tls: true, open: true, err: "STARTTLS: EOF", talk: `
			B: * OK ready
			P: J1 STARTTLS
			B* close`},
		{what: "a flood", tls: true, open: true, err: "store talks without answering", talk: `
			B: * OK ready
			P: J1 STARTTLS
			B* flood * OK wait`},
	})
}

func TestIMAPLogin(t *testing.T) {
	const greeting = "B: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=SCRAM-SHA-256] ready\n"
	const initial = greeting + "P: J3 AUTHENTICATE PLAIN " + plain + "\n"
	const slow = "B: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN AUTH=SCRAM-SHA-256] ready\nP: J3 AUTHENTICATE PLAIN\n"
	const old = "B: * OK [CAPABILITY IMAP4rev1] ready\nP: J3 LOGIN {5}\n"
	tests := []dialogue{
		{what: "with an initial response", got: "IMAP4rev1 QUOTA", talk: initial + `
			B: J3 OK [CAPABILITY IMAP4rev1 QUOTA] welcome`},
		{what: "without one", got: "IMAP4rev1 QUOTA", talk: slow + `
			B: +
			P: ` + plain + `
			B: J3 OK [CAPABILITY IMAP4rev1 QUOTA] welcome`},
		{what: "with a blank behind the plus", got: "X", talk: slow + `
			B> + \r\n
			P: ` + plain + `
			B: J3 OK [CAPABILITY X] welcome`},
		// Dovecot says them so to whom has asked for them before.
		{what: "capabilities in a line of their own", got: "IMAP4rev1 QUOTA", talk: initial + `
			B: * CAPABILITY IMAP4rev1 QUOTA
			B: J3 OK Logged in`},
		{what: "capabilities on demand", got: "IMAP4rev1 ID", talk: initial + `
			B: J3 OK User logged in
			P: J4 CAPABILITY
			B: * CAPABILITY IMAP4rev1 ID
			B: J4 OK Completed`},
		{what: "no capabilities at all", err: "no answer to CAPABILITY after login", talk: initial + `
			B: J3 OK User logged in
			P: J4 CAPABILITY
			B: J4 OK Completed`},
		{what: "an empty list of capabilities", err: "no answer to CAPABILITY after login", talk: initial + `
			B: J3 OK [CAPABILITY] in`},
		{what: "BAD to the question for capabilities", err: "CAPABILITY after login: refused", talk: initial + `
			B: J3 OK in
			P: J4 CAPABILITY
			B: J4 BAD no`},
		{what: "NO to the question for capabilities", err: "CAPABILITY after login: refused", talk: initial + `
			B: J3 OK in
			P: J4 CAPABILITY
			B: J4 NO not now`},
		{what: "what comes behind the login is the client's", got: "X", after: "* 1 EXISTS\r\n", talk: initial + `
			B> J3 OK [CAPABILITY X] in\r\n* 1 EXISTS\r\n`},
		{what: "noise on the way", got: "X", talk: initial + `
			B: * OK [ALERT] be careful
			B: * ID {5}
			B> J3 OK\r\n
			B: J2 OK an answer to nobody
			B: J3 OK [CAPABILITY X] in`},

		{what: "a question behind the initial response", err: "challenge to PLAIN", talk: initial + `
			B: +`},
		{what: "a second question", err: "challenge to PLAIN", talk: slow + `
			B: +
			P: ` + plain + `
			B: +`},
		{what: "a flood of questions", err: "challenge to PLAIN", talk: slow + `
			B: +
			P: ` + plain + `
			B* flood + more`},
		{what: "the end", err: "EOF", talk: initial + "B* close"},
		{what: "a flood", err: "store talks without answering", talk: initial + `B* flood * OK wait`},

		{what: "the old command", got: "X", talk: old + `
			B: + OK
			P: alice {6}
			B: + OK
			P: secret
			B: J3 OK [CAPABILITY X] in`},
		{what: "the old command, refused", err: "refused with", deny: true, talk: old + `
			B: + OK
			P: alice {6}
			B: + OK
			P: secret
			B: J3 NO Login failed`},
		{what: "the old command, refused before the password", err: "refused with", deny: true, talk: old + `
			B: J3 NO who is that`},
		{what: "the old command, and a flood of questions", err: "store asks for a third argument", talk: old + `
			B: + OK
			P: alice {6}
			B: + OK
			P: secret
			B* flood + OK`},
		{what: "no way to log in", err: "store takes neither AUTHENTICATE PLAIN nor LOGIN", talk: `
			B: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=GSSAPI] ready`},
		{what: "LOGINDISABLED is not about AUTHENTICATE", got: "X", talk: `
			B: * OK [CAPABILITY IMAP4rev1 SASL-IR LOGINDISABLED AUTH=PLAIN] ready
			P: J3 AUTHENTICATE PLAIN ` + plain + `
			B: J3 OK [CAPABILITY X] in`},

		{what: "NO", err: `refused with "Login failed"`, deny: true, talk: initial + `B: J3 NO Login failed`},
		{what: "NO without a text", err: `refused with ""`, deny: true, talk: initial + `B: J3 NO`},
		{what: "AUTHENTICATIONFAILED", err: `refused with [AUTHENTICATIONFAILED] "sorry"`, deny: true, talk: initial + `
			B: J3 NO [AUTHENTICATIONFAILED] sorry`},
		{what: "a code in small letters", err: "refused with [UNAVAILABLE]", talk: initial + `B: J3 no [unavailable] later`},
		{what: "a code that does not end", err: `refused with "[UNAVAILABLE later"`, deny: true, talk: initial + `B: J3 NO [UNAVAILABLE later`},
		{what: "BAD", err: "refused with", talk: initial + `B: J3 BAD what`},
		{what: "PREAUTH", err: "refused with", talk: initial + `B: J3 PREAUTH come in`},
		{what: "nothing behind the tag", err: "refused with", talk: initial + `B: J3`},
		{what: "BYE", err: `refused with [UNAVAILABLE] "going down"`, talk: initial + `B: * BYE [UNAVAILABLE] going down`},
		{what: "a referral is not followed", err: "refused with [REFERRAL]", talk: initial + `
			B: J3 NO [REFERRAL imap://alice;AUTH=*@evil.example/] there`},
	}
	for _, code := range imapTemporary {
		tests = append(tests, dialogue{what: "NO with " + code, err: "refused with [" + code + "]",
			talk: initial + "B: J3 NO [" + code + "] later"})
	}
	playDialogues(t, imapStore{}, tests)
}

// Names and passwords of all kinds travel in literals, octet by octet.
func TestIMAPLoginLiterals(t *testing.T) {
	for _, test := range []struct{ user, password string }{
		{`a"b\c`, `d"e\f`}, {"müller", "geheim€"}, {"a b", " "}, {"{5}", "{5+}"}, {"a\r\nb", "c\r\nd"}, {"*", ")"},
	} {
		raw := &deaf{says: "+ OK\r\n+ OK\r\nJ3 OK [CAPABILITY X] in\r\n"}
		_, err := imapStore{}.Login(wire.New(raw), Capabilities{}, &Plain{User: test.user, Password: test.password})
		want := fmt.Sprintf("J3 LOGIN {%d}\r\n%s {%d}\r\n%s\r\n", len(test.user), test.user, len(test.password), test.password)
		if got := raw.got.String(); err != nil || got != want {
			t.Errorf("said %q, %v; want %q", got, err, want)
		}
	}
}

func TestIMAPRelay(t *testing.T) {
	var heard []string
	scram := func(first string, next ...string) mechanism {
		return mechanism{name: "SCRAM-SHA-256", first: []byte(first), next: next, heard: &heard}
	}
	bearer := mechanism{name: "XOAUTH2", first: []byte("token"), next: []string{""}, heard: &heard}
	for _, test := range []struct {
		what string
		with mechanism
		caps string
		says string
		want string
		err  string
	}{
		{"an exchange", scram("first", "final", ""), "SASL-IR | SCRAM-SHA-256", "+ Y2hhbGxlbmdl\r\n+ dj14\r\nJ3 OK [CAPABILITY X] in\r\n",
			"J3 AUTHENTICATE SCRAM-SHA-256 Zmlyc3Q=\r\nZmluYWw=\r\n\r\n", ""},
		{"an exchange without an initial response", scram("first", "final", ""), "| SCRAM-SHA-256",
			"+ \r\n+ Y2hhbGxlbmdl\r\n+ dj14\r\nJ3 OK [CAPABILITY X] in\r\n", "J3 AUTHENTICATE SCRAM-SHA-256\r\nZmlyc3Q=\r\nZmluYWw=\r\n\r\n", ""},
		{"an empty initial response", scram(""), "SASL-IR | SCRAM-SHA-256", "J3 NO\r\n", "J3 AUTHENTICATE SCRAM-SHA-256 =\r\n", "refused"},
		{"a bearer's error", bearer, "SASL-IR | XOAUTH2", "+ eyJzdGF0dXMiOiI0MDEifQ==\r\nJ3 NO expired\r\n",
			"J3 AUTHENTICATE XOAUTH2 dG9rZW4=\r\n\r\n", "refused"},
		{"a challenge that is no base64", scram("first", "final"), "SASL-IR | SCRAM-SHA-256", "+ what?\r\n",
			"J3 AUTHENTICATE SCRAM-SHA-256 Zmlyc3Q=\r\n", "challenge of the store: malformed base64"},
		{"a challenge with white space in it", scram("first", "final"), "SASL-IR | SCRAM-SHA-256", "+ Y2hh bGxl\r\n",
			"J3 AUTHENTICATE SCRAM-SHA-256 Zmlyc3Q=\r\n", "challenge of the store: malformed base64"},
		{"a client that breaks off", scram("first"), "SASL-IR | SCRAM-SHA-256", "+ Y2hhbGxlbmdl\r\n",
			"J3 AUTHENTICATE SCRAM-SHA-256 Zmlyc3Q=\r\n", "nothing to say"},
		{"a mechanism that is not offered", scram("first"), "SASL-IR | PLAIN", "", "", "store does not offer SCRAM-SHA-256"},
	} {
		heard = nil
		raw := &deaf{says: test.says}
		_, err := imapStore{}.Login(wire.New(raw), capsOf(test.caps), &test.with)
		if got := raw.got.String(); got != test.want {
			t.Errorf("%s: said %q, want %q", test.what, got, test.want)
		}
		if err == nil && test.err != "" || err != nil && (test.err == "" || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: error is %v, want %q", test.what, err, test.err)
		}
		if strings.HasPrefix(test.what, "an exchange") && strings.Join(heard, " ") != "challenge v=x" {
			t.Errorf("%s: the client heard %q", test.what, heard)
		}
	}
}

func FuzzIMAPStore(f *testing.F) {
	for _, says := range []string{
		"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=SCRAM-SHA-256] ready\r\nJ3 OK [CAPABILITY X] in\r\n",
		"* OK ready\r\nJ1 OK begin\r\n* CAPABILITY AUTH=SCRAM-SHA-256\r\nJ2 OK\r\n+ \r\n+ Y2hhbGxlbmdl\r\n+ dj14\r\nJ3 OK in\r\n* CAPABILITY Y\r\nJ4 OK\r\n",
		"* OK [CAPABILITY IMAP4rev1] x\r\n+\r\n+\r\nJ3 NO [UNAVAILABLE] x\r\n",
		"* OK [CAPABILITY] x\r\n* ID {3}\r\nabc {1000000}\r\n* BYE\r\n", "* PREAUTH\r\n", "J2 OK [\r\n",
	} {
		for way := range byte(4) {
			f.Add([]byte(says), way)
		}
	}
	f.Fuzz(func(t *testing.T, says []byte, way byte) { fuzzStore(t, imapStore{}, says, way) })
}
