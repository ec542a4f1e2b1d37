package integration

import (
	"strings"
	"testing"
)

// TestReaders: programs that fetch mail get it from either kind of store, by every service for that and under two names.
func TestReaders(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example").serving("imap", "pop3")
	cyrus := startCyrus(t, "store2", "bob@b.example").serving("imap", "pop3")
	jd := startJackdaw(t, twoStores(dovecot, cyrus))
	for name, user := range users {
		jd.curl(t, name, user, "INBOX", "--upload-file", mailFile(t, "For "+user))
	}
	for _, program := range []struct {
		name     string
		run      func(t testing.TB, jd *jackdaw, service, name, user string) string
		services string
	}{
		{"fetchmail", fetchmail, "pop3 pop3s imap imaps"},
		{"getmail", getmail, "pop3s imaps"},
		{"python", pythonFetch, "pop3 pop3s imap imaps"},
	} {
		for service := range strings.FieldsSeq(program.services) {
			for name, user := range users {
				t.Run(program.name+" "+service+" "+name, func(t *testing.T) {
					t.Parallel()
					if mail := program.run(t, jd, service, name, user); !strings.Contains(mail, "Subject: For "+user) {
						t.Errorf("%s has %q", user, mail)
					}
					jd.logged(t, `"msg":"session"`, `"service":"`+service+`"`, `"sni":"`+name+`"`, `"user":"`+user+`"`)
				})
			}
		}
	}
}

// pythonFetch returns a user's mail by Python's libraries.
func pythonFetch(t testing.TB, jd *jackdaw, service, name, user string) string {
	t.Helper()
	return program{jd: jd}.python(t, t.TempDir(), password, "python3", "-c", pythonFetcher, service, name, ports()[service], user)
}

const pythonFetcher = `
import imaplib, os, poplib, ssl, sys
service, name, port, user = sys.argv[1:]
context = ssl.create_default_context(cafile=os.environ["CA"])
password = sys.stdin.read()
if service.startswith("pop3"):
    if service == "pop3s":
        box = poplib.POP3_SSL(name, int(port), context=context)
    else:
        box = poplib.POP3(name, int(port))
        assert "STLS" in box.capa() and "USER" not in box.capa(), box.capa()
        box.stls(context)
    assert "USER" in box.capa(), box.capa()
    try:
        box.user(user)
        box.pass_("wrong")
        raise AssertionError("let in")
    except poplib.error_proto as e:
        assert b"[AUTH]" in e.args[0], e
    box.user(user)
    box.pass_(password)
    for n in range(1, box.stat()[0] + 1):
        print(b"\n".join(box.retr(n)[1]).decode())
    box.quit()
else:
    if service == "imaps":
        box = imaplib.IMAP4_SSL(name, int(port), ssl_context=context)
    else:
        box = imaplib.IMAP4(name, int(port))
        assert "LOGINDISABLED" in box.capabilities, box.capabilities
        box.starttls(context)
    try:
        box.login(user, "wrong")
        raise AssertionError("let in")
    except imaplib.IMAP4.error as e:
        assert b"AUTHENTICATIONFAILED" in e.args[0], e
    box.login(user, password)
    print(box.select("INBOX"), box.fetch("1", "(BODY[])")[1][0][1].decode())
    box.logout()
`
