package integration

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"jackdaw/internal/devca"
)

// issuers vouch for clients.
type issuers struct {
	*devca.CA
	t    testing.TB
	file string // for client_ca
}

func newIssuers(t testing.TB) *issuers {
	t.Helper()
	i := &issuers{t: t, file: filepath.Join(t.TempDir(), "clients.pem")}
	i.change()
	return i
}

// change replaces the authority that vouches for clients by another one.
func (i *issuers) change() {
	i.t.Helper()
	ca, err := devca.New()
	if err != nil {
		i.t.Fatal(err)
	}
	i.CA = ca
	write(i.t, i.file, string(ca.PEM))
}

// cert issues a certificate that names users.
func (i *issuers) cert(emails ...string) *tls.Certificate {
	i.t.Helper()
	return i.certWith(devca.Options{Emails: emails})
}

func (i *issuers) certWith(o devca.Options) *tls.Certificate {
	i.t.Helper()
	leaf, err := i.Issue(o)
	if err != nil {
		i.t.Fatal(err)
	}
	return &leaf.TLS
}

// clientCA is the line for [tls] that has them believed.
func (i *issuers) clientCA() string { return fmt.Sprintf("client_ca = %q\n", i.file) }

// crowd lets one user come often from one address, to a Dovecot.
const crowd = "mail_max_userip_connections = 1000\n"

// onWord says of a backend that it takes jackdaw's word for users with certificates.
func onWord(form string) string {
	return fmt.Sprintf("external_login = %q\nlogin_user = %q\nlogin_password = %q\n", form, proxyUser, proxyPassword)
}

// onWordAt is onWord for one service of a backend alone.
func onWordAt(s *store, service, form string) string {
	line := fmt.Sprintf("%s = { address = %q, external_login = %q", service, s.at(ports()[service]), form)
	if form != "xclient" {
		line += fmt.Sprintf(", login_user = %q, login_password = %q", proxyUser, proxyPassword)
	}
	return line + " }\n"
}

// seed gives a user what only that user has: a message and a script, by which whoever is logged in can be known.
func (s *store) seed(t testing.TB, user string) {
	t.Helper()
	message := "Subject: only for " + user + "\r\n\r\nHello.\r\n"
	imap := dial(t, s.imap())
	imap.expect("* OK ")
	imap.ask("LOGIN " + user + " " + password)
	imap.ask(fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(message), message))
	sieve := dial(t, s.sieve())
	sieve.protocol = "sieve"
	sieve.until("OK")
	sieve.plain(user, password)
	sieve.send(fmt.Sprintf("PUTSCRIPT \"only for %s\" {5+}\r\nkeep;", user))
	sieve.expect("OK")
}

// waiting are clients who wait for the answer to a login: refusals take their time, all of them together no more than one.
type waiting struct {
	clients []*dialog
	what    []string
}

// try has somebody begin to log in by one message of SASL.
func (w *waiting) try(what string, d *dialog, mechanism, message string) {
	d.t.Helper()
	encoded := encode(message)
	switch d.protocol {
	case "imap":
		d.send("a AUTHENTICATE " + mechanism + " " + cmp.Or(encoded, "="))
	case "sieve":
		d.send(fmt.Sprintf("AUTHENTICATE %q %q", mechanism, encoded))
	default:
		d.send("AUTH " + mechanism + " " + cmp.Or(encoded, "="))
	}
	w.clients, w.what = append(w.clients, d), append(w.what, what)
}

// hear wants all of them to hear the same.
func (w *waiting) hear(want string) {
	for i, d := range w.clients {
		d.t.Helper()
		if got := strings.TrimPrefix(d.read(), "a "); got != want {
			d.t.Errorf("%s, %s: got %q, want %q", d.protocol, w.what[i], got, want)
		}
	}
}

