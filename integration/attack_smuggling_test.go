package integration

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// ends are what some server has taken for the end of a message (CVE-2023-51764 and its sisters), and what looks like it.
var ends = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r.\n", "\n.\r", "\n\n.\r\n", "\r\n\x00.\r\n", "\r\n.\x00\r\n",
	"\r\n.\r\r\n", "\r\n.\r\x00\n", "\n.\n\n",
}

// smuggled is a message of the attacker's own, behind what is to be the end of another.
const smuggled = "MAIL FROM:<smuggled@elsewhere.example>\r\n" +
	"RCPT TO:<alice@a.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nHello.\r\n"

// subjects are those of the messages that somebody has at a store, in the order in which they came.
func (s *store) subjects(t testing.TB, user string) []string {
	t.Helper()
	d := dial(t, s.imap())
	d.expect("* OK ")
	d.ask("LOGIN " + user + " " + password)
	d.ask("SELECT INBOX")
	var all []string
	for line := range strings.Lines(d.ask("UID FETCH 1:* BODY.PEEK[HEADER.FIELDS (SUBJECT)]")) {
		if subject, ok := strings.CutPrefix(line, "Subject: "); ok {
			all = append(all, strings.TrimRight(subject, "\r\n"))
		}
	}
	return all
}

// TestSmuggling: nothing but CR LF . CR LF ends a message, wherever the attacker's octets are cut in two. A message in which a
// store could see another end goes to nobody.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example")
	cyrus := startCyrus(t, "store2", "bob@b.example")
	box1, tap1 := dovecot.serving("lmtp").tapped(t)
	box2, tap2 := cyrus.serving("lmtp").tapped(t)
	jd := startJackdaw(t, box1.backend(), domainTo("a.example", box1),
		box2.backend(fmt.Sprintf("login_user = %q\nlogin_password = %q\n", lmtpUser, proxyPassword)), domainTo("b.example", box2))
	to := []string{"alice@a.example", "bob@b.example"}
	begin := func(d *dialog) {
		for _, line := range []string{"MAIL FROM:<somebody@elsewhere.example>", "RCPT TO:<" + to[0] + ">", "RCPT TO:<" + to[1] + ">"} {
			if answer := d.smtp(line); !strings.HasPrefix(answer, "250 ") {
				t.Fatal(answer)
			}
		}
		d.send("DATA")
		d.expect("354 ")
	}
	come := func() *dialog {
		d := jd.knock(t, client{service: "lmtp"})
		d.greeting()
		d.hello("")
		return d
	}
	for _, end := range ends {
		d := come()
		message := "Subject: carrier\r\n\r\nHello." + end + smuggled
		from := strings.Index(message, end)
		for cut := from - 1; cut <= from+len(end)+1; cut++ {
			begin(d)
			d.write(message[:cut])
			d.write(message[cut:] + "\r\n.\r\n")
			for range to {
				if answer := d.reply(); !strings.HasPrefix(answer, "550 5.6.0 ") {
					t.Errorf("%q, cut at %d: %s", end, cut-from, answer)
				}
			}
		}
		if answer := d.smtp("NOOP"); !strings.HasPrefix(answer, "250 ") { // and no answer is left over
			t.Fatalf("%q: %s", end, answer)
		}
	}

	// Dots are as they were, and what is no end goes on.
	d := come()
	begin(d)
	d.write("Subject: honest\r\n\r\n..\r\n...\r\n..x\r\nx.\r\n.. \r\n" + strings.Repeat("x", 2000) + "\xff\r\n")
	d.write(".")
	d.write("\r")
	d.write("\nNOOP\r\n")
	for range to {
		if answer := d.reply(); !strings.HasPrefix(answer, "250 ") {
			t.Error(answer)
		}
	}
	if answer := d.reply(); !strings.HasPrefix(answer, "250 ") {
		t.Error(answer)
	}
	for i, s := range []*store{dovecot, cyrus} {
		if got := s.subjects(t, to[i]); !slices.Equal(got, []string{"honest"}) {
			t.Errorf("%s has %q", to[i], got)
		}
	}
	for _, tap := range []*tap{tap1, tap2} {
		told := tap.told("lmtp")
		if strings.Contains(told, "smuggled") {
			t.Errorf("a store was told %q", told)
		}
		if !strings.Contains(told, "\r\n\r\n..\r\n...\r\n..x\r\nx.\r\n.. \r\n") {
			t.Error("dots are others")
		}
	}
}

