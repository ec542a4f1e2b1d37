package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// proxyV1 is a PROXY header that a person can read (HAProxy's proxy-protocol.txt, section 2.1).
func proxyV1(from string) string {
	if netip.MustParseAddr(from).Is6() {
		return "PROXY TCP6 " + from + " 2001:db8::1 4321 1234\r\n"
	}
	return "PROXY TCP4 " + from + " 192.0.2.1 4321 1234\r\n"
}

// proxyV2 is one that a person cannot (section 2.2). more stands behind the addresses.
func proxyV2(from, more string) string {
	family, to := byte(0x11), netip.MustParseAddr("192.0.2.1")
	source := netip.MustParseAddr(from)
	if source.Is6() {
		family, to = 0x21, netip.MustParseAddr("2001:db8::1")
	}
	body := append(append(source.AsSlice(), to.AsSlice()...), 0x10, 0xe1, 0x04, 0xd2)
	body = append(body, more...)
	return proxyV2Of(0x21, family, string(body))
}

func proxyV2Of(command, family byte, body string) string {
	fixed := []byte{command, family, byte(len(body) >> 8), byte(len(body))}
	return "\r\n\r\n\x00\r\nQUIT\n" + string(fixed) + body
}

// startBalanced is startKnowing with a load balancer, whose address it returns.
func startBalanced(t testing.TB) (jd *jackdaw, dovecots, postfixes *store, balancer string) {
	t.Helper()
	balancer = newHost()
	sink := postfix{}.start(t, "sink")
	dovecots = dovecot{relay: sink}.start(t, "store1", "alice@a.example", "carol@c.example").
		serving("imap", "pop3", "submission", "sieve", "lmtp")
	postfixes = postfix{sasl: dovecotSASL(dovecots)}.start(t, "mta")
	jd = frontend{listen: fmt.Sprintf("proxy_from = [%q]", balancer)}.start(t,
		dovecots.backend(), domainTo("a.example", dovecots), postfixes.backend(), domainTo("c.example", postfixes))
	return jd, dovecots, postfixes, balancer
}

// TestProxyHeader: what a load balancer says of the client by a PROXY header of either version goes on to every store, and
// stands in jackdaw's log.
func TestProxyHeader(t *testing.T) {
	t.Parallel()
	jd, dovecot, mta, balancer := startBalanced(t)
	const tlv = "\x02\x00\x0email.b.example\x20\x00\x05\x01\x00\x00\x00\x00\xe5\x00\x03abc" // the last is of no known type
	n := 0
	for _, header := range []func(from string) string{
		proxyV1,
		func(from string) string { return proxyV2(from, "") },
		func(from string) string { return proxyV2(from, tlv) },
	} {
		for _, prefix := range []string{"203.0.113.", "2001:db8:1::"} {
			for _, service := range append(loginServices, "lmtp") {
				n++
				from := fmt.Sprint(prefix, n)
				here := client{from: balancer, header: header(from)}.at(service, "mail.a.example")
				if service == "lmtp" {
					d := jd.knock(t, here)
					d.greeting()
					d.hello("")
					verdicts(t, d.deliver("From "+from, "", "alice@a.example"), "250 ")
					d.smtp("QUIT")
					dovecot.logged(t, "lmtp(", "Disconnect from "+from+":")
					continue
				}
				jd.enter(t, here, "alice@a.example")
				dovecot.logged(t, dovecotLogs[protocol(service)], "user=<alice@a.example>", "rip="+from+",")
				jd.logged(t, `"msg":"login"`, `"service":"`+service+`"`, `"client":"`+from+`"`, `"proxy":"`+balancer+`"`)
				if protocol(service) == "submission" {
					jd.enter(t, here, "carol@c.example").submit("From "+from, "carol@c.example", "erin@e.example")
					mta.logged(t, "client=unknown["+from+"]", "sasl_username=carol@c.example")
				}
			}
		}
	}
}