// isAt wants a client that is logged in to be a user: it sees what only that user has, or what it sends is known to be that
// user's at the store where submissions go.
func (d *dialog) isAt(s *store, user string) {
	d.t.Helper()
	want := "only for " + user
	var got string
	switch d.protocol {
	case "imap":
		d.ask("SELECT INBOX")
		got = d.ask("FETCH 1 BODY.PEEK[HEADER]")
	case "pop3":
		d.send("TOP 1 0")
		got = d.until(".", "-ERR")
	case "sieve":
		d.send("LISTSCRIPTS")
		got = d.until("OK", "NO", "BYE")
	case "submission":
		subject := "From " + user + " at " + d.conn.LocalAddr().String()
		d.submit(subject, user, "somebody@elsewhere.example")
		s.received(d.t, "Subject: "+subject)
		return
	}
	if !strings.Contains(got, want) {
		d.t.Errorf("%s: %s sees %q", d.protocol, user, got)
	}
}

// offers asks a server what it can do.
func (d *dialog) offers() string {
	d.t.Helper()
	switch d.protocol {
	case "imap":
		return d.ask("CAPABILITY")
	case "pop3":
		d.send("CAPA")
		return d.until(".")
	case "sieve":
		d.send("CAPABILITY")
		return d.until("OK")
	}
	return d.hello("")
}

// turnedAway wants TLS to fail for a client, by the server's will.
func (jd *jackdaw) turnedAway(t testing.TB, c client) {
	t.Helper()
	d := jd.knock(t, c)
	if !implicit(c.service) {
		d.greeting()
		d.hello("")
		d.startTLS()
	}
	conn := tls.Client(d.conn, jd.config(c))
	err := conn.Handshake()
	if err == nil { // in TLS 1.3 a client hears what the server thinks of its certificate when it is done itself
		_, err = conn.Read(make([]byte, 1))
	}
	if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "remote error" {
		t.Errorf("%s: TLS ends with %v", c.service, err)
	}
}

// TestExternal: users with certificates enter every kind of store in every way in which it can take jackdaw's word, and are
// there who their certificates say.
func TestExternal(t *testing.T) {
	t.Parallel()
	all := []string{"imap", "pop3", "sieve"}
	users := []string{"alice@a.example", "bob@b.example", "dave@d.example", "erin@e.example"}
	sink := postfix{}.start(t, "sink")
	dovecot := dovecot{relay: sink}.start(t, "dovecot", users...)
	cyrus := startCyrus(t, "cyrus", "carol@c.example")
	mta := postfix{sasl: dovecotSASL(dovecot)}.start(t, "mta")
	for _, user := range users {
		dovecot.seed(t, user)
	}
	cyrus.seed(t, "carol@c.example")
	people := newIssuers(t)
	jd := frontend{tls: people.clientCA()}.start(t,
		dovecot.named("authzid", append(all, "submission")...).backend(onWord("authzid")),
		dovecot.named("master", append(all, "submission")...).backend(onWord("master")),
		cyrus.named("cyrus", all...).backend(onWord("authzid"), onWordAt(mta, "submission", "xclient")),
		mta.named("mta-authzid").backend(onWordAt(mta, "submission", "authzid")),
		mta.named("mta-master").backend(onWordAt(mta, "submission", "master")),
		domainTo("a.example", dovecot.named("authzid")), domainTo("b.example", dovecot.named("master")),
		domainTo("c.example", cyrus),
		domainTo("d.example", mta.named("mta-authzid")), domainTo("e.example", mta.named("mta-master")),
	)
	for _, way := range []struct {
		user     string
		sends    *store   // where the user's mail goes
		by       []string // what the log there says of the user
		services []string
	}{
		{"alice@a.example", sink, []string{"submission-login: Info: Log", "user=<alice@a.example>"}, loginServices},
		{"bob@b.example", sink, []string{"submission-login: Info: Log", "user=<bob@b.example>"}, loginServices},
		{"carol@c.example", mta, []string{"sasl_method=XCLIENT", "sasl_username=carol@c.example"}, loginServices},
		{"dave@d.example", mta, []string{"sasl_method=PLAIN", "sasl_username=dave@d.example"}, []string{"submission", "submissions"}},
		{"erin@e.example", mta, []string{"sasl_method=PLAIN", "sasl_username=erin@e.example"}, []string{"submission", "submissions"}},
	} {
		cert := people.cert(way.user)
		for _, service := range way.services {
			t.Run(service+" "+way.user, func(t *testing.T) {
				t.Parallel()
				d := jd.meet(t, client{cert: cert}.at(service, "mail.a.example"))
				if offer := d.offers(); !strings.Contains(offer, "EXTERNAL") {
					t.Errorf("EXTERNAL is not among %q", offer)
				}
				d.wants(letIn, d.auth("EXTERNAL", ""))
				d.isAt(way.sends, way.user)
				jd.logged(t, `"msg":"login"`, `"service":"`+service+`"`, `"user":"`+way.user+`"`, `"mechanism":"EXTERNAL"`)
				if d.protocol != "submission" {
					return
				}
				by := way.sends
				if by == sink {
					by = dovecot
				}
				by.logged(t, way.by...)
			})
		}
	}
}

