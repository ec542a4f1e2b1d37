package backends

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

func TestPOP3Open(t *testing.T) {
	playDialogues(t, pop3Store{}, []dialogue{
		{what: "capabilities", open: true, caps: "TOP;EXPIRE=NEVER;USER;IMPLEMENTATION=Cyrus POP3 v3 | PLAIN LOGIN", talk: `
			B: +OK store1 server ready <1896.697170952@store1>
			P: CAPA
			B: +OK List of capabilities follows
			B: TOP
			B: EXPIRE NEVER
			B: SASL PLAIN LOGIN
			B: USER
			B: IMPLEMENTATION Cyrus POP3 v3
			B: .`},
		{what: "no mechanisms without TLS", open: true, caps: "UIDL |", talk: `
			B: +OK
			P: CAPA
			B: +OK
			B: UIDL
			B: SASL
			B: .`},
		{what: "nothing at all", open: true, caps: "|", talk: `
			B: +OK
			P: CAPA
			B: +OK
			B: .`},
		{what: "small letters", open: true, caps: "UIDL | PLAIN", talk: `
			B: +ok
			P: CAPA
			B: +ok
			B: uidl
			B: sasl plain
			B: .`},
		{what: "lines end with LF", open: true, caps: "UIDL |", talk: `
			B> +OK\n
			P: CAPA
			B> +OK\nUIDL\n.\n`},
		{what: "an empty line in the list", open: true, caps: "UIDL |", talk: `
			B: +OK
			P: CAPA
			B: +OK
			B:
			B: UIDL
			B: .`},
		{what: "a line of the list that begins with the end of one", open: true, caps: ".;..;+OK;-ERR=no |", talk: `
			B: +OK
			P: CAPA
			B: +OK
			B> . \r\n..\r\n+OK\r\n-ERR no\r\n.\r\n`},
		{what: "a store without CAPA", open: true, caps: "USER |", talk: `
			B: +OK
			P: CAPA
			B: -ERR unknown command`},
		{what: "a store that cannot say", open: true, err: `CAPA: refused with [SYS/TEMP] "later"`, talk: `
			B: +OK
			P: CAPA
			B: -ERR [SYS/TEMP] later`},
		{what: "a refusal of CAPA is not about a password", open: true, err: `CAPA: refused with [AUTH] "first"`, talk: `
			B: +OK
			P: CAPA
			B: -ERR [AUTH] first`},

		{what: "a refusal", open: true, err: `reading the greeting: refused with "too many connections"`, talk: `
			B: -ERR too many connections`},
		{what: "a refusal with a code", open: true, err: `refused with [SYS/TEMP] "later"`, talk: `B: -ERR [SYS/TEMP] later`},
		{what: "another protocol", open: true, err: `store answers "*"`, talk: `B: * OK ready`},
		{what: "SMTP", open: true, err: `store answers "220"`, talk: `B: 220 ready`},
		{what: "a question", open: true, err: `store answers "+"`, talk: `B: + `},
		{what: "an empty line", open: true, err: `store answers ""`, talk: `B:`},
		{what: "a blank before", open: true, err: `store answers ""`, talk: `B>  +OK ready\r\n`},
		{what: "no greeting", open: true, err: "reading the greeting: EOF", talk: `B* close`},
		{what: "half a greeting", open: true, err: "reading the greeting: unexpected EOF", talk: `
			B> +OK
			B* close`},
		{what: "NUL", open: true, err: "NUL or bare CR", talk: `B> +OK\x00\r\n`},
		{what: "a bare CR", open: true, err: "NUL or bare CR", talk: `B> +OK\r+OK\r\n`},
		{what: "a greeting too long", open: true, err: "reading the greeting: line too long", talk: `
			B> +OK ` + strings.Repeat("x", wire.MaxCommand) + `
			B> \r\n`},
		{what: "the end in the list", open: true, err: "CAPA: EOF", talk: `
			B: +OK
			P: CAPA
			B: +OK
			B* close`},
		{what: "NUL in the list", open: true, err: "CAPA: NUL or bare CR", talk: `
			B: +OK
			P: CAPA
			B> +OK\r\nUI\x00DL\r\n`},
		{what: "as long a list as can be", open: true, talk: `
			B: +OK
			P: CAPA
			B: +OK
			` + noise(maxNoise-1, "X-MORE") + `
			B: .`},
		{what: "a list that is too long", open: true, err: "store talks without answering", talk: `
			B: +OK
			P: CAPA
			B: +OK
			` + noise(maxNoise, "X-MORE")},
		{what: "a flood", open: true, err: "store talks without answering", talk: `
			B: +OK
			P: CAPA
			B: +OK
			B* flood X-MORE`},
	})
}

