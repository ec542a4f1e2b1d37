package integration

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// mailing is one message that a program sends.
type mailing struct {
	program
	service, name string // where it is handed in
	user          string
	subject       string
}

// TestSenders: programs send mail by both services and under two names, from an address of their own, and that is where it
// comes from for Postfix.
func TestSenders(t *testing.T) {
	t.Parallel()
	accounts := startDovecot(t, "accounts", passwords, "alice@a.example", "bob@b.example").serving("imap")
	mta := postfix{sasl: dovecotSASL(accounts)}.start(t, "mta")
	jd := frontend{v6: true}.start(t, accounts.backend(mta.as("submission")))
	for _, sender := range []struct {
		name string
		send func(testing.TB, mailing)
		v6   bool
	}{
		{"swaks", swaks, false},
		{"swaks6", swaks, true},
		{"curl", curlSend, false},
		{"curl6", curlSend, true},
		{"python", pythonSend, false},
		{"python6", pythonSend, true},
	} {
		for _, service := range []string{"submission", "submissions"} {
			for name, user := range users {
				t.Run(sender.name+" "+service+" "+name, func(t *testing.T) {
					t.Parallel()
					m := mailing{program{jd: jd, v6: sender.v6}, service, name, user, sender.name + " " + service + " " + name}
					from := "IPv6:::1"
					if !sender.v6 {
						m.from = newHost()
						from = m.from
					}
					sender.send(t, m)
					mta.received(t, "Subject: "+m.subject+"\n", "from client.example (unknown ["+from+"])")
					mta.logged(t, "client=unknown["+strings.TrimPrefix(from, "IPv6:")+"], sasl_method=PLAIN, sasl_username="+user)
					jd.logged(t, `"msg":"login"`, `"service":"`+service+`"`, `"sni":"`+name+`"`, `"user":"`+user+`"`,
						`"client":"`+strings.TrimPrefix(from, "IPv6:")+`"`)
				})
			}
		}
	}
	for _, service := range []string{"submission", "submissions"} {
		t.Run("mutt "+service, func(t *testing.T) {
			t.Parallel()
			m := mailing{program{jd: jd}, service, jd.host, "bob@b.example", "mutt-" + service}
			mutt(t, m)
			mta.received(t, "Subject: "+m.subject+"\n", "To: carol@c.example")
			if sent := jd.curl(t, "mail.b.example", m.user, m.subject+";MAILINDEX=1"); !strings.Contains(sent, "Subject: "+m.subject) {
				t.Errorf("a copy was kept of %q", sent)
			}
		})
	}
}

// address is where the service is.
func (m mailing) address() (host, port string) {
	if m.v6 {
		return "::1", m.jd.ports6[m.service]
	}
	return m.jd.host, ports()[m.service]
}

func swaks(t testing.TB, m mailing) {
	t.Helper()
	host, port := m.address()
	args := []string{"--server", host, "--port", port, "--tls-verify", "--tls-ca-path", m.jd.caFile(), "--tls-sni", m.name,
		"--helo", "client.example", "--auth", "PLAIN", "--auth-user", m.user, "--auth-password", password,
		"--from", m.user, "--to", "carol@c.example", "--header", "Subject: " + m.subject}
	if implicit(m.service) {
		args = append(args, "--tls-on-connect")
	} else {
		args = append(args, "--tls", "--pipeline")
	}
	if m.from != "" {
		args = append(args, "--local-interface", m.from)
	}
	m.run(t, t.TempDir(), "", "swaks", args...)
}

func curlSend(t testing.TB, m mailing) {
	t.Helper()
	host, port := m.address()
	args := []string{"--cacert", m.jd.caFile(), "--ssl-reqd", "--connect-to", "::" + net.JoinHostPort(host, port),
		"--user", m.user + ":" + password, "--mail-from", m.user, "--mail-rcpt", "carol@c.example",
		"--upload-file", mailFile(t, m.subject), strings.Replace(m.service, "submission", "smtp", 1) + "://" + m.name + "/client.example"}
	if m.from != "" {
		args = append(args, "--interface", m.from)
	}
	curl(t, args...)
}

func pythonSend(t testing.TB, m mailing) {
	t.Helper()
	_, port := m.address()
	m.python(t, t.TempDir(), password, "python3", "-c", pythonSender, m.service, m.name, port, m.user, m.subject)
}

const pythonSender = `
import os, smtplib, ssl, sys
service, name, port, user, subject = sys.argv[1:]
context = ssl.create_default_context(cafile=os.environ["CA"])
password = sys.stdin.read()
if service == "submissions":
    relay = smtplib.SMTP_SSL(name, int(port), local_hostname="client.example", context=context)
else:
    relay = smtplib.SMTP(name, int(port), local_hostname="client.example")
    relay.ehlo()
    assert not relay.has_extn("auth"), relay.esmtp_features
    relay.starttls(context=context)
try:
    relay.login(user, "wrong")
    raise SystemExit("let in")
except smtplib.SMTPAuthenticationError as e:
    assert e.smtp_code == 535, e
relay.login(user, password)
refused = relay.sendmail(user, ["carol@c.example"], "Subject: %s\r\n\r\n.\r\n..\r\nHello.\r\n" % subject)
assert not refused, refused
relay.quit()
`

// mutt sends a message and keeps a copy at IMAP, in a mailbox that is called as the message. It knows jackdaw by address
// alone, and so cannot ask for a name.
func mutt(t testing.TB, m mailing) {
	t.Helper()
	home := t.TempDir()
	url := strings.Replace(m.service, "submission", "smtp", 1) + "://" + strings.Replace(m.user, "@", "%40", 1)
	host, port := m.address()
	keep(t, filepath.Join(home, "muttrc"), expand(muttrc, map[string]string{
		"smtp": url + "@" + net.JoinHostPort(host, port) + "/",
		"imap": "imaps://" + m.jd.at(portIMAPS) + "/" + m.subject,
		"ca":   m.jd.caFile(), "user": m.user, "password": password,
	}))
	m.run(t, home, "Hello.\n", "mutt", "-F", "muttrc", "-s", m.subject, "carol@c.example")
}

const muttrc = `
set smtp_url="$smtp" smtp_pass="$password" smtp_authenticators="plain" ssl_force_tls=yes ssl_starttls=yes
set imap_user="$user" imap_pass="$password" record="$imap" copy=yes confirmcreate=no
set certificate_file="$ca" ssl_verify_host=yes ssl_verify_dates=yes
set from="$user"
`
