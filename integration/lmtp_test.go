package integration

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mailboxes are a Dovecot for a.example and a Cyrus for b.example, which takes mail on its socket, and for c.example, which it
// takes over TCP from who has logged in; and a jackdaw that brings them mail.
type mailboxes struct {
	*jackdaw
	dovecot, cyrus *store
}

func startMailboxes(t testing.TB, parts ...string) mailboxes {
	t.Helper()
	d := dovecot{extra: "lmtp_save_to_detail_mailbox = yes\n"}.
		start(t, "store1", "alice@a.example", fullUser+"@a.example").serving("lmtp")
	c := startCyrus(t, "store2", "bob@b.example", "carol@c.example", fullUser+"@c.example").serving()
	overTCP := c.named("store2-tcp")
	jd := startJackdaw(t, append(parts, d.backend(), domainTo("a.example", d),
		c.backend(fmt.Sprintf("lmtp = %q", "unix:"+c.lmtpSocket())), domainTo("b.example", c),
		overTCP.backend(fmt.Sprintf("lmtp = { address = %q, login_user = %q, login_password = %q }",
			c.lmtp(), lmtpUser, proxyPassword)), domainTo("c.example", overTCP))...)
	return mailboxes{jd, d.serving("imap", "lmtp"), c.serving("imap", "lmtp")}
}

// courier begins a conversation with the port for LMTP.
func (jd *jackdaw) courier(t testing.TB) *dialog {
	t.Helper()
	d := jd.knock(t, client{service: "lmtp"})
	d.greeting()
	d.hello("")
	return d
}

// found is how many messages with a subject a user has in a mailbox.
func (s *store) found(t testing.TB, user, mailbox, subject string) int {
	t.Helper()
	d := dial(t, s.imap())
	defer d.conn.Close()
	d.expect("* OK ")
	d.ask("LOGIN " + user + " " + password)
	d.ask(fmt.Sprintf("SELECT %q", mailbox))
	for line := range strings.Lines(d.ask(fmt.Sprintf("SEARCH SUBJECT %q", subject))) {
		if numbers, ok := strings.CutPrefix(line, "* SEARCH"); ok { // others tell of mail that comes meanwhile
			return len(strings.Fields(numbers))
		}
	}
	t.Fatalf("%s is not told what was found", user)
	return 0
}

// TestDeliver: one message for recipients on several stores comes to each, and each has a verdict of its own, in the order in
// which they were named.
func TestDeliver(t *testing.T) {
	t.Parallel()
	stores := startMailboxes(t)
	everybody := []string{
		"alice@a.example", "nobody@b.example", "bob@b.example", "nobody@a.example", "carol@c.example", fullUser + "@a.example",
		"alice@a.example", "ALICE@A.EXAMPLE", fullUser + "@c.example", "somebody@elsewhere.example", "Bob@B.Example",
	}
	want := []string{"250 ", "550", "250 ", "550", "250 ", "552 ", "250 ", "250 ", "452 ", "550 ", "250 "}
	socket := dialFrom(t, "", "unix", stores.socket)
	socket.protocol = "lmtp"
	socket.greeting()
	socket.hello("")
	for way, d := range map[string]*dialog{"TCP": stores.courier(t), "socket": socket} {
		for n := range 3 {
			subject := fmt.Sprintf("Message %d by %s", n, way)
			verdicts(t, d.deliver(subject, "sender@s.example", everybody...), want...)
			for user, s := range map[string]*store{"alice@a.example": stores.dovecot, "bob@b.example": stores.cyrus, "carol@c.example": stores.cyrus} {
				if n := s.found(t, user, "INBOX", subject); n != 1 {
					t.Errorf("%s has got %q %d times", user, subject, n)
				}
			}
		}
	}
}