// TestExternalRefused: without a certificate, with one that names nobody or from elsewhere, for somebody else or for nobody
// whom a store knows there is no way in; and none of that stands in the way of a password.
func TestExternalRefused(t *testing.T) {
	t.Parallel()
	dovecot := dovecot{extra: crowd}.start(t, "store1", "alice@a.example", "bob@a.example", "alice@b.example")
	mta := postfix{sasl: dovecotSASL(dovecot)}.start(t, "mta")
	people := newIssuers(t)
	office := newHost()
	jd := frontend{tls: people.clientCA(), users: fmt.Sprintf("impersonate_from = [%q]", office)}.start(t,
		dovecot.serving("imap", "pop3", "sieve").backend(onWord("authzid"), onWordAt(mta, "submission", "xclient")),
		dovecot.named("wordless", "imap", "pop3", "sieve", "submission").backend(), // takes nobody's word
		domainTo("a.example", dovecot), domainTo("b.example", dovecot.named("wordless")))
	alice, other := people.cert("alice@a.example"), newIssuers(t).cert("alice@a.example")
	for _, service := range loginServices {
		as := func(cert *tls.Certificate) client { return client{cert: cert}.at(service, "mail.a.example") }
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			for what, cert := range map[string]*tls.Certificate{
				"no certificate":             nil,
				"a certificate of nobody":    people.cert(),
				"a certificate of two users": people.cert("alice@a.example", "bob@a.example"),
				"a common name":              people.certWith(devca.Options{CommonNames: []string{"alice@a.example"}}),
			} {
				d := jd.meet(t, as(cert))
				if offer := d.offers(); strings.Contains(offer, "EXTERNAL") {
					t.Errorf("with %s EXTERNAL is among %q", what, offer)
				}
				for _, authzid := range []string{"", "alice@a.example"} {
					d.wants(unknownYet, d.auth("EXTERNAL", authzid))
				}
				d.wants(letIn, d.plain("alice", password))
			}

			jd.turnedAway(t, as(other))

			wrong := jd.meet(t, as(alice)).plain("alice", "wrong")
			var refused waiting
			for what, c := range map[string]struct {
				by      client
				authzid string
			}{
				"for somebody else":                  {as(alice), "bob@a.example"},
				"for somebody else, bare":            {as(alice), "bob"},
				"for somebody else, from the office": {client{cert: alice, from: office}.at(service, "mail.a.example"), "bob"},
				"for somebody else by a proxy":       {as(alice), "bob@a.example*" + proxyUser},
				"for a proxy":                        {as(alice), proxyUser},
				"with a line in the name":            {as(alice), "alice@a.example\r\nNOOP"},
				"with NUL in the name":               {as(alice), "alice@a.example\x00bob@a.example"},
				"of nobody here":                     {as(people.cert("alice@elsewhere.example")), ""},
				"of a master":                        {as(people.cert("bob@a.example*" + proxyUser)), ""},
				"of a user without a domain":         {as(people.cert("alice")), ""},
				"to a store that takes no word":      {as(people.cert("alice@b.example")), ""},
			} {
				refused.try(what, jd.meet(t, c.by), "EXTERNAL", c.authzid)
			}
			refused.hear(wrong)
			d := jd.meet(t, as(alice))
			d.wants(letIn, d.plain("bob", password)) // by a password, anybody
			for _, authzid := range []string{"alice@a.example", "alice", "ALICE@A.example"} {
				d := jd.meet(t, as(alice))
				d.wants(letIn, d.auth("EXTERNAL", authzid))
			}
		})
	}
}