func TestPOP3StartTLS(t *testing.T) {
	playDialogues(t, pop3Store{}, []dialogue{
		{what: "capabilities are asked for behind it", tls: true, open: true, caps: "UIDL | PLAIN", talk: `
			B: +OK ready
			P: STLS
			B: +OK begin
			B* starttls
			P: CAPA
			B: +OK
			B: UIDL
			B: SASL PLAIN
			B: .`},
		{what: "a refusal", tls: true, open: true, err: `STLS: refused with "no certificate"`, talk: `
			B: +OK
			P: STLS
			B: -ERR no certificate`},
		{what: "a refusal is not about a password", tls: true, open: true, err: `STLS: refused with [AUTH] "what"`, talk: `
			B: +OK
			P: STLS
			B: -ERR [AUTH] what`},
		{what: "a question", tls: true, open: true, err: `STLS: store answers "+"`, talk: `
			B: +OK
			P: STLS
			B: +`},
		// What comes behind the answer in the clear could be taken for what is said under TLS (NO STARTTLS, CVE-2021-38371).
		{what: "an answer behind the answer", tls: true, open: true, err: "plaintext bytes behind STARTTLS", after: "+OK\r\nUIDL\r\n.\r\n", talk: `
			B: +OK
			P: STLS
			B> +OK begin\r\n+OK\r\nUIDL\r\n.\r\n`},
		{what: "half a line behind the answer", tls: true, open: true, err: "plaintext bytes behind STARTTLS", after: "+", talk: `
			B: +OK
			P: STLS
			B> +OK begin\r\n+`},
		{what: "an answer ahead", tls: true, open: true, err: "plaintext bytes behind STARTTLS", after: "+OK\r\n.\r\n", talk: `
			B> +OK\r\n+OK begin\r\n+OK\r\n.\r\n
			P: STLS`},
		{what: "an end instead of TLS", tls: true, open: true, err: "STLS: EOF", talk: `
			B: +OK
			P: STLS
			B* close`},
	})
}

// visitor is a client that a store is to be told of.
var visitor = &Peer{
	Client: netip.MustParseAddr("192.0.2.7"), Port: 50000, Local: netip.MustParseAddrPort("198.51.100.1:995"), Session: "ABC",
	SNI: "mail.example.org", TLS: tls.VersionTLS13,
}