// TestChunks: octets that come by BDAT are no lines, and go on as they are.
func TestChunks(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example")
	box, tap := dovecot.serving("lmtp").tapped(t)
	jd := startJackdaw(t, box.backend())
	jd.knows(box)
	for i, end := range ends {
		d := jd.knock(t, client{service: "lmtp"})
		d.greeting()
		if offer := d.hello(""); !strings.Contains(offer, "CHUNKING") {
			t.Fatal(offer)
		}
		d.smtp("MAIL FROM:<somebody@elsewhere.example>")
		d.smtp("RCPT TO:<alice@a.example>")
		message := fmt.Sprintf("Subject: chunk %d\r\n\r\nHello.", i) + end + smuggled
		for _, chunk := range []string{message[:len(message)/2], message[len(message)/2:]} {
			d.write(fmt.Sprintf("BDAT %d\r\n%s", len(chunk), chunk))
			d.expect("250 ")
		}
		if answer := d.smtp("BDAT 0 LAST"); !strings.HasPrefix(answer, "250 ") {
			t.Errorf("%q: %s", end, answer)
		}
		if told := tap.told("lmtp"); !strings.Contains(told, message[len(message)/2:]) {
			t.Errorf("%q: the store was told %q", end, told)
		}
	}
	if got := dovecot.subjects(t, "alice@a.example"); len(got) != len(ends) || slices.Contains(got, "smuggled") {
		t.Errorf("alice has %q", got)
	}
}

// TestSubmissionIsTransparent: what a client and its store say to each other after the login passes as it is, so that nothing
// is an end of a message, or a command, for one and not for the other by jackdaw's doing.
func TestSubmissionIsTransparent(t *testing.T) {
	t.Parallel()
	sink := postfix{}.start(t, "sink")
	dovecot := dovecot{relay: sink}.start(t, "store1", "alice@a.example", "alice@b.example")
	mta := postfix{sasl: dovecotSASL(dovecot), extra: "smtpd_hard_error_limit = 1000\n"}.start(t, "mta")
	boxes := map[string]*tap{}
	box1, tap1 := dovecot.serving("submission").tapped(t)
	box2, tap2 := mta.tapped(t)
	boxes["alice@a.example"], boxes["alice@b.example"] = tap1, tap2
	jd := frontend{listen: inClear}.start(t, box1.backend(), domainTo("a.example", box1),
		box2.backend(), domainTo("b.example", box2))
	jd.knows(box1, box2)
	octets := make([]byte, 200<<10)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(octets)
	for user, tap := range boxes {
		begin := "MAIL FROM:<" + user + ">\r\nRCPT TO:<somebody@elsewhere.example>\r\n"
		var texts []string
		for _, end := range ends {
			texts = append(texts, begin+"DATA\r\nSubject: carrier\r\n\r\nHello."+end+smuggled+".\r\n")
		}
		texts = append(texts,
			begin+fmt.Sprintf("BDAT %d LAST\r\n%s", len(octets), octets),
			begin+"DATA\r\n..\r\n...\r\nSTARTTLS\r\n\xff\xfe"+strings.Repeat("x", 10000)+"\r\n.\r\n",
			"XCLIENT ADDR=192.0.2.1\nNOOP\rRSET\r\n\x00\r\nSTARTTL\r\n"+begin+"RSET\r\n",
		)
		for _, text := range texts {
			d := jd.knock(t, client{service: "submission"})
			d.greeting()
			d.hello("")
			d.wants(letIn, d.plain(user, password))
			text += "QUIT\r\n"
			d.write(text)
			heard := d.ended()
			passed := slices.ContainsFunc(tap.heard("submission"), func(c call) bool {
				return strings.HasSuffix(string(c.up), encode("\x00"+user+"\x00"+password)+"\r\n"+text) &&
					strings.HasSuffix(string(c.down), "\r\n"+heard)
			})
			if !passed {
				t.Errorf("%s: %.300q does not pass", user, text)
			}
		}
	}
}