// TestExternalByCommonName: client_user = "cn" looks for the user there, and nowhere else.
func TestExternalByCommonName(t *testing.T) {
	t.Parallel()
	dovecot := dovecot{extra: crowd}.start(t, "store1", "alice@a.example", "bob@a.example")
	dovecot.seed(t, "alice@a.example")
	people := newIssuers(t)
	jd := frontend{tls: people.clientCA() + `client_user = "cn"`, users: `default_realm = "a.example"`}.start(t,
		dovecot.serving("imap", "pop3", "sieve").backend(onWord("master")))
	for _, service := range loginServices {
		if protocol(service) == "submission" {
			continue
		}
		for _, name := range []string{"alice@a.example", "alice"} {
			cert := people.certWith(devca.Options{Emails: []string{"bob@a.example"}, CommonNames: []string{name}})
			d := jd.meet(t, client{cert: cert}.at(service, "mail.b.example")) // whose realm is not for certificates
			d.wants(letIn, d.auth("EXTERNAL", ""))
			d.isAt(dovecot, "alice@a.example")
		}
		d := jd.meet(t, client{cert: people.cert("alice@a.example")}.at(service, "mail.a.example"))
		d.wants(unknownYet, d.auth("EXTERNAL", ""))
	}
}

// TestExternalReload: with another authority in the file the certificates of the last one are worth nothing from the reload
// on, not even in a TLS session that is resumed. Who is in stays.
func TestExternalReload(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example")
	people := newIssuers(t)
	part := dovecot.backend(onWord("authzid"))
	jd := frontend{tls: people.clientCA()}.start(t, part)
	old := people.cert("alice@a.example")

	before := jd.meet(t, client{cert: old}.at("imaps", "mail.a.example"))
	before.wants(letIn, before.auth("EXTERNAL", ""))
	resume := make(map[uint16]*tls.Config)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := jd.config(client{cert: old, name: "mail.a.example"})
		config.MaxVersion, config.ClientSessionCache = version, tls.NewLRUClientSessionCache(1)
		if d, _ := jd.resume(t, config); !strings.Contains(d.offers(), "EXTERNAL") {
			t.Error("the certificate is worth nothing from the beginning")
		}
		config.Certificates = nil // from now on only the session could tell
		d, resumed := jd.resume(t, config)
		if d.wants(letIn, d.auth("EXTERNAL", "")); !resumed {
			t.Errorf("%s: the session is not resumed", tls.VersionName(version))
		}
		resume[version] = config
	}

	people.change()
	jd.reload(part)
	jd.logged(t, "reloaded")

	for version, config := range resume {
		d, resumed := jd.resume(t, config)
		if offer := d.offers(); resumed || strings.Contains(offer, "EXTERNAL") {
			t.Errorf("%s: resumed is %v, and %q is offered", tls.VersionName(version), resumed, offer)
		}
		d.wants(unknownYet, d.auth("EXTERNAL", ""))
		d.wants(letIn, d.plain("alice", password))
	}
	for _, service := range []string{"imap", "imaps", "sieve"} {
		jd.turnedAway(t, client{cert: old}.at(service, "mail.a.example"))
		d := jd.meet(t, client{cert: people.cert("alice@a.example")}.at(service, "mail.a.example"))
		d.wants(letIn, d.auth("EXTERNAL", ""))
	}
	before.ask("SELECT INBOX")
}