// TestDeliverToFolder: what stands behind a plus sign is the store's to understand.
func TestDeliverToFolder(t *testing.T) {
	t.Parallel()
	stores := startMailboxes(t)
	owner := dial(t, stores.cyrus.imap())
	owner.expect("* OK ")
	owner.ask("LOGIN bob@b.example " + password)
	owner.ask("SETACL " + stores.cyrus.folder() + " anyone p")
	d := stores.courier(t)
	to := []string{"alice+" + stores.dovecot.folder() + "@a.example", "bob+" + stores.cyrus.folder() + "@b.example"}
	verdicts(t, d.deliver("With detail", "", to...), "250 ", "250 ")
	if n := stores.dovecot.found(t, "alice@a.example", stores.dovecot.folder(), "With detail"); n != 1 {
		t.Errorf("alice has got it %d times in her folder", n)
	}
	if n := stores.cyrus.found(t, "bob@b.example", stores.cyrus.folder(), "With detail"); n != 1 {
		t.Errorf("bob has got it %d times in his folder", n)
	}
}

// TestDeliverOctets: a large message with all that a proxy could get wrong arrives at both kinds of stores as it was sent.
func TestDeliverOctets(t *testing.T) {
	t.Parallel()
	stores := startMailboxes(t)
	message := octets("Large") + strings.Repeat("..\r\n.\r\n"+strings.Repeat("0123456789abcde", 5)+"\r\n", 200_000)
	d := stores.courier(t)
	d.positive(d.smtp("MAIL FROM:<sender@s.example> BODY=8BITMIME"))
	users := map[string]*store{"alice@a.example": stores.dovecot, "bob@b.example": stores.cyrus, "carol@c.example": stores.cyrus}
	for user := range users {
		d.positive(d.smtp("RCPT TO:<" + user + ">"))
	}
	if got := d.smtp("DATA"); !strings.HasPrefix(got, "354 ") {
		t.Fatal(got)
	}
	d.write(strings.ReplaceAll("\r\n"+message, "\r\n.", "\r\n..")[2:] + ".\r\n")
	for range users {
		d.positive(d.reply())
	}
	for user, s := range users {
		got := curl(t, "--user", user+":"+password, "imap://"+s.imap()+"/INBOX;MAILINDEX=1")
		if body(got) != body(message) {
			t.Errorf("%s got %d octets other than the %d that were sent", user, len(got), len(message))
		}
	}
}

// TestDeliverChunks: where all stores have CHUNKING it is offered, and every recipient has a verdict on the last chunk.
func TestDeliverChunks(t *testing.T) {
	t.Parallel()
	s := startDovecot(t, "store1", passwords, "alice@a.example", "bob@a.example", fullUser+"@a.example").serving("lmtp")
	jd := startJackdaw(t, s.backend())
	jd.knows(s)
	d := jd.knock(t, client{service: "lmtp"})
	d.greeting()
	if can := d.hello(""); !strings.Contains(can, "CHUNKING") {
		t.Fatalf("Dovecot alone can do %s", can)
	}
	for n := range 2 {
		d.positive(d.smtp("MAIL FROM:<>"))
		for _, user := range []string{"alice", fullUser, "bob"} {
			d.positive(d.smtp("RCPT TO:<" + user + "@a.example>"))
		}
		text := octets(fmt.Sprint("Chunks ", n))
		for _, size := range []int{1, 0, 50_000, 700_000} {
			d.send(fmt.Sprint("BDAT ", size))
			d.write(text[:size])
			d.positive(d.reply())
			text = text[size:]
		}
		d.send(fmt.Sprintf("BDAT %d LAST", len(text)))
		d.write(text)
		for _, want := range []string{"250 ", "552 ", "250 "} {
			if got := d.reply(); !strings.HasPrefix(got, want) {
				t.Errorf("to the last chunk: got %q, want %q", got, want)
			}
		}
		got := curl(t, "--user", "bob@a.example:"+password, fmt.Sprintf("imap://%s/INBOX;MAILINDEX=%d", s.imap(), n+1))
		if body(got) != body(octets(fmt.Sprint("Chunks ", n))) {
			t.Errorf("bob got %d octets other than those that were sent", len(got))
		}
	}
}

