package integration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// nobodys are headers that speak of no client; what addresses some of them have is no client's.
var nobodys = map[string]string{
	"UNKNOWN":                "PROXY UNKNOWN\r\n",
	"UNKNOWN with addresses": "PROXY UNKNOWN 127.0.0.1 127.0.0.1 4321 993\r\n",
	"LOCAL":                  proxyV2Of(0x20, 0, ""),
	"LOCAL with addresses":   proxyV2Of(0x20, 0x11, localhosts),
	"a socket":               proxyV2Of(0x21, 0x31, strings.Repeat("\x00", 216)),
}

// localhosts are 127.0.0.1 and 127.0.0.1, with ports.
const localhosts = "\x7f\x00\x00\x01\x7f\x00\x00\x01\x10\xe1\x03\xe1"

// TestProxyHeaderDecides: routes, plaintext_from and impersonate_from are about the client of whom the header speaks, and
// whom it does not speak for is nowhere: not even here, where the proxy itself is.
func TestProxyHeaderDecides(t *testing.T) {
	t.Parallel()
	balancer := newHost()
	store1 := startDovecot(t, "store1", passwords, "alice@a.example")
	store2 := startDovecot(t, "store2", passwords, "alice@a.example")
	mta := postfix{sasl: dovecotSASL(store1)}.start(t, "mta")
	store1.serving("imap", "pop3", "sieve", "lmtp")
	jd := frontend{
		listen: fmt.Sprintf("proxy_from = [%q]\nplaintext_from = [\"local\", \"203.0.113.16/28\", \"2001:db8:1::/48\"]", balancer),
		users:  `impersonate_from = ["local", "203.0.113.32/28"]`,
	}.start(t, store1.backend(mta.as("submission")), store2.backend(),
		"[[route]]\nservice = [\"imap\"]\nclient = [\"local\", \"203.0.113.48/28\"]\nto = \"store2\"\n",
		"[[route]]\nservice = [\"lmtp\"]\nclient = [\"local\"]\nrefuse = \"local\"\n",
		"[[route]]\nto = \"store1\"\n")

	from := func(header string) client { return client{from: balancer, header: header} }
	for _, service := range []string{"imap", "pop3", "submission", "sieve"} {
		t.Run("plaintext_from "+service, func(t *testing.T) {
			t.Parallel()
			withoutTLS := func(header string) (d *dialog, answer string) {
				d = jd.knock(t, from(header).at(service, ""))
				d.greeting()
				d.hello("")
				return d, d.plain("alice@a.example", password)
			}
			for _, address := range []string{"203.0.113.17", "2001:db8:1::7", "::ffff:203.0.113.17", "127.0.0.1"} {
				for _, header := range []string{proxyV1(address), proxyV2(address, "")} {
					d, answer := withoutTLS(header)
					d.wants(letIn, answer)
				}
			}
			for _, header := range append(slices.Collect(maps.Values(nobodys)), proxyV1("203.0.113.7"), proxyV2("2001:db8::7", "")) {
				d, answer := withoutTLS(header)
				d.wants(needsTLS, answer)
			}
		})
		t.Run("impersonate_from "+service, func(t *testing.T) {
			t.Parallel()
			master := "\x00alice@a.example*" + proxyUser + "\x00" + proxyPassword
			for _, address := range []string{"203.0.113.33", "127.0.0.1"} {
				d := jd.meet(t, from(proxyV1(address)).at(service, "mail.a.example"))
				d.wants(letIn, d.auth("PLAIN", master))
			}
			var refused waiting
			wrong := jd.meet(t, client{}.at(service, "mail.a.example")).plain("alice", "wrong")
			for what, header := range nobodys {
				refused.try(what, jd.meet(t, from(header).at(service, "mail.a.example")), "PLAIN", master)
			}
			refused.try("another", jd.meet(t, from(proxyV1("203.0.113.7")).at(service, "mail.a.example")), "PLAIN", master)
			refused.hear(wrong)
		})
	}
	t.Run("lmtp", func(t *testing.T) {
		t.Parallel()
		for _, header := range nobodys {
			d := jd.knock(t, from(header).at("lmtp", ""))
			d.greeting()
			d.hello("")
			d.use("From nobody")
		}
		jd.loggedTimes(t, len(nobodys), `"msg":"delivery"`, `"client":"unknown"`, `"proxy":"`+balancer+`"`)
	})
	t.Run("route", func(t *testing.T) {
		t.Parallel()
		here := func(header string) string {
			d := jd.meet(t, from(header).at("imap", "mail.a.example"))
			d.wants(letIn, d.plain("alice", password))
			return d.ask(`LIST "" *`)
		}
		for _, address := range []string{"203.0.113.49", "127.0.0.1"} {
			if folders := here(proxyV2(address, "")); !strings.Contains(folders, store2.folder()) {
				t.Errorf("who comes from %s has %q", address, folders)
			}
		}
		for what, header := range nobodys {
			if folders := here(header); !strings.Contains(folders, store1.folder()) {
				t.Errorf("%s: has %q", what, folders)
			}
		}
	})
}

// needsTLS is what clients hear who may log in under TLS alone.
var needsTLS = answers{
	"imap": "NO [PRIVACYREQUIRED] ", "pop3": "-ERR TLS", "submission": "530 5.7.0 ", "sieve": "NO (ENCRYPT-NEEDED) ",
}

// TestProxyHeaderInTime: half a header ends soon, although a login has a minute and a session of LMTP has half an hour.
func TestProxyHeaderInTime(t *testing.T) {
	t.Parallel()
	balancer := newHost()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example")
	jd := frontend{listen: fmt.Sprintf("proxy_from = [%q]", balancer)}.start(t,
		dovecot.serving("imap", "pop3", "submission", "sieve", "lmtp").backend())
	var all []*dialog
	for _, service := range append(loginServices, "lmtp") {
		for _, header := range []string{
			"", "P", "PROXY TCP4 203.0.113.7 192.0.2.1 4321", "PROXY TCP4 203.0.113.7 192.0.2.1 4321 993\r",
			proxyV2("203.0.113.7", "")[:5], proxyV2("203.0.113.7", "")[:20],
			proxyV2("203.0.113.7", strings.Repeat("x", 1000))[:500],
		} {
			all = append(all, jd.knock(t, client{from: balancer, header: header}.at(service, "")))
		}
	}
	for _, d := range all {
		if said := d.ended(); said != "" {
			t.Errorf("%s: somebody hears %q", d.protocol, said)
		}
	}
}