// resume begins a conversation for IMAP, and tells whether it is in a TLS session from before.
func (jd *jackdaw) resume(t testing.TB, config *tls.Config) (d *dialog, resumed bool) {
	t.Helper()
	d = dialTLS(t, jd.at(portIMAPS), config)
	d.protocol = "imap"
	d.greeting()
	return d, d.conn.(*tls.Conn).ConnectionState().DidResume
}

// TestImpersonate: administrators of a store act for its users, from where they may: by a master user's name at Dovecot, by
// an authorization identity there and at Cyrus. From elsewhere they hear what everybody hears who has no right password.
func TestImpersonate(t *testing.T) {
	t.Parallel()
	office, elsewhere := newHost(), newHost()
	dovecot := dovecot{extra: crowd}.start(t, "store1", "alice@a.example")
	cyrus := startCyrus(t, "store2", "bob@b.example")
	mta := postfix{sasl: dovecotSASL(dovecot)}.start(t, "mta")
	dovecot.seed(t, "alice@a.example")
	cyrus.seed(t, "bob@b.example")
	dovecot.serving("imap", "pop3", "sieve")
	cyrus.serving("imap", "pop3", "sieve")
	jd := frontend{users: fmt.Sprintf("impersonate_from = [%q]", office)}.start(t,
		dovecot.backend(mta.as("submission")), domainTo("a.example", dovecot),
		cyrus.backend(mta.as("submission")), domainTo("b.example", cyrus))
	ways := []struct {
		what, name, user, message string
		services                  []string
	}{
		{"a master's name", "mail.a.example", "alice@a.example",
			"\x00alice@a.example*" + proxyUser + "\x00" + proxyPassword, loginServices},
		{"a master's name, for a bare one", "mail.a.example", "alice@a.example",
			"\x00alice*" + proxyUser + "\x00" + proxyPassword, loginServices},
		{"an identity at Dovecot", "mail.b.example", "alice@a.example",
			"alice@a.example\x00" + proxyUser + "\x00" + proxyPassword, loginServices},
		{"an identity at Cyrus", "mail.b.example", "bob@b.example",
			"bob\x00" + proxyUser + "\x00" + proxyPassword, []string{"imap", "imaps", "pop3", "pop3s", "sieve"}},
	}
	for _, service := range loginServices {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			wrong := jd.meet(t, client{from: elsewhere}.at(service, "mail.a.example")).plain("alice", "wrong")
			var refused waiting
			for _, way := range ways {
				if !slices.Contains(way.services, service) {
					continue
				}
				d := jd.meet(t, client{from: office}.at(service, way.name))
				d.wants(letIn, d.auth("PLAIN", way.message))
				d.isAt(mta, way.user)
				jd.logged(t, `"msg":"login"`, `"service":"`+service+`"`, `"client":"`+office+`"`,
					`"user":"`+way.user+`"`, `"actor":"`+proxyUser+`"`)
				refused.try(way.what+", from elsewhere", jd.meet(t, client{from: elsewhere}.at(service, way.name)),
					"PLAIN", way.message)
				refused.try(way.what+", with a wrong password", jd.meet(t, client{from: office}.at(service, way.name)),
					"PLAIN", way.message+"wrong")
			}
			for what, message := range map[string]string{
				"a user for another": "alice@a.example\x00bob@b.example\x00" + password,
				"a user as a master": "\x00alice@a.example*bob@b.example\x00" + password,
			} {
				refused.try(what, jd.meet(t, client{from: office}.at(service, "mail.a.example")), "PLAIN", message)
			}
			refused.hear(wrong)
		})
	}
	t.Cleanup(func() { // when all are done
		for _, log := range []string{jd.Log(), dovecot.Log(), mta.Log()} {
			if strings.Contains(log, proxyPassword) {
				t.Error("a password is in a log")
			}
		}
	})
}
