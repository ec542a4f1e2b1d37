package integration

import (
	"net"
	"strings"
	"testing"
)

// The ground that the other tests stand on: the servers by themselves.

func TestGroundDovecot(t *testing.T) {
	t.Parallel()
	s := startDovecot(t, "store1", passwords, "alice@a.example")
	folders := curl(t, "--user", "alice@a.example:"+password, "imap://"+s.imap()+"/")
	if !strings.Contains(folders, s.folder()) {
		t.Errorf("alice has %q, and not %s", folders, s.folder())
	}
	d := dial(t, s.sieve())
	d.until("OK")
	d.send(`AUTHENTICATE "PLAIN" "` + plain("alice@a.example", password) + `"`)
	d.expect("OK")
	d.send("PUTSCRIPT \"night\" {5+}\r\nkeep;")
	d.expect("OK")
}

func TestGroundDovecotOpen(t *testing.T) {
	t.Parallel()
	d := dial(t, startDovecot(t, "open", anything).imap())
	d.expect("* OK")
	d.ask("LOGIN somebody@a.example anything")
}

func TestGroundCyrus(t *testing.T) {
	t.Parallel()
	s := startCyrus(t, "cyrus", "carol")
	folders := curl(t, "--user", "carol:"+password, "imap://"+s.imap()+"/")
	if !strings.Contains(folders, s.folder()) {
		t.Errorf("carol has %q, and not %s", folders, s.folder())
	}
	d := dial(t, s.sieve())
	d.until("OK")
	d.send(`AUTHENTICATE "PLAIN" "` + plain("carol", password) + `"`)
	d.expect("OK")
	d.send("PUTSCRIPT \"night\" {5+}\r\nkeep;")
	d.expect("OK")
}

func TestGroundCyrusDomains(t *testing.T) {
	t.Parallel()
	s := startCyrus(t, "cyrus", "bob@b.example")
	d := dial(t, s.imap())
	d.expect("* OK")
	d.ask("LOGIN bob@b.example " + password)
	if folders := d.ask(`LIST "" *`); !strings.Contains(folders, s.folder()) {
		t.Errorf("bob has %q, and not %s", folders, s.folder())
	}
}

// TestGroundDovecotServices: every service of a Dovecot, which believes its proxy, by each of the ways, and no stranger.
func TestGroundDovecotServices(t *testing.T) {
	t.Parallel()
	s := startDovecot(t, "store1", passwords, "alice@a.example", fullUser+"@a.example")

	pop3 := dial(t, s.pop3())
	pop3.expect("+OK [XCLIENT] ")
	pop3.send("XCLIENT ADDR=2001:db8::5 PORT=4321 SESSION=pop3-session")
	pop3.expect("+OK")
	pop3.send("AUTH PLAIN " + plain("alice@a.example", password))
	pop3.expect("+OK")
	s.logged(t, "pop3-login: Info: Log", "user=<alice@a.example>", "rip=2001:db8::5", "session=<pop3-session>")

	imap := dial(t, s.imap())
	imap.expect("* OK ")
	imap.ask(`ID ("x-originating-ip" "203.0.113.5" "x-session-id" "imap-session")`)
	imap.ask("AUTHENTICATE PLAIN " + plain("alice@a.example*"+proxyUser, proxyPassword))
	s.logged(t, "imap-login: Info: Log", "user=<alice@a.example>", "rip=203.0.113.5", "session=<imap-session>")

	stranger := newHost()
	sieve := dialFrom(t, stranger, "tcp", s.sieve())
	if greeting := sieve.until("OK"); strings.Contains(greeting, "XCLIENT") {
		t.Errorf("a stranger hears %q", greeting)
	}
	sieve.send(`AUTHENTICATE "PLAIN" "` + encode("alice@a.example\x00"+proxyUser+"\x00"+proxyPassword) + `"`)
	sieve.expect("OK")
	s.logged(t, "managesieve-login: Info: Log", "user=<alice@a.example>", "rip="+stranger)

	proxied := dial(t, net.JoinHostPort(s.proxied, portIMAP))
	proxied.send("PROXY TCP4 203.0.113.6 192.0.2.1 4321 143")
	proxied.expect("* OK ")
	proxied.ask("LOGIN alice@a.example " + password)
	s.logged(t, "imap-login: Info: Log", "user=<alice@a.example>", "rip=203.0.113.6")

	lmtp := dialFrom(t, "", "unix", s.lmtpSocket())
	lmtp.expect("220 ")
	lmtp.smtp("LHLO client.example")
	verdicts(t, lmtp.deliver("By LMTP", "", "alice@a.example", fullUser+"@a.example", "nobody@a.example"),
		"250 2.0.0 ", "552 5.2.2 ", "550 5.1.1 ")
}

// TestGroundDovecotSubmission: it hands on what those submit who have logged in.
func TestGroundDovecotSubmission(t *testing.T) {
	t.Parallel()
	sink := postfix{}.start(t, "sink")
	s := dovecot{relay: sink}.start(t, "store1", "alice@a.example")
	d := dial(t, s.submission())
	d.expect("220 ")
	d.smtp("EHLO client.example")
	if answer := d.smtp("AUTH PLAIN " + plain("alice@a.example", password)); !strings.HasPrefix(answer, "235 ") {
		t.Fatal(answer)
	}
	d.submit("Over Dovecot", "alice@a.example", "bob@b.example")
	sink.received(t, "Subject: Over Dovecot")
}