// TestDeliverWithoutLogin: Cyrus refuses mail over TCP from who has not logged in, or with a wrong password. That is nobody's
// mail's fault, and all of it can wait.
func TestDeliverWithoutLogin(t *testing.T) {
	t.Parallel()
	c := startCyrus(t, "store2", "bob@b.example", "carol@c.example").serving("lmtp")
	wrong := c.named("wrong")
	jd := startJackdaw(t, c.backend(), domainTo("b.example", c), wrong.backend(fmt.Sprintf(
		"lmtp = { address = %q, login_user = %q, login_password = \"wrong\" }", c.lmtp(), lmtpUser)), domainTo("c.example", wrong))
	d := jd.courier(t)
	verdicts(t, d.deliver("Not now", "", "bob@b.example", "carol@c.example"), "451 4.", "451 4.")
	d.positive(d.smtp("QUIT"))
	jd.logged(t, `"level":"warn"`, `"backend":"store2"`, `"bob@b.example"`, "430")
	jd.logged(t, `"level":"warn"`, `"backend":"wrong"`, `"carol@c.example"`, "501")
}

// body is what stands behind the header, to which servers add.
func body(message string) string {
	_, body, _ := strings.Cut(message, "\r\n\r\n")
	return body
}

// TestDeliverFromPostfix: Postfix brings mail over TCP within TLS and on a socket. What a store that is down cannot take is
// brought again, to its own users alone; who is unknown is so alone, too.
func TestDeliverFromPostfix(t *testing.T) {
	t.Parallel()
	stores := startMailboxes(t)
	ways := map[string]*store{
		"TCP":    postfix{lmtp: "inet:" + stores.at(portLMTP), extra: "lmtp_tls_security_level = encrypt\n"}.start(t, "tcp"),
		"socket": postfix{lmtp: "unix:" + stores.socket}.start(t, "socket"),
	}
	send := func(mta *store, subject string, to ...string) {
		d := dial(t, mta.smtp())
		d.expect("220 ")
		d.smtp("EHLO client.example")
		d.submit(subject, "alice@a.example", to...)
	}
	known := map[string]*store{"alice@a.example": stores.dovecot, "bob@b.example": stores.cyrus, "carol@c.example": stores.cyrus}
	both := []string{"alice@a.example", "bob@b.example", "carol@c.example"}

	for way, mta := range ways {
		send(mta, "Unknown by "+way, append([]string{"nobody@a.example", "nobody@b.example"}, both...)...)
		for _, user := range []string{"nobody@a.example", "nobody@b.example"} {
			mta.logged(t, "to=<"+user+">", "status=bounced", "550")
		}
	}
	once(t, ways, known, "Unknown by ")
	for _, mta := range ways { // which tells the sender, by the same way
		mta.logged(t, "from=<>")
		mta.loggedTimes(t, 2, "to=<alice@a.example>", "status=sent")
	}
	if n := stores.dovecot.found(t, "alice@a.example", "INBOX", "Undelivered Mail"); n != 2 {
		t.Errorf("alice was told %d times that her mail was not delivered", n)
	}

	stores.cyrus.fail(t)
	for way, mta := range ways {
		send(mta, "Later by "+way, both...)
		for _, user := range both[1:] {
			mta.logged(t, "to=<"+user+">", "status=deferred", "451")
		}
		mta.loggedTimes(t, 3, "to=<alice@a.example>", "status=sent")
	}
	stores.cyrus.restart()
	once(t, ways, known, "Later by ")
}

// once wants everybody to get a message by each way once, and nothing to be left.
func once(t testing.TB, ways map[string]*store, users map[string]*store, subject string) {
	t.Helper()
	for way, mta := range ways {
		forgotten := time.Now().Add(5 * time.Second)
		eventually(t, "the queue is empty", func() bool {
			// A queue manager that finds a message still held by its last delivery leaves it for its next start.
			if time.Now().After(forgotten) {
				mta.signal(syscall.SIGHUP)
				forgotten = time.Now().Add(5 * time.Second)
			}
			return mta.count("(queue active)") > 0 && mta.count(": removed") == mta.count("cleanup[", "message-id=")
		})
		for user, s := range users {
			if n := s.found(t, user, "INBOX", subject+way); n != 1 {
				t.Errorf("%s has got %q %d times", user, subject+way, n)
			}
		}
	}
}
