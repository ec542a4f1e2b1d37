package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"jackdaw/internal/devca"
)

// TestExternalPrograms: curl logs in by a certificate and without a password, and sends.
func TestExternalPrograms(t *testing.T) {
	t.Parallel()
	accounts := startDovecot(t, "accounts", passwords, "alice@a.example", "carol@c.example")
	cyrus := startCyrus(t, "cyrus", "carol@c.example")
	mta := postfix{sasl: dovecotSASL(accounts)}.start(t, "mta")
	people := newIssuers(t)
	jd := frontend{tls: people.clientCA()}.start(t,
		accounts.serving("imap", "pop3", "sieve").backend(onWord("master"), onWordAt(mta, "submission", "authzid")),
		cyrus.serving("imap", "pop3", "sieve").backend(onWord("authzid"), onWordAt(mta, "submission", "xclient")),
		domainTo("a.example", accounts), domainTo("c.example", cyrus))
	dir := t.TempDir()
	for user, s := range map[string]*store{"alice@a.example": accounts, "carol@c.example": cyrus} {
		leaf, err := people.Issue(devca.Options{Emails: []string{user}})
		if err == nil {
			err = leaf.Write(dir, user)
		}
		if err != nil {
			t.Fatal(err)
		}
		by := func(service string, args ...string) string {
			file := filepath.Join(dir, user)
			return jd.curlBy(t, service, "mail.a.example", "", append(args, "--cert", file+".crt", "--key", file+".key",
				"--user", user+":", "--login-options", "AUTH=EXTERNAL")...)
		}
		for _, service := range []string{"imap", "imaps"} {
			if folders := by(service); !strings.Contains(folders, s.folder()) {
				t.Errorf("by %s %s has %q", service, user, folders)
			}
		}
		by("pop3")
		by("pop3s")
		for _, service := range []string{"submission", "submissions"} {
			subject := service + " of " + user
			by(service, "--mail-from", user, "--mail-rcpt", "zoe@z.example", "--upload-file", mailFile(t, subject))
			mta.received(t, "Subject: "+subject)
			mta.logged(t, ": client=", "sasl_username="+user)
		}
	}
}

// TestExternalXCLIENT: Postfix, which needs no proof, takes none from the client either: it is who the certificate says, and
// where it is.
func TestExternalXCLIENT(t *testing.T) {
	t.Parallel()
	mta := postfix{sasl: dovecotSASL(startDovecot(t, "accounts", passwords))}.start(t, "mta")
	people := newIssuers(t)
	jd := frontend{tls: people.clientCA(), v6: true}.start(t,
		mta.named("mta").backend(onWordAt(mta, "submission", "xclient")))
	for address, here := range map[string]client{
		"::1":     {v6: true},
		"unknown": {}, // at 127.0.0.1, of which Postfix itself takes XCLIENT
	} {
		here.cert = people.cert("alice@a.example")
		d := jd.meet(t, here.at("submission", "mail.a.example"))
		d.wants(denied, d.auth("EXTERNAL", "bob@a.example"))
		d.wants(denied, d.auth("EXTERNAL", "bob@a.example LOGIN=bob@a.example"))
		d.wants(letIn, d.auth("EXTERNAL", ""))
		if got := d.forge(); isPositive(got) {
			t.Errorf("to %q alice hears %q", forgery["submission"], got)
		}
		d.submit("From "+address, "alice@a.example", "zoe@z.example")
		mta.logged(t, ": client=unknown["+address+"], sasl_method=XCLIENT, sasl_username=alice@a.example")
	}
}
