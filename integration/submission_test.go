package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// outlet is a way out for a user's mail.
type outlet struct {
	user  string
	store *store // where the user logs in
	sink  *store // where all mail ends
}

// startOutlets runs a jackdaw with all ways out: a Postfix that asks Dovecot about passwords, in the clear, behind STARTTLS and
// within TLS; one that asks saslauthd; and a Dovecot that hands on to a Postfix.
func startOutlets(t testing.TB) (*jackdaw, []outlet) {
	t.Helper()
	everybody := []string{"alice@a.example", "bob@b.example", "carol@c.example", "dave@d.example", "erin@e.example"}
	sink := postfix{}.start(t, "sink")
	byDovecot := dovecot{relay: sink}.start(t, "dovecot", everybody...).serving("submission")
	clear := postfix{sasl: dovecotSASL(byDovecot)}.start(t, "clear")
	behind, within := clear.named("behind", "submission"), clear.named("within")
	bySaslauthd := postfix{sasl: cyrusSASL}.start(t, "saslauthd")
	startSaslauthd(t, byDovecot, bySaslauthd.dir)
	jd := startJackdaw(t,
		clear.backend(), domainTo("a.example", clear),
		behind.backend(behind.within("starttls")), domainTo("b.example", behind),
		within.backend(within.within("implicit"), fmt.Sprintf("submission = %q", within.at(portSubmissions))),
		domainTo("c.example", within),
		bySaslauthd.backend(), domainTo("d.example", bySaslauthd),
		byDovecot.backend(), domainTo("e.example", byDovecot))
	outlets := []outlet{
		{everybody[0], clear, clear}, {everybody[1], behind, clear}, {everybody[2], within, clear},
		{everybody[3], bySaslauthd, bySaslauthd}, {everybody[4], byDovecot, sink},
	}
	for _, out := range outlets { // before that, more may be promised than all can do
		jd.logged(t, "learned capabilities", fmt.Sprintf(`"backend":%q`, out.store.name))
	}
	return jd, outlets
}

// TestSubmission: who knows the password sends mail by any of the ways, and what arrives is what was sent, once.
func TestSubmission(t *testing.T) {
	t.Parallel()
	jd, outlets := startOutlets(t)
	for _, out := range outlets {
		t.Run(out.store.name, func(t *testing.T) {
			t.Parallel()
			here := client{from: newHost()}.at("submissions", "mail.a.example")
			d := jd.meet(t, here)
			d.wants(denied, d.plain(out.user, "wrong"))
			d.wants(letIn, d.plain(out.user, password))
			if can := d.hello(""); strings.Contains(can, "STARTTLS") {
				t.Errorf("within TLS it is offered once more: %s", can)
			}

			byData := octets("By DATA " + out.user)
			for _, line := range []string{"MAIL FROM:<" + out.user + "> BODY=8BITMIME", "RCPT TO:<zoe@z.example>"} {
				d.positive(d.smtp(line))
			}
			if got := d.smtp("DATA"); !strings.HasPrefix(got, "354 ") {
				t.Fatal(got)
			}
			d.write(strings.ReplaceAll("\r\n"+byData, "\r\n.", "\r\n..")[2:])
			d.positive(d.smtp("."))
			out.sink.receivedOnce(t, "By DATA "+out.user, byData)

			byChunks := octets("By BDAT " + out.user)
			for _, line := range []string{"MAIL FROM:<" + out.user + "> BODY=8BITMIME", "RCPT TO:<zoe@z.example>"} {
				d.positive(d.smtp(line))
			}
			for len(byChunks) > 0 {
				part, last := byChunks[:min(len(byChunks), 500_001)], ""
				if byChunks = byChunks[len(part):]; byChunks == "" {
					last = " LAST"
				}
				d.send(fmt.Sprintf("BDAT %d%s", len(part), last))
				d.write(part)
				d.positive(d.reply())
			}
			out.sink.receivedOnce(t, "By BDAT "+out.user, octets("By BDAT "+out.user))

			d.positive(d.smtp("QUIT"))
		})
	}
}

// TestSubmissionPipelined: a client that does not wait for the answer to its login loses nothing, and sends nothing if it is
// refused.
func TestSubmissionPipelined(t *testing.T) {
	t.Parallel()
	jd, outlets := startOutlets(t)
	for _, out := range outlets {
		for _, known := range []string{password, "wrong"} {
			d := jd.meet(t, client{}.at("submission", "mail.a.example"))
			d.write("NOOP\r\nAUTH PLAIN " + plain(out.user, known) + "\r\n" +
				"MAIL FROM:<" + out.user + ">\r\nRCPT TO:<zoe@z.example>\r\nDATA\r\n")
			d.positive(d.reply())
			answer := d.reply()
			if known == "wrong" {
				d.wants(denied, answer)
				for range 3 {
					if got := d.reply(); !strings.HasPrefix(got, "530 5.7.0 ") {
						t.Errorf("%s, who is not logged in, hears %q", out.user, got)
					}
				}
				continue
			}
			d.wants(letIn, answer)
			d.positive(d.reply())
			d.positive(d.reply())
			if got := d.reply(); !strings.HasPrefix(got, "354 ") {
				t.Fatalf("%s hears %q", out.user, got)
			}
			d.positive(d.smtp("Subject: Pipelined by " + out.user + "\r\n\r\nHello.\r\n."))
			out.sink.receivedOnce(t, "Pipelined by "+out.user, "\r\n\r\nHello.\r\n")
		}
	}
}

