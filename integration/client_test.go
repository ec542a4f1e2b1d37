package integration

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
)

// The services where one logs in.
var loginServices = []string{"imap", "imaps", "pop3", "pop3s", "submission", "submissions", "sieve"}

// client is somebody who comes to jackdaw to log in.
type client struct {
	service string
	name    string           // that is asked for by SNI
	from    string           // an address; "": 127.0.0.1, by which the stores' proxy is known, too
	v6      bool             // comes to ::1, from there
	header  string           // a PROXY header, which comes first
	cert    *tls.Certificate // that is shown
	hello   string           // what it calls itself in SMTP; "": client.example
}

// at says that it comes for a service, and asks for a name.
func (c client) at(service, name string) client {
	c.service, c.name = service, name
	return c
}

// protocol is what is spoken where a service is.
func protocol(service string) string {
	if service == "imaps" || service == "pop3s" || service == "submissions" {
		return strings.TrimSuffix(service, "s")
	}
	return service
}

func implicit(service string) bool { return protocol(service) != service }

// knock connects, and sends no more than a PROXY header.
func (jd *jackdaw) knock(t testing.TB, c client) *dialog {
	t.Helper()
	address := jd.at(ports()[c.service])
	if c.v6 {
		address = jd.at6(c.service)
	}
	d := dialFrom(t, c.from, "tcp", address)
	d.protocol = protocol(c.service)
	d.write(c.header)
	return d
}

// config is how a client does TLS.
func (jd *jackdaw) config(c client) *tls.Config {
	config := jd.tls(c.name)
	if c.cert != nil {
		config.Certificates = []tls.Certificate{*c.cert}
	}
	return config
}

// meet leads a client to the place where it would log in, within TLS.
func (jd *jackdaw) meet(t testing.TB, c client) *dialog {
	t.Helper()
	d := jd.knock(t, c)
	if implicit(c.service) {
		d.handshake(jd.config(c))
		d.greeting()
	} else {
		d.greeting()
		d.hello(c.hello)
		d.startTLS()
		d.handshake(jd.config(c))
		if d.protocol == "sieve" {
			d.until("OK")
		}
	}
	d.hello(c.hello)
	return d
}

// greeting reads what a server begins with.
func (d *dialog) greeting() string {
	d.t.Helper()
	switch d.protocol {
	case "imap":
		return d.expect("* OK ")
	case "pop3":
		return d.expect("+OK ")
	case "sieve":
		return d.until("OK")
	default:
		return d.expect("220 ")
	}
}

// hello introduces the client where the protocol wants that, and returns what the server can do.
func (d *dialog) hello(name string) string {
	d.t.Helper()
	if name == "" {
		name = "client.example"
	}
	switch d.protocol {
	case "submission":
		return d.smtp("EHLO " + name)
	case "lmtp":
		return d.smtp("LHLO " + name)
	}
	return ""
}

// startTLS asks for TLS, which then begins with handshake.
func (d *dialog) startTLS() {
	d.t.Helper()
	switch d.protocol {
	case "imap":
		d.ask("STARTTLS")
	case "pop3":
		d.send("STLS")
		d.expect("+OK")
	case "sieve":
		d.send("STARTTLS")
		d.expect("OK")
	default:
		d.send("STARTTLS")
		d.expect("220 ")
	}
}

// auth logs in by one message of SASL, and returns the answer to it.
func (d *dialog) auth(mechanism, message string) string {
	d.t.Helper()
	encoded := encode(message)
	if encoded == "" && d.protocol != "sieve" {
		encoded = "="
	}
	switch d.protocol {
	case "imap":
		_, status := d.command("AUTHENTICATE " + mechanism + " " + encoded)
		return status
	case "sieve":
		d.send(fmt.Sprintf("AUTHENTICATE %q %q", mechanism, encoded))
	default:
		d.send("AUTH " + mechanism + " " + encoded)
	}
	return d.read()
}

// plain logs in by a password.
func (d *dialog) plain(user, password string) string {
	d.t.Helper()
	return d.auth("PLAIN", "\x00"+user+"\x00"+password)
}

// answers are how answers to a login begin, by protocol.
type answers map[string]string

// What a client hears who is let in, who is not, and who is to come again. It is the same for every store, and never says why.
var (
	letIn      = answers{"imap": "OK ", "pop3": "+OK", "submission": "235 ", "sieve": "OK"}
	denied     = answers{"imap": "NO [AUTHENTICATIONFAILED] ", "pop3": "-ERR [AUTH] ", "submission": "535 5.7.8 ", "sieve": `NO "Auth`}
	comeAgain  = answers{"imap": unavailable, "pop3": "-ERR [SYS/TEMP] ", "submission": "454 4.7.0 ", "sieve": "NO (TRYLATER) "}
	unknownYet = answers{"imap": "NO ", "pop3": "-ERR ", "submission": "504 5.5.4 ", "sieve": "NO "} // the mechanism
)

// wants compares an answer with what it is to be.
func (d *dialog) wants(want answers, got string) {
	d.t.Helper()
	if !strings.HasPrefix(got, want[d.protocol]) {
		d.t.Errorf("%s: got %q, want %q", d.protocol, got, want[d.protocol])
	}
}

// enter is meet for somebody who is let in.
func (jd *jackdaw) enter(t testing.TB, c client, user string) *dialog {
	t.Helper()
	d := jd.meet(t, c)
	if got := d.plain(user, password); !strings.HasPrefix(got, letIn[d.protocol]) {
		t.Fatalf("%s at %s: %s", user, c.service, got)
	}
	return d
}