// TestGroundCyrusServices: the proxy's account logs in as anybody, and over TCP only one account delivers.
func TestGroundCyrusServices(t *testing.T) {
	t.Parallel()
	s := startCyrus(t, "cyrus", "carol", fullUser)
	asCarol := encode("carol\x00" + proxyUser + "\x00" + proxyPassword)
	pop3 := dial(t, s.pop3())
	pop3.expect("+OK ")
	pop3.send("AUTH PLAIN " + asCarol)
	pop3.expect("+OK ")
	imap := dial(t, s.imap())
	imap.expect("* OK ")
	imap.ask("AUTHENTICATE PLAIN " + asCarol)

	lmtp := dial(t, s.lmtp())
	lmtp.expect("220 ")
	lmtp.smtp("LHLO client.example")
	if answer := lmtp.smtp("MAIL FROM:<>"); !strings.HasPrefix(answer, "430 ") {
		t.Errorf("before a login: %s", answer)
	}
	if answer := lmtp.smtp("AUTH PLAIN " + plain(lmtpUser, proxyPassword)); !strings.HasPrefix(answer, "235 ") {
		t.Fatal(answer)
	}
	want := []string{"250 2.1.5 ", "452 4.2.2 ", "550"}
	verdicts(t, lmtp.deliver("Over TCP", "", "carol", fullUser, "nobody"), want...)
	local := dialFrom(t, "", "unix", s.lmtpSocket())
	local.expect("220 ")
	local.smtp("LHLO client.example")
	verdicts(t, local.deliver("On the socket", "", "carol", fullUser, "nobody"), want...)
	imap.ask("SELECT INBOX")
	if found := imap.ask("SEARCH SUBJECT \"\""); found != "* SEARCH 1 2\n" {
		t.Errorf("carol has %q", found)
	}
}

// TestGroundPostfix: whoever checks the passwords, only who has logged in may send, and XCLIENT says from where.
func TestGroundPostfix(t *testing.T) {
	t.Parallel()
	users := startDovecot(t, "users", passwords, "alice@a.example")
	byDovecot := postfix{sasl: dovecotSASL(users)}.start(t, "smtp1")
	byCyrus := postfix{sasl: cyrusSASL}.start(t, "smtp2")
	startSaslauthd(t, users, byCyrus.dir)
	for _, s := range []*store{byDovecot, byCyrus} {
		d := dial(t, s.submission())
		d.expect("220 ")
		d.smtp("EHLO proxy.example")
		d.smtp("MAIL FROM:<alice@a.example>")
		if answer := d.smtp("RCPT TO:<bob@b.example>"); !strings.HasPrefix(answer, "554 ") {
			t.Errorf("before a login: %s", answer)
		}
		d.smtp("RSET")
		if answer := d.smtp("XCLIENT NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::5"); !strings.HasPrefix(answer, "220 ") {
			t.Error(answer)
		}
		if answer := d.smtp("EHLO client.example"); strings.Contains(answer, "XCLIENT") {
			t.Errorf("the client may speak for others: %s", answer)
		}
		if answer := d.smtp("AUTH PLAIN " + plain("alice@a.example", "wrong")); !strings.HasPrefix(answer, "535 5.7.8 ") {
			t.Error(answer)
		}
		if answer := d.smtp("AUTH PLAIN " + plain("alice@a.example", password)); !strings.HasPrefix(answer, "235 ") {
			t.Fatal(answer)
		}
		d.submit("Submitted", "alice@a.example", "bob@b.example")
		s.received(t, "Subject: Submitted", "from client.example (unknown [IPv6:2001:db8::5])")
		s.logged(t, "client=unknown[2001:db8::5]", "sasl_username=alice@a.example")

		proxied := dial(t, net.JoinHostPort(s.proxied, portSubmission))
		proxied.send("PROXY TCP4 203.0.113.6 192.0.2.1 4321 587")
		proxied.expect("220 ")
		s.logged(t, "connect from unknown[203.0.113.6]")
	}
}

// TestGroundPostfixDelivers: mail goes on by LMTP, and a recipient who must wait is tried again soon.
func TestGroundPostfixDelivers(t *testing.T) {
	t.Parallel()
	cyrus := startCyrus(t, "cyrus", "carol", "dave")
	mta := postfix{lmtp: "unix:" + cyrus.lmtpSocket()}.start(t, "mta")
	cyrus.serving("lmtp").fail(t)
	d := dial(t, mta.smtp())
	d.expect("220 ")
	d.smtp("EHLO client.example")
	d.submit("Later", "alice@a.example", "carol@c.example", "dave@c.example")
	mta.logged(t, "to=<carol@c.example>", "status=deferred")
	cyrus.restart()
	mta.logged(t, "to=<carol@c.example>", "status=sent")
	mta.logged(t, "to=<dave@c.example>", "status=sent")
}

// verdicts compares answers by how they begin.
func verdicts(t testing.TB, answers []string, want ...string) {
	t.Helper()
	for i, prefix := range want {
		if !strings.HasPrefix(answers[i], prefix) {
			t.Errorf("recipient %d: got %q, want %q", i, answers[i], prefix)
		}
	}
}