// What Dovecot answers to XCLIENT was seen of version 2.3.
func TestPOP3XCLIENT(t *testing.T) {
	const capa = "P: CAPA\nB: +OK\nB: UIDL\nB: .\n"
	const sent = "P: XCLIENT ADDR=192.0.2.7 PORT=50000 DESTADDR=198.51.100.1 DESTPORT=995 SESSION=ABC TTL=4 CLIENT-TRANSPORT=TLS DESTNAME=mail.example.org\n"
	const dovecot = "B: +OK [XCLIENT] Dovecot ready.\n"
	playDialogues(t, pop3Store{}, []dialogue{
		{what: "where the store takes it", open: true, caps: "UIDL |", peer: visitor, info: configs.ClientInfoAuto, talk: dovecot + sent + `
			B: +OK Updated
			` + capa},
		{what: "a code in small letters", open: true, caps: "UIDL |", peer: visitor, info: configs.ClientInfoAuto,
			talk: "B: +OK [xclient] ready\n" + sent + "B: +OK Updated\n" + capa},
		{what: "behind STLS", tls: true, open: true, caps: "UIDL |", peer: visitor, info: configs.ClientInfoAuto, talk: dovecot + `
			P: STLS
			B: +OK
			B* starttls
			` + sent + `
			B: +OK Updated
			` + capa},
		{what: "from whom the store does not trust", open: true, caps: "UIDL |", peer: visitor, info: configs.ClientInfoAuto, talk: dovecot + sent + `
			B: +OK You are not from trusted IP - ignoring
			` + capa},
		// Some of the parameters are in force by then.
		{what: "refused", open: true, err: `XCLIENT: refused with "Invalid parameters"`, peer: visitor, info: configs.ClientInfoAuto,
			talk: dovecot + sent + `B: -ERR Invalid parameters`},
		{what: "where the store does not say so", open: true, caps: "UIDL |", peer: visitor, info: configs.ClientInfoAuto,
			talk: "B: +OK XCLIENT ready\n" + capa},
		{what: "where the operator knows better", open: true, caps: "UIDL |", peer: visitor, info: configs.ClientInfoXCLIENT,
			talk: "B: +OK\n" + sent + "B: +OK\n" + capa},
		{what: "where the operator wants none", open: true, caps: "UIDL |", peer: visitor, info: configs.ClientInfoNone, talk: dovecot + capa},
		{what: "where a PROXY header came before", open: true, caps: "UIDL |", peer: visitor, info: configs.ClientInfoProxy, talk: dovecot + capa},
		{what: "nobody to tell of", open: true, caps: "UIDL |", info: configs.ClientInfoXCLIENT, talk: dovecot + capa},
		{what: "a client without an address", open: true, caps: "UIDL |", peer: &Peer{Session: "ABC"}, info: configs.ClientInfoXCLIENT,
			talk: dovecot + "P: XCLIENT SESSION=ABC TTL=4 CLIENT-TRANSPORT=insecure\nB: +OK\n" + capa},
	})
}

