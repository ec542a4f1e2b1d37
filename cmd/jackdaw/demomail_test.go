package main

import (
	"crypto/tls"
	"io"
	"net"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"jackdaw/configs"
)

// testMail sends by submission, delivers by LMTP, and reads by IMAP and POP3.
func (d *demoRun) testMail(t *testing.T) {
	alice, bob := demoDomains[0], demoDomains[1]
	before := map[string][]string{alice.Local: d.subjects(t, alice), bob.Local: d.subjects(t, bob)}
	for _, service := range []configs.Service{configs.Submission, configs.Submissions} {
		client := d.submit(t, service, alice)
		if err := client.SendMail(alice.User(), []string{bob.User()}, demoMail("by "+string(service))); err != nil {
			t.Errorf("by %s: %v", service, err)
		}
	}
	d.deliver(t, "by LMTP", alice, bob)
	want := map[string][]string{
		alice.Local: append(before[alice.Local], "by LMTP"),
		bob.Local:   append(before[bob.Local], "by submission", "by submissions", "by LMTP"),
	}
	for _, domain := range demoDomains {
		if diff := cmp.Diff(want[domain.Local], d.subjects(t, domain)); diff != "" {
			t.Errorf("%s has by IMAP: %s", domain.Local, diff)
		}
		if diff := cmp.Diff(want[domain.Local], d.subjectsPOP3(t, domain)); diff != "" {
			t.Errorf("%s has by POP3: %s", domain.Local, diff)
		}
	}
}

func demoMail(subject string) io.Reader {
	return strings.NewReader("Subject: " + subject + "\r\n\r\n.\r\nHello!\r\n")
}

// submit logs in for submission.
func (d *demoRun) submit(t *testing.T, service configs.Service, domain demoDomain) *smtp.Client {
	t.Helper()
	dial := smtp.DialStartTLS
	if service.ImplicitTLS() {
		dial = smtp.DialTLS
	}
	client, err := dial(d.address[service], d.tls(domain))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if err := client.Auth(sasl.NewPlainClient("", domain.User(), domain.Password)); err != nil {
		t.Fatal(err)
	}
	return client
}

// deliver brings one message for several users by LMTP.
func (d *demoRun) deliver(t *testing.T, subject string, to ...demoDomain) {
	t.Helper()
	conn, err := net.Dial("tcp", d.address[configs.LMTP])
	if err != nil {
		t.Fatal(err)
	}
	client := smtp.NewClientLMTP(conn)
	defer client.Close()
	var users []string
	for _, domain := range to {
		users = append(users, domain.User())
	}
	if err := client.SendMail("sender@elsewhere.example", users, demoMail(subject)); err != nil {
		t.Errorf("by LMTP: %v", err)
	}
}

// subjects lists the messages of the INBOX as IMAP has them.
func (d *demoRun) subjects(t *testing.T, domain demoDomain) (all []string) {
	t.Helper()
	client, err := imapclient.DialTLS(d.address[configs.IMAPS], &imapclient.Options{TLSConfig: d.tls(domain)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Login(domain.User(), domain.Password).Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Select("INBOX", nil).Wait(); err != nil {
		t.Fatal(err)
	}
	var set imap.SeqSet
	set.AddRange(1, 0)
	messages, err := client.Fetch(set, &imap.FetchOptions{Envelope: true}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		all = append(all, m.Envelope.Subject)
	}
	return all
}

// maildrop is a POP3 connection that is logged in.
type maildrop struct{ *textproto.Conn }

func (d *demoRun) maildrop(t *testing.T, domain demoDomain) maildrop {
	t.Helper()
	conn, err := tls.Dial("tcp", d.address[configs.POP3S], d.tls(domain))
	if err != nil {
		t.Fatal(err)
	}
	c := maildrop{textproto.NewConn(conn)}
	t.Cleanup(func() { c.Close() })
	if _, err := c.ReadLine(); err != nil {
		t.Fatal(err)
	}
	c.said(t, "USER "+domain.Local)
	c.said(t, "PASS "+domain.Password)
	return c
}

// said returns the answer to a command that must be granted.
func (c maildrop) said(t *testing.T, command string) string {
	t.Helper()
	if err := c.PrintfLine("%s", command); err != nil {
		t.Fatal(err)
	}
	line, err := c.ReadLine()
	text, ok := strings.CutPrefix(line, "+OK")
	if err != nil || !ok {
		t.Fatalf("%q is answered with %q, %v", command, line, err)
	}
	return strings.TrimSpace(text)
}

// listed returns the lines of an answer.
func (c maildrop) listed(t *testing.T, command string) []string {
	t.Helper()
	c.said(t, command)
	lines, err := c.ReadDotLines()
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// subjectsPOP3 lists them as POP3 has them, by all commands that the store knows.
func (d *demoRun) subjectsPOP3(t *testing.T, domain demoDomain) (all []string) {
	t.Helper()
	c := d.maildrop(t, domain)
	uids, sizes := c.listed(t, "UIDL"), c.listed(t, "LIST")
	if count, _, _ := strings.Cut(c.said(t, "STAT"), " "); count != strconv.Itoa(len(sizes)) {
		t.Errorf("of %d messages STAT counts %s", len(sizes), count)
	}
	for i, size := range sizes {
		number := strconv.Itoa(i + 1)
		if c.said(t, "UIDL "+number) != uids[i] || c.said(t, "LIST "+number) != size {
			t.Errorf("message %s is listed in two ways", number)
		}
		message := c.listed(t, "RETR "+number)
		subject := message[slices.IndexFunc(message, func(line string) bool { return strings.HasPrefix(line, "Subject: ") })]
		all = append(all, strings.TrimPrefix(subject, "Subject: "))
		if end := message[len(message)-2:]; strings.HasPrefix(subject, "Subject: by ") && !slices.Equal(end, []string{".", "Hello!"}) {
			t.Errorf("message %s ends with %q", number, end)
		}
	}
	c.said(t, "DELE 1")
	c.said(t, "RSET")
	c.said(t, "QUIT")
	return all
}

// testRefusals: mail goes nowhere else, and what is deleted by POP3 is gone.
func (d *demoRun) testRefusals(t *testing.T) {
	alice := demoDomains[0]
	client := d.submit(t, configs.Submission, alice)
	if err := client.SendMail(alice.User(), []string{"carol@elsewhere.example"}, demoMail("away")); err == nil {
		t.Error("mail is taken for somewhere else")
	}
	before := d.subjects(t, alice)
	c := d.maildrop(t, alice)
	c.said(t, "DELE 1")
	c.said(t, "QUIT")
	if diff := cmp.Diff(before[1:], d.subjects(t, alice), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("behind a deletion: %s", diff)
	}
}
