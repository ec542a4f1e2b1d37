package integration

import (
	"encoding/json"
	"strings"
	"testing"
)

// dovecotLogs is who writes of a login in Dovecot's log, by protocol.
var dovecotLogs = map[string]string{
	"imap": "imap-login: Info: Log", "pop3": "pop3-login: Info: Log",
	"submission": "submission-login: Info: Log", "sieve": "managesieve-login: Info: Log",
}

// startKnowing runs a jackdaw whose stores know the client: a Dovecot with all services for alice@a.example, as she comes, and
// for bob@b.example by PROXY headers, and in the same two ways a Postfix for carol@c.example and dave@d.example.
func startKnowing(t testing.TB) (jd *jackdaw, dovecots, postfixes *store) {
	t.Helper()
	sink := postfix{}.start(t, "sink")
	dovecots = dovecot{relay: sink}.start(t, "store1", "alice@a.example", "bob@b.example", "carol@c.example", "dave@d.example").
		serving("imap", "pop3", "submission", "sieve", "lmtp")
	postfixes = postfix{sasl: dovecotSASL(dovecots)}.start(t, "mta")
	byHeader := []*store{dovecots.proxying(), postfixes.proxying()}
	jd = frontend{v6: true}.start(t,
		dovecots.backend(), domainTo("a.example", dovecots),
		byHeader[0].backend(`client_info = "proxy"`), domainTo("b.example", byHeader[0]),
		postfixes.backend(), domainTo("c.example", postfixes),
		byHeader[1].backend(`client_info = "proxy"`), domainTo("d.example", byHeader[1]))
	return jd, dovecots, postfixes
}

// TestClientAddress: stores of both kinds log where the client is, over IPv4 and IPv6 and whichever way that travels, and by
// which id jackdaw's log calls the session.
func TestClientAddress(t *testing.T) {
	t.Parallel()
	jd, dovecot, mta := startKnowing(t)
	for _, service := range loginServices {
		for _, v6 := range []bool{false, true} {
			here := client{v6: v6}
			address := "::1"
			if !v6 {
				here.from = newHost()
				address = here.from
			}
			here = here.at(service, "mail.a.example")
			for _, user := range []string{"alice@a.example", "bob@b.example"} {
				jd.enter(t, here, user)
				told := "session=<" + jd.session(t, service, address, user) + ">"
				if user == "bob@b.example" { // a PROXY header has no place for it
					told = ""
				}
				dovecot.logged(t, dovecotLogs[protocol(service)], "user=<"+user+">", "rip="+address+",", told)
			}
			if protocol(service) != "submission" {
				continue
			}
			for _, user := range []string{"carol@c.example", "dave@d.example"} {
				jd.enter(t, here, user).submit("From "+address, user, "erin@e.example")
				mta.logged(t, "client=unknown["+address+"]", "sasl_username="+user)
			}
		}
	}
	for _, v6 := range []bool{false, true} {
		for _, user := range []string{"alice@a.example", "bob@b.example"} {
			here := client{service: "lmtp", v6: v6}
			address := "::1"
			if !v6 {
				here.from = newHost()
				address = here.from
			}
			d := jd.knock(t, here)
			d.greeting()
			d.hello("")
			verdicts(t, d.deliver("For "+user, "", user), "250 ")
			d.smtp("QUIT")
			dovecot.logged(t, "lmtp(", "Disconnect from "+address+":")
		}
	}
}

// session is the id of a login in jackdaw's log.
func (jd *jackdaw) session(t testing.TB, service, address, user string) string {
	t.Helper()
	line := jd.logged(t, `"msg":"login"`, `"service":"`+service+`"`, `"client":"`+address+`"`, `"user":"`+user+`"`)
	var fields struct{ Session string }
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return fields.Session
}

// forged is an address that no client of these tests has.
const forged = "203.0.113.66"

// forgery is how a client could say that it was there, in each protocol.
var forgery = map[string]string{
	"imap":       `f ID ("x-originating-ip" "` + forged + `" "x-session-id" "forged-session" "x-proxy-ttl" "1")`,
	"pop3":       "XCLIENT ADDR=" + forged + " PORT=1 SESSION=forged-session",
	"submission": "XCLIENT NAME=forged.example ADDR=" + forged + " PORT=1 LOGIN=erin@e.example",
	"sieve":      "XCLIENT ADDR=" + forged + " PORT=1 SESSION=forged-session",
	"lmtp":       "XCLIENT ADDR=" + forged + " PORT=1 PROTO=LMTP",
}

// forge says that the client is elsewhere, and returns the answer.
func (d *dialog) forge() string {
	d.t.Helper()
	d.send(forgery[d.protocol])
	if d.protocol == "imap" {
		return d.until("f ")
	}
	return d.read()
}

// TestForgedAddress: what a client says of its address before its login or after it, nobody believes.
func TestForgedAddress(t *testing.T) {
	t.Parallel()
	jd, dovecot, mta := startKnowing(t)
	for _, service := range loginServices {
		for _, user := range []string{"alice@a.example", "bob@b.example"} {
			here := client{from: newHost()}.at(service, "mail.a.example")
			d := jd.meet(t, here)
			if got := d.forge(); d.protocol != "imap" && isPositive(got) {
				t.Errorf("%s: to %q a client hears %q", service, forgery[d.protocol], got)
			}
			d.wants(letIn, d.plain(user, password))
			dovecot.logged(t, dovecotLogs[d.protocol], "user=<"+user+">", "rip="+here.from+",")
			if got := d.forge(); d.protocol != "imap" && isPositive(got) {
				t.Errorf("%s: to %q, after its login, a client hears %q", service, forgery[d.protocol], got)
			}
		}
	}
	lmtp := jd.knock(t, client{service: "lmtp", from: newHost()})
	lmtp.greeting()
	lmtp.hello("")
	if got := lmtp.forge(); !strings.HasPrefix(got, "500 ") {
		t.Errorf("lmtp: to %q a client hears %q", forgery["lmtp"], got)
	}
	verdicts(t, lmtp.deliver("By LMTP", "", "alice@a.example"), "250 ")
	for _, word := range []string{forged, "forged-session"} {
		if n := dovecot.count(word); n > 0 {
			t.Errorf("Dovecot writes of %s %d times", word, n)
		}
	}
	for _, user := range []string{"carol@c.example", "dave@d.example"} {
		for _, from := range []string{newHost(), ""} { // the last is 127.0.0.1, of which Postfix itself takes XCLIENT
			d := jd.enter(t, client{from: from}.at("submission", "mail.a.example"), user)
			if can := d.hello(""); strings.Contains(can, "XCLIENT") {
				t.Errorf("from %q: %s may say XCLIENT: %s", from, user, can)
			}
			if got := d.forge(); isPositive(got) {
				t.Errorf("from %q: to %q %s hears %q", from, forgery["submission"], user, got)
			}
			d.submit("Mine from "+from, user, "frank@f.example")
			if from == "" {
				from = "unknown"
			}
			mta.logged(t, "client=unknown["+from+"]", "sasl_username="+user)
		}
	}
	for _, words := range [][]string{{": client=", forged}, {": client=", "erin@e.example"}, {": client=forged"}} {
		if n := mta.count(words...); n > 0 {
			t.Errorf("Postfix writes of %q %d times", words, n)
		}
	}
}

func isPositive(answer string) bool {
	for _, prefix := range []string{"+OK", "2", "OK"} {
		if strings.HasPrefix(answer, prefix) {
			return true
		}
	}
	return false
}