func TestPOP3Login(t *testing.T) {
	const greeting = "B: +OK\nP: CAPA\nB: +OK\nB: SASL PLAIN SCRAM-SHA-256 XOAUTH2 NTLM\nB: .\n"
	const initial = greeting + "P: AUTH PLAIN " + plain + "\n"
	const old = "B: +OK\nP: CAPA\nB: -ERR what\nP: USER alice\n"
	scram := mechanism{name: "SCRAM-SHA-256", first: []byte("first"), next: []string{"final", ""}}
	late := scram
	late.first = nil
	short := scram
	short.next = nil
	empty := scram
	empty.first = []byte{}
	other := scram
	other.name = "OAUTHBEARER"
	// "AUTH XOAUTH2 " and base64 have 253 octets, which is what a command may have; "AUTH NTLM " and base64 have 254.
	fits := mechanism{name: "XOAUTH2", first: []byte(strings.Repeat("x", 180))}
	long := mechanism{name: "NTLM", first: []byte(strings.Repeat("x", 183)), next: []string{""}}
	playDialogues(t, pop3Store{}, []dialogue{
		{what: "with an initial response", talk: initial + `B: +OK Logged in.`},
		{what: "without a text", talk: initial + `B: +OK`},
		{what: "what comes behind the login is the client's", after: "+OK 2 320\r\n", talk: initial + `B> +OK\r\n+OK 2 320\r\n`},

		{what: "an initial response that fits", with: fits, talk: greeting + `
			P: AUTH XOAUTH2 ` + strings.Repeat("eHh4", 60) + `
			B: +OK`},
		{what: "one that does not", with: long, talk: greeting + `
			P: AUTH NTLM
			B: +
			P: ` + strings.Repeat("eHh4", 61) + `
			B: +OK`},
		{what: "one that does not, and a challenge", with: long, deny: true, err: "refused with", talk: greeting + `
			P: AUTH NTLM
			B> + \r\n
			P: ` + strings.Repeat("eHh4", 61) + `
			B: + eyJzdGF0dXMiOiI0MDEifQ==
			P:
			B: -ERR [AUTH] expired`},
		{what: "one that does not, and a refusal", with: long, deny: true, err: "refused with", talk: greeting + `
			P: AUTH NTLM
			B: -ERR`},
		{what: "an empty one", with: empty, deny: true, err: "refused with", talk: greeting + `
			P: AUTH SCRAM-SHA-256 =
			B: -ERR`},

		{what: "an exchange", with: scram, talk: greeting + `
			P: AUTH SCRAM-SHA-256 Zmlyc3Q=
			B: + Y2hhbGxlbmdl
			P: ZmluYWw=
			B: + dj14
			P:
			B: +OK`},
		{what: "an exchange that the store begins", with: late, talk: greeting + `
			P: AUTH SCRAM-SHA-256
			B: + 
			P: ZmluYWw=
			B: + dj14
			P:
			B: +OK`},
		{what: "a client that breaks off", with: short, err: "nothing to say", talk: greeting + `
			P: AUTH SCRAM-SHA-256 Zmlyc3Q=
			B: + Y2hhbGxlbmdl`},
		{what: "a challenge that is no base64", with: scram, err: "challenge of the store: malformed base64", talk: greeting + `
			P: AUTH SCRAM-SHA-256 Zmlyc3Q=
			B: + what?`},
		{what: "a challenge with white space in it", with: scram, err: "challenge of the store: malformed base64", talk: greeting + `
			P: AUTH SCRAM-SHA-256 Zmlyc3Q=
			B: + Y2hh bGxl`},
		{what: "a mechanism that is not offered", with: other, err: "store does not offer OAUTHBEARER", talk: greeting},
		{what: "a challenge to PLAIN", err: "challenge to PLAIN", talk: initial + `B: +`},
		{what: "a flood of challenges", err: "challenge to PLAIN", talk: initial + `B* flood + `},

		{what: "the old commands", talk: old + `
			B: +OK
			P: PASS secret
			B: +OK`},
		{what: "the old commands of a store with CAPA", talk: `
			B: +OK
			P: CAPA
			B: +OK
			B: USER
			B: SASL CRAM-MD5
			B: .
			P: USER alice
			B: +OK
			P: PASS secret
			B: +OK`},
		{what: "the old commands, refused", err: "refused with", deny: true, talk: old + `
			B: +OK
			P: PASS secret
			B: -ERR invalid password`},
		{what: "the old commands, refused before the password", err: "refused with", deny: true, talk: old + `
			B: -ERR never heard of`},
		{what: "the old commands, and a mailbox in use", err: "refused with [IN-USE]", talk: old + `
			B: +OK
			P: PASS secret
			B: -ERR [IN-USE] locked`},
		{what: "the old commands, and a question", err: `store answers "+"`, talk: old + `B: +`},
		{what: "what comes behind PASS is the client's", after: "+OK 0 0\r\n", talk: old + `
			B: +OK
			P: PASS secret
			B> +OK\r\n+OK 0 0\r\n`},
		{what: "no way to log in", err: "store takes neither AUTH PLAIN nor USER", talk: `
			B: +OK
			P: CAPA
			B: +OK
			B: SASL
			B: .`},

		{what: "a refusal", err: `refused with "Authentication failed."`, deny: true, talk: initial + `B: -ERR Authentication failed.`},
		{what: "a refusal without [AUTH] of a store that has it", err: `refused with "Too many open connections"`,
			talk: strings.Replace(initial, "B: SASL PLAIN", "B: AUTH-RESP-CODE\nB: SASL PLAIN", 1) + `B: -ERR Too many open connections`},
		{what: "a refusal without a text", err: `refused with ""`, deny: true, talk: initial + `B: -ERR`},
		{what: "AUTH", err: `refused with [AUTH] "Authentication failed."`, deny: true, talk: initial + `B: -ERR [AUTH] Authentication failed.`},
		{what: "a code in small letters", err: "refused with [SYS/TEMP]", talk: initial + `B: -err [sys/temp] later`},
		{what: "a code that does not end", err: `refused with "[AUTH no"`, deny: true, talk: initial + `B: -ERR [AUTH no`},
		{what: "a code that is not at the beginning", err: `refused with "no [SYS/TEMP]"`, deny: true, talk: initial + `B: -ERR no [SYS/TEMP]`},
		{what: "SYS/TEMP", err: "refused with [SYS/TEMP]", talk: initial + `B: -ERR [SYS/TEMP] later`},
		{what: "SYS/PERM", err: "refused with [SYS/PERM]", talk: initial + `B: -ERR [SYS/PERM] call somebody`},
		{what: "another SYS", err: "refused with [SYS]", talk: initial + `B: -ERR [SYS] what`},
		{what: "IN-USE", err: "refused with [IN-USE]", talk: initial + `B: -ERR [IN-USE] locked`},
		{what: "LOGIN-DELAY", err: "refused with [LOGIN-DELAY]", talk: initial + `B: -ERR [LOGIN-DELAY] wait`},
		{what: "a code that nobody knows", err: "refused with [X-ODD]", talk: initial + `B: -ERR [X-ODD] what`},
		{what: "neither", err: `store answers "WHAT"`, talk: initial + `B: WHAT`},
		{what: "an answer in one word", err: `store answers "+OKAY"`, talk: initial + `B: +OKAY`},
		{what: "NUL", err: "NUL or bare CR", talk: initial + `B> +OK\x00\r\n`},
		{what: "the end", err: "EOF", talk: initial + `B* close`},
	})
}