// TestProxyHeaderRefused: the balancer has to send a PROXY header that is one, and nobody else may.
func TestProxyHeaderRefused(t *testing.T) {
	t.Parallel()
	jd, dovecot, mta, balancer := startBalanced(t)
	for _, service := range append(loginServices, "lmtp") {
		for what, header := range map[string]string{
			"none":              "\r\n\r\n\r\n\r\n\r\n\r\n",
			"TLS":               "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\x00",
			"too long":          "PROXY UNKNOWN " + strings.Repeat("x", 107) + "\r\n",
			"no address":        "PROXY TCP4 203.0.113.300 192.0.2.1 1 2\r\n",
			"without CR":        "PROXY TCP4 203.0.113.9 192.0.2.1 1 2\n",
			"v2, no addresses":  proxyV2Of(0x21, 0x11, ""),
			"v2, of UDP":        proxyV2Of(0x21, 0x12, strings.Repeat("\x01", 12)),
			"v2, of no version": proxyV2Of(0x31, 0x11, strings.Repeat("\x01", 12)),
			"v2, too long":      proxyV2Of(0x21, 0x11, strings.Repeat("\x01", 60000)),
		} {
			d := jd.knock(t, client{from: balancer, service: service, header: header})
			if got := d.ended(); got != "" {
				t.Errorf("%s, header %s: hears %q", service, what, got)
			}
		}
		for _, header := range []string{proxyV1("203.0.113.67"), proxyV2("203.0.113.67", "")} {
			from := newHost()
			d := jd.knock(t, client{from: from, service: service, header: header})
			if implicit(service) {
				d.write("QUIT\r\n")
				if got := d.ended(); strings.ContainsAny(got, "*+2") {
					t.Errorf("%s, a stranger's header: hears %q", service, got)
				}
				continue
			}
			// It is a command that nobody knows, or several. What follows is the stranger's own.
			d.greeting()
			d.write("\r\n" + farewell[d.protocol] + "\r\n")
			if got := d.ended(); !strings.Contains(got, unheard[d.protocol]) {
				t.Errorf("%s, a stranger's header: hears %q", service, got)
			}
		}
		if protocol(service) != "lmtp" {
			stranger := client{from: newHost()}.at(service, "mail.a.example")
			jd.enter(t, stranger, "alice@a.example")
			dovecot.logged(t, dovecotLogs[protocol(service)], "user=<alice@a.example>", "rip="+stranger.from+",")
		}
	}
	for _, log := range []*process{dovecot.process, mta.process, jd.process} {
		if n := log.count("203.0.113.67"); n > 0 {
			t.Errorf("%d lines have the address in a stranger's header:\n%s", n, log.Log())
		}
	}
}

// farewell ends a conversation that has not come to a login, and unheard answers what is no command.
var (
	farewell = map[string]string{"imap": "z LOGOUT", "pop3": "QUIT", "submission": "QUIT", "sieve": "LOGOUT", "lmtp": "QUIT"}
	unheard  = map[string]string{"imap": " BAD ", "pop3": "-ERR ", "submission": "500 ", "sieve": "NO ", "lmtp": "500 "}
)

// TestProxyHeaderOfNobody: a balancer that looks whether jackdaw is there speaks for no client. Nobody takes it for one that
// is trusted.
func TestProxyHeaderOfNobody(t *testing.T) {
	t.Parallel()
	jd, dovecot, mta, balancer := startBalanced(t)
	for _, header := range []string{"PROXY UNKNOWN\r\n", proxyV2Of(0x20, 0, ""), proxyV2Of(0x20, 0x11, strings.Repeat("\x01", 12))} {
		for _, service := range loginServices {
			jd.enter(t, client{from: balancer, header: header}.at(service, "mail.a.example"), "alice@a.example")
			jd.logged(t, `"msg":"login"`, `"service":"`+service+`"`, `"client":"unknown"`, `"proxy":"`+balancer+`"`)
		}
		d := jd.enter(t, client{from: balancer, header: header}.at("submission", "mail.c.example"), "carol@c.example")
		if got := d.forge(); isPositive(got) {
			t.Errorf("to %q carol hears %q", forgery["submission"], got)
		}
		d.submit("From nowhere", "carol@c.example", "erin@e.example")
	}
	mta.loggedTimes(t, 3, "client=unknown[unknown]", "sasl_username=carol@c.example")
	dovecot.loggedTimes(t, 3*len(loginServices), "-login: Info: Log", "user=<alice@a.example>")
}