// TestSubmissionPromise: a store that can do less than clients were told takes nobody in who was told so, and the next one
// hears the truth.
func TestSubmissionPromise(t *testing.T) {
	t.Parallel()
	accounts := startDovecot(t, "accounts", passwords, "alice@a.example")
	mta := postfix{sasl: dovecotSASL(accounts)}.start(t, "mta")
	jd := startJackdaw(t, mta.backend(`health = "off"`))                        // a look might find Postfix down, or learn what is new
	jd.enter(t, client{}.at("submission", "mail.a.example"), "alice@a.example") // Postfix is known by now, and trusted
	d := jd.meet(t, client{}.at("submission", "mail.a.example"))
	if can := d.hello(""); !strings.Contains(can, "-CHUNKING\n") || !strings.Contains(can, "-SIZE 10240000\n") {
		t.Fatalf("with all of Postfix's extensions there are %s", can)
	}

	mta.fail(t)
	config := filepath.Join(mta.dir, "conf/main.cf")
	write(t, config, contents(t, config)+"smtpd_discard_ehlo_keywords = chunking, dsn\nmessage_size_limit = 1000000\n")
	mta.restart()

	d.wants(comeAgain, d.plain("alice@a.example", password))
	jd.logged(t, `"level":"warn"`, "store can do less than clients were promised", `"backend":"mta"`)
	next := jd.meet(t, client{}.at("submission", "mail.a.example"))
	can := next.hello("")
	if strings.Contains(can, "CHUNKING") || strings.Contains(can, "DSN") || !strings.Contains(can, "-SIZE 1000000\n") {
		t.Errorf("without CHUNKING and DSN there are %s", can)
	}
	next.wants(letIn, next.plain("alice@a.example", password))
	next.submit("With less", "alice@a.example", "zoe@z.example")
	mta.received(t, "Subject: With less")
}

// TestSubmissionNeedsLogin: no command leads to a store before the login, in the clear or within TLS.
func TestSubmissionNeedsLogin(t *testing.T) {
	t.Parallel()
	accounts := startDovecot(t, "accounts", passwords, "alice@a.example")
	mta := postfix{sasl: dovecotSASL(accounts)}.start(t, "mta")
	jd := startJackdaw(t, mta.backend())
	here := client{from: newHost()}
	clear := jd.knock(t, here.at("submission", "mail.a.example"))
	clear.greeting()
	clear.hello("")
	if got := clear.smtp("AUTH PLAIN " + plain("alice@a.example", password)); !strings.HasPrefix(got, "530 5.7.0 ") {
		t.Errorf("to AUTH in the clear a client hears %q", got)
	}
	within := jd.meet(t, here.at("submissions", "mail.a.example"))
	within.wants(denied, within.plain("alice@a.example", "wrong"))
	for _, d := range []*dialog{clear, within} {
		for _, command := range []string{"MAIL FROM:<alice@a.example>", "RCPT TO:<zoe@z.example>", "DATA", "ETRN a.example"} {
			if got := d.smtp(command); !strings.HasPrefix(got, "530 5.7.0 ") {
				t.Errorf("to %s a client hears %q", command, got)
			}
		}
		d.send("BDAT 60 LAST\r\nMAIL FROM:<alice@a.example>\r\nRCPT TO:<zoe@z.example>\r\nDATA")
		if got := d.ended(); !strings.HasPrefix(got, "421 ") || strings.Count(got, "\n") > 1 {
			t.Errorf("to BDAT a client hears %q", got)
		}
	}
	jd.enter(t, here.at("submission", "mail.a.example"), "alice@a.example").submit("Hello", "alice@a.example", "zoe@z.example")
	mta.received(t, "Subject: Hello")
	if n := mta.count(": client="); n != 1 {
		t.Errorf("Postfix took %d messages:\n%s", n, mta.Log())
	}
}

// octets is a message of more than a megabyte with everything in it that a proxy could get wrong.
func octets(subject string) string {
	lines := []string{
		"Subject: " + subject, "", ".", "..", ".hidden", "", ".", "...", "no blank at the end", "a blank at the end ",
		"\tin 8 bits: \xe4\xf6\xfc \xff\x80", strings.Repeat("x", 998), "QUIT", "RSET", "DATA", "250 ok", "XCLIENT LOGIN=x", "",
	}
	for n := range 20_000 {
		lines = append(lines, strings.Repeat(".", n%4)+strings.Repeat(fmt.Sprintf("%08d", n), 7))
	}
	return strings.Join(append(lines, ".", "", "."), "\r\n") + "\r\n"
}

// positive wants an answer of SMTP to be good.
func (d *dialog) positive(answer string) {
	d.t.Helper()
	if !strings.HasPrefix(answer, "2") {
		d.t.Fatal(answer)
	}
}

// receivedOnce wants a message to have arrived once, with the text that was sent, to whose header Postfix adds.
func (s *store) receivedOnce(t testing.TB, subject, text string) {
	t.Helper()
	got := s.received(t, "Subject: "+subject+"\n")
	_, got, _ = strings.Cut(got, "\n\n")
	_, text, _ = strings.Cut(strings.ReplaceAll(text, "\r\n", "\n"), "\n\n")
	if got != text {
		t.Errorf("%q arrives as %d octets other than the %d that were sent", subject, len(got), len(text))
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "mail/all/new/*"))
	if err != nil {
		t.Fatal(err)
	}
	times := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "Subject: "+subject+"\n") {
			times++
		}
	}
	if times != 1 {
		t.Errorf("%q has arrived %d times", subject, times)
	}
}