// The old commands carry names and passwords as they are, so not all of them; a name for whom somebody else acts they do not
// carry at all.
func TestPOP3LoginCommands(t *testing.T) {
	for _, test := range []struct {
		user, password string
		carries        bool
	}{
		{"alice", "secret", true}, {"alice@example.org", " a b  ", true}, {"müller", "geheim€ {5}", true}, {"+OK", ".", true},
		{"alice", "x\r\nDELE 1", false}, {"alice", "x\nDELE 1", false}, {"alice", "x\rDELE 1", false}, {"alice", "x\x00", false},
		{"al\r\nice", "x", false}, {"al\nice", "x", false}, {"al\x00ice", "x", false}, {"al ice", "x", false},
	} {
		raw := &deaf{says: "+OK\r\n+OK\r\n"}
		_, err := pop3Store{}.Login(wire.New(raw), capsOf("USER |"), &Plain{User: test.user, Password: test.password})
		want := ""
		if test.carries {
			want = "USER " + test.user + "\r\nPASS " + test.password + "\r\n"
		}
		if got := raw.got.String(); got != want || (err == nil) != test.carries {
			t.Errorf("said %q, %v; want %q", got, err, want)
		}
		if errors.Is(err, ErrName) != (!test.carries && test.user != "alice") {
			t.Errorf("%q: error is %v", test.user, err)
		}
	}
	raw := &deaf{says: "+OK\r\n+OK\r\n"}
	_, err := pop3Store{}.Login(wire.New(raw), capsOf("USER |"), &Plain{Authzid: "bob", User: "alice", Password: "secret"})
	if got := raw.got.String(); got != "" || err == nil {
		t.Errorf("said %q, %v", got, err)
	}
}

// A store cannot ask for ever, even of a client that always has an answer.
func TestPOP3Questions(t *testing.T) {
	m := &mechanism{name: "X", first: []byte{}, next: make([]string, 2*maxNoise)}
	_, err := pop3Store{}.Login(wire.New(&deaf{says: strings.Repeat("+ \r\n", 2*maxNoise)}), capsOf("| X"), m)
	if !errors.Is(err, errNoise) {
		t.Errorf("%d answers are left, and the error is %v", len(m.next), err)
	}
}

func TestPOP3Leave(t *testing.T) {
	raw := &deaf{says: "+OK bye\r\n"}
	pop3Store{}.Leave(wire.New(raw))
	if got := raw.got.String(); got != "QUIT\r\n" {
		t.Errorf("said %q", got)
	}
}

func FuzzPOP3Store(f *testing.F) {
	for _, says := range []string{
		"+OK [XCLIENT] ready\r\n+OK\r\nSASL PLAIN SCRAM-SHA-256\r\n.\r\n+OK in\r\n",
		"+OK\r\n+OK begin\r\n+OK\r\nSASL SCRAM-SHA-256\r\n.\r\n+ \r\n+ Y2hhbGxlbmdl\r\n+ dj14\r\n+OK in\r\n+OK 2 320\r\n",
		"+OK x\r\n-ERR\r\n+OK\r\n-ERR [IN-USE] x\r\n",
		"+OK\r\n+OK\r\n..\r\n.\r\n", "-ERR [\r\n", "+OK\r\n-ERR []\r\n",
	} {
		for way := range byte(4) {
			f.Add([]byte(says), way)
		}
	}
	f.Fuzz(func(t *testing.T, says []byte, way byte) { fuzzStore(t, pop3Store{}, says, way) })
}
