package backends

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// peers are clients that differ in what is known of them.
var peers = map[string]Peer{
	"v4": *visitor,
	"v6": {Client: netip.MustParseAddr("fe80::1%eth0"), Port: 1, Local: netip.MustParseAddrPort("[2001:db8::2%eth0]:143"), Session: "S"},
	"mixed": {Client: netip.MustParseAddr("192.0.2.7"), Port: 1, Local: netip.MustParseAddrPort("[2001:db8::2]:143"), Session: "S",
		TLS: tls.VersionTLS12, Cipher: tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
	"unix": {Session: "S", Hello: "web.example"},
	// Of whom a proxy in front of us tells nothing: what is there is the proxy's.
	"unproven": {Client: netip.MustParseAddr("127.0.0.1"), Port: 1, Local: netip.MustParseAddrPort("127.0.0.1:143"), Session: "S",
		Unproven: true, SNI: "mail.example.org", TLS: tls.VersionTLS13},
}

func writePairs(pairs []pair) string {
	var text []string
	for _, p := range pairs {
		text = append(text, p.name+"="+p.value)
	}
	return strings.Join(text, " ")
}

func TestIDParameters(t *testing.T) {
	for name, want := range map[string]string{
		"v4": "x-originating-ip=192.0.2.7 x-originating-port=50000 x-connected-ip=198.51.100.1 x-connected-port=995 " +
			"x-session-id=ABC x-proxy-ttl=4 x-client-transport=TLS x-connected-name=mail.example.org",
		"v6": "x-originating-ip=fe80::1 x-originating-port=1 x-connected-ip=2001:db8::2 x-connected-port=143 " +
			"x-session-id=S x-proxy-ttl=4 x-client-transport=insecure",
		"mixed": "x-originating-ip=192.0.2.7 x-originating-port=1 x-connected-ip=2001:db8::2 x-connected-port=143 " +
			"x-session-id=S x-proxy-ttl=4 x-client-transport=TLS",
		"unix":     "x-session-id=S x-proxy-ttl=4 x-client-transport=insecure",
		"unproven": "x-session-id=S x-proxy-ttl=4 x-client-transport=TLS x-connected-name=mail.example.org",
	} {
		if got := writePairs(idParameters(peers[name])); got != want {
			t.Errorf("%s:\n%s, want\n%s", name, got, want)
		}
	}
}

func TestXCLIENTLine(t *testing.T) {
	for name, want := range map[string]string{
		"v4": "XCLIENT ADDR=192.0.2.7 PORT=50000 DESTADDR=198.51.100.1 DESTPORT=995 SESSION=ABC TTL=4 CLIENT-TRANSPORT=TLS " +
			"DESTNAME=mail.example.org",
		"v6":       "XCLIENT ADDR=fe80::1 PORT=1 DESTADDR=2001:db8::2 DESTPORT=143 SESSION=S TTL=4 CLIENT-TRANSPORT=insecure",
		"unix":     "XCLIENT SESSION=S TTL=4 CLIENT-TRANSPORT=insecure",
		"unproven": "XCLIENT SESSION=S TTL=4 CLIENT-TRANSPORT=TLS DESTNAME=mail.example.org",
	} {
		peer := peers[name]
		if got := xclientLine(&peer); got != want {
			t.Errorf("%s:\n%s, want\n%s", name, got, want)
		}
	}
	if got := xclientLine(nil); got != "" {
		t.Errorf("without a client: %q", got)
	}
}

// What the two programs list that take XCLIENT.
const (
	postfix = "NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT"
	dovecot = "ADDR PORT PROTO HELO LOGIN SESSION TTL TIMEOUT DESTADDR DESTPORT DESTNAME CLIENT-TRANSPORT FORWARD"
)

func TestXCLIENTOverSMTP(t *testing.T) {
	helo := func(name string) Peer {
		peer := *visitor
		peer.Hello = name
		return peer
	}
	for _, test := range []struct {
		what   string
		peer   Peer
		o      Opening
		listed string
		want   string
	}{
		{what: "Postfix", peer: *visitor, listed: postfix, want: "NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] " +
			"ADDR=192.0.2.7 PORT=50000 PROTO=ESMTP HELO=proxy.example.net DESTADDR=198.51.100.1 DESTPORT=995"},
		{what: "Dovecot", peer: *visitor, listed: dovecot, want: "ADDR=192.0.2.7 PORT=50000 PROTO=ESMTP HELO=proxy.example.net " +
			"DESTADDR=198.51.100.1 DESTPORT=995 SESSION=ABC TTL=4 CLIENT-TRANSPORT=TLS DESTNAME=mail.example.org"},
		{what: "small letters", peer: *visitor, listed: "addr", want: "ADDR=192.0.2.7"},
		{what: "IPv6", peer: peers["v6"], listed: postfix, want: "NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] " +
			"ADDR=IPv6:fe80::1 PORT=1 PROTO=ESMTP HELO=proxy.example.net DESTADDR=IPv6:2001:db8::2 DESTPORT=143"},
		{what: "from a socket", peer: peers["unix"], listed: postfix, want: "NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] " +
			"ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] PROTO=ESMTP HELO=web.example"},
		{what: "of nobody knows whom", peer: peers["unproven"], listed: postfix, want: "NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] " +
			"ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] PROTO=ESMTP HELO=proxy.example.net"},
		{what: "client_info = none", peer: *visitor, o: Opening{Info: configs.ClientInfoNone}, listed: postfix + " " + dovecot,
			want: "NAME=[UNAVAILABLE] REVERSE_NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] PROTO=ESMTP HELO=proxy.example.net"},
		{what: "a name", peer: helo("client.example"), listed: "HELO", want: "HELO=client.example"},
		{what: "no name", peer: helo(`a+b=c"d`), listed: "HELO", want: "HELO=proxy.example.net"},
		{what: "a login", peer: *visitor, o: Opening{User: "jo doe+x=y*z@bücher.example"}, listed: "LOGIN",
			want: "LOGIN=jo+20doe+2Bx+3Dy*z@b+C3+BCcher.example"},
		{what: "nothing that we know", peer: *visitor, listed: "FORWARD", want: ""},
		{what: "no list", peer: *visitor, want: ""},
	} {
		o := test.o
		o.Client, o.Hello = &test.peer, "proxy.example.net"
		got := strings.TrimPrefix(strings.TrimPrefix(xclientCommand(xclientSMTP(o, "ESMTP", test.listed), wire.XText), "XCLIENT"), " ")
		if got != test.want {
			t.Errorf("%s:\n%s, want\n%s", test.what, got, test.want)
		}
	}
}

func TestIsHostName(t *testing.T) {
	for name, want := range map[string]bool{
		"client.example": true, "localhost": true, "CLIENT.Example": true, "xn--bcher-kva.example": true, "[192.0.2.1]": true, "[IPv6:2001:db8::1]": true,
		"": false, "a_b": false, "a b": false, "-a": false, "a..b": false, ".": false, "bücher.example": false, "a\r\nQUIT": false,
		"[]": false, "[192.0.2.1": false, "192.0.2.1]": false, "[2001:db8::1]": false, "[IPv6:192.0.2.1]": false, "[IPv6:fe80::1%eth0]": false,
		"[IPv6:]": false, "[x]": false, "[192.0.2.1]x": false, strings.Repeat("a.", 130) + "b": false,
	} {
		if got := isHostName(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

func TestIMAPIntroduce(t *testing.T) {
	const greeting = "B: * OK [CAPABILITY IMAP4rev1 ID AUTH=PLAIN] ready\n"
	const sent = `P: J5 ID ("x-originating-ip" "192.0.2.7" "x-originating-port" "50000" "x-connected-ip" "198.51.100.1" "x-connected-port" "995" ` +
		`"x-session-id" "ABC" "x-proxy-ttl" "4" "x-client-transport" "TLS" "x-connected-name" "mail.example.org")` + "\n"
	const login = "P: J3 AUTHENTICATE PLAIN\n"
	const in = login + "B: +\nP: " + plain + "\nB: J3 OK [CAPABILITY X] in"
	auto := func(d dialogue) dialogue {
		d.got, d.peer, d.info = "X", visitor, configs.ClientInfoAuto
		if d.err != "" {
			d.got = ""
		}
		return d
	}
	playDialogues(t, imapStore{}, []dialogue{
		auto(dialogue{what: "where the store knows ID", talk: greeting + sent + login + `
			B: * ID ("name" "Dovecot")
			B: J5 OK ID completed
			B: +
			P: ` + plain + `
			B: J3 OK [CAPABILITY X] in`}),
		auto(dialogue{what: "behind STARTTLS", tls: true, talk: greeting + `
			P: J1 STARTTLS
			B: J1 OK
			B* starttls
			P: J2 CAPABILITY
			B: * CAPABILITY IMAP4rev1 ID AUTH=PLAIN
			B: J2 OK
			` + sent + `
			B: J5 OK
			` + in}),
		auto(dialogue{what: "before the login", talk: greeting + sent + "B: J5 OK\n" + in}),
		auto(dialogue{what: "refused", err: `ID: refused with "Invalid"`, talk: greeting + sent + login + `B: J5 BAD Invalid`}),
		auto(dialogue{what: "refused as a password", err: `ID: refused`, talk: greeting + sent + login + `B: J5 NO [AUTHENTICATIONFAILED] x`}),
		auto(dialogue{what: "where the store does not know it", talk: "B: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\n" + in}),
		{what: "where the operator knows better", got: "X", peer: visitor, info: configs.ClientInfoID, talk: `
			B: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready
			` + sent + `
			B: J5 OK
			` + in},
		{what: "where the operator wants none", got: "X", peer: visitor, info: configs.ClientInfoNone, talk: greeting + in},
		{what: "where a PROXY header came before", got: "X", peer: visitor, info: configs.ClientInfoProxy, talk: greeting + in},
		{what: "nobody to tell of", got: "X", info: configs.ClientInfoID, talk: greeting + in},
	})
}

func TestSieveIntroduce(t *testing.T) {
	const greeting = "B: \"SASL\" \"PLAIN\"\nB: \"XCLIENT\"\nB: OK\n"
	sent := "P: " + xclientLine(visitor) + "\n"
	playDialogues(t, sieveStore{}, []dialogue{
		{what: "where the store takes it", open: true, peer: visitor, info: configs.ClientInfoAuto, talk: greeting + sent + `B: OK "Updated"`},
		{what: "behind STARTTLS", tls: true, open: true, peer: visitor, info: configs.ClientInfoAuto, talk: greeting + `
			P: STARTTLS
			B: OK
			B* starttls
			` + greeting + sent + `
			B: OK`},
		{what: "no more behind STARTTLS", tls: true, open: true, peer: visitor, info: configs.ClientInfoAuto, talk: greeting + `
			P: STARTTLS
			B: OK
			B* starttls
			B: "SASL" "PLAIN"
			B: OK`},
		{what: "refused", open: true, err: `XCLIENT: refused with "You are not from trusted IP"`, peer: visitor, info: configs.ClientInfoAuto,
			talk: greeting + sent + `B: NO "You are not from trusted IP"`},
		{what: "where the store does not take it", open: true, caps: "| PLAIN", peer: visitor, info: configs.ClientInfoAuto, talk: "B: \"SASL\" \"PLAIN\"\nB: OK"},
		{what: "where the operator knows better", open: true, caps: "| PLAIN", peer: visitor, info: configs.ClientInfoXCLIENT,
			talk: "B: \"SASL\" \"PLAIN\"\nB: OK\n" + sent + "B: OK"},
		{what: "where the operator wants none", open: true, peer: visitor, info: configs.ClientInfoNone, talk: greeting},
		{what: "where a PROXY header came before", open: true, peer: visitor, info: configs.ClientInfoProxy, talk: greeting},
		{what: "nobody to tell of", open: true, info: configs.ClientInfoXCLIENT, talk: greeting},
	})
}

func TestSMTPIntroduce(t *testing.T) {
	greeting := func(keyword string) string {
		return "B: 220 store1\nP: EHLO proxy.example.net\nB: 250-store1\nB: 250-" + keyword + "\nB: 250 AUTH PLAIN\n"
	}
	const again = "B: 220 store1\nP: EHLO proxy.example.net\nB: 250-store1\nB: 250-SIZE 1\nB: 250 AUTH PLAIN LOGIN\n"
	const addr = "P: XCLIENT ADDR=192.0.2.7\n"
	const caps = "SIZE=1 | PLAIN LOGIN"
	playDialogues(t, smtpStore{}, []dialogue{
		{what: "where the store takes it", open: true, caps: caps, peer: visitor, info: configs.ClientInfoAuto, talk: greeting("XCLIENT ADDR") + addr + again},
		{what: "whatever came in a PROXY header", open: true, caps: caps, peer: visitor, info: configs.ClientInfoProxy, talk: greeting("XCLIENT ADDR") + addr + again},
		{what: "and if the address is to be kept back", open: true, caps: caps, peer: visitor, info: configs.ClientInfoNone,
			talk: greeting("XCLIENT ADDR") + "P: XCLIENT ADDR=[UNAVAILABLE]\n" + again},
		{what: "refused", open: true, err: `XCLIENT: refused with [501] "5.5.4 Bad ADDR syntax"`, peer: visitor, info: configs.ClientInfoAuto,
			talk: greeting("XCLIENT ADDR") + addr + "B: 501 5.5.4 Bad ADDR syntax"},
		{what: "refused as a password", open: true, err: `XCLIENT: refused with [535]`, peer: visitor, info: configs.ClientInfoAuto,
			talk: greeting("XCLIENT ADDR") + addr + "B: 535 no"},
		{what: "where the store does not take it", open: true, caps: "SIZE=2 | PLAIN", peer: visitor, info: configs.ClientInfoAuto, talk: greeting("SIZE 2")},
		{what: "where it does not take what we know", open: true, caps: "| PLAIN", peer: visitor, info: configs.ClientInfoAuto, talk: greeting("XCLIENT FORWARD")},
		{what: "where the operator relies on it", open: true, err: "store does not take XCLIENT from us", peer: visitor, info: configs.ClientInfoXCLIENT,
			talk: greeting("SIZE 2")},
		{what: "nobody to tell of", open: true, caps: "| PLAIN", info: configs.ClientInfoXCLIENT, talk: greeting("XCLIENT ADDR")},

		{what: "a client whom Postfix would take it from, too", open: true, caps: caps, peer: visitor, info: configs.ClientInfoAuto, user: "alice",
			talk: greeting("XCLIENT NAME ADDR LOGIN") + "P: XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.7 LOGIN=alice\n" + greeting("XCLIENT NAME ADDR LOGIN") +
				"P: XCLIENT NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] LOGIN=alice\n" + again},
		{what: "everybody", open: true, err: "store takes XCLIENT from everybody", peer: visitor, info: configs.ClientInfoNone,
			talk: greeting("XCLIENT NAME ADDR") + "P: XCLIENT NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE]\n" + greeting("XCLIENT NAME ADDR")},
		{what: "Dovecot, which goes on to take it up to the login", open: true, caps: "| PLAIN", peer: visitor, info: configs.ClientInfoAuto,
			talk: greeting("XCLIENT ADDR TTL") + "P: XCLIENT ADDR=192.0.2.7 TTL=4\n" + greeting("XCLIENT ADDR TTL")},
		{what: "a login without a password", caps: caps, peer: visitor, info: configs.ClientInfoAuto, user: "alice@a.example",
			talk: greeting("XCLIENT ADDR LOGIN") + "P: XCLIENT ADDR=192.0.2.7 LOGIN=alice@a.example\n" + again},
		{what: "a login that the store does not take from us", err: "store does not take XCLIENT LOGIN from us", peer: visitor,
			info: configs.ClientInfoAuto, user: "alice@a.example", talk: greeting("XCLIENT ADDR")},
		{what: "a login and no XCLIENT", err: "store does not take XCLIENT LOGIN from us", peer: visitor,
			info: configs.ClientInfoAuto, user: "alice@a.example", talk: greeting("SIZE 2")},
		{what: "a login that is refused", err: `XCLIENT: refused with [501] "5.5.4 attribute value too long"`, peer: visitor,
			info: configs.ClientInfoAuto, user: "alice", talk: greeting("XCLIENT LOGIN") + "P: XCLIENT LOGIN=alice\nB: 501 5.5.4 attribute value too long"},
	})
	playDialogues(t, smtpStore{lmtp: true}, []dialogue{
		{what: "LMTP", open: true, caps: "SIZE=1 |", peer: visitor, info: configs.ClientInfoAuto, talk: `
			B: 220 store1
			P: LHLO proxy.example.net
			B: 250-store1
			B: 250 XCLIENT PROTO
			P: XCLIENT PROTO=LMTP
			B: 220 store1
			P: LHLO proxy.example.net
			B: 250-store1
			B: 250 SIZE 1`},
	})
}
