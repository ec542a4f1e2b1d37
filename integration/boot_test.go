package integration

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"jackdaw/internal/devca"
)

// machine is a Debian of which the test is root and systemd the first process, with Dovecot and Postfix as their packages leave
// them. packaging/boot-test starts one, and runs the tests of this file in it, one after the other.
type machine struct {
	t     *testing.T
	roots *x509.CertPool
	born  time.Time // when the certificates were made
	store string    // the address for IMAP
}

const (
	bootName   = "mail.boot.example"
	bootUser   = "anna" // of the system
	bootIMAPS  = "127.0.0.1:993"
	bootFile   = "/etc/jackdaw/jackdaw.toml"
	bootPage   = "127.0.0.1:9930"
	bootCerts  = "/etc/jackdaw/certs"
	bootPeople = "/root/authority.pem" // the authority, for the tests after the first
)

// onPage has the status page, and what Prometheus reads, served.
const onPage = "admin.listen = \"" + bootPage + "\"\n"

// needMachine continues with what the tests before have left.
func needMachine(t *testing.T) *machine {
	t.Helper()
	if os.Getenv("JACKDAW_MACHINE") == "" {
		t.Skip("make boot-test starts a machine for this")
	}
	patience = 3 * time.Minute // a machine without hardware of its own is slow
	m := &machine{t: t, roots: x509.NewCertPool(), store: "127.0.0.1:143"}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the journal:\n%s", m.journal())
		}
	})
	if info, err := os.Stat(bootPeople); err == nil {
		m.born = info.ModTime()
		m.roots.AppendCertsFromPEM([]byte(contents(t, bootPeople)))
	}
	return m
}

// does runs a script, which must succeed, and returns what it says.
func (m *machine) does(script string, values ...any) string {
	m.t.Helper()
	script = fmt.Sprintf(script, values...)
	out, err := exec.Command("bash", "-o", "pipefail", "-ec", script).CombinedOutput()
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// fails runs a script, which must not succeed, and returns what it says.
func (m *machine) fails(script string) string {
	m.t.Helper()
	out, err := exec.Command("bash", "-c", script).CombinedOutput()
	if err == nil {
		m.t.Fatalf("%s succeeds, and says\n%s", script, out)
	}
	return string(out)
}

// journal is the end of what the service has said.
func (m *machine) journal() string {
	out, _ := exec.Command("journalctl", "-u", "jackdaw", "-n", "25", "--no-pager", "-o", "cat").CombinedOutput()
	return string(out)
}

// is is what systemd knows of the service.
func (m *machine) is(property string) string {
	m.t.Helper()
	return m.does("systemctl show --value --property=%s jackdaw.service", property)
}

// becomes waits until systemd knows something of the service.
func (m *machine) becomes(property, value string) {
	m.t.Helper()
	what := property + " is " + value
	for end := time.Now().Add(patience); m.is(property) != value; time.Sleep(time.Second) {
		if time.Now().After(end) {
			m.t.Fatalf("still not: %s, but %s; the journal:\n%s", what, m.is(property), m.journal())
		}
	}
}

// configure writes a configuration of three lines, and more.
func (m *machine) configure(more string) {
	m.t.Helper()
	must(m.t, os.WriteFile(bootFile, []byte(`listen.imaps = ":993"
tls.certificates = ["`+bootCerts+`"]
backend = [{ name = "store", imap = "`+m.store+`" }]
`+more), 0o640))
}

// connect begins a session. Only the name of the certificate is judged, not its time: the clock may be anywhere.
func (m *machine) connect() *dialog {
	m.t.Helper()
	d := dialTLS(m.t, bootIMAPS, &tls.Config{ServerName: bootName, RootCAs: m.roots, Time: func() time.Time { return m.born }})
	d.expect("* OK ")
	return d
}

// login is connect for anna.
func (m *machine) login() *dialog {
	m.t.Helper()
	d := m.connect()
	d.ask("LOGIN " + bootUser + " " + password)
	return d
}

// has wants a text to have words in it.
func (m *machine) has(text string, words ...string) {
	m.t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			m.t.Errorf("there is no %q in\n%s", word, text)
		}
	}
}

// TestBootInstall: the package, one certificate and a configuration of three lines.
func TestBootInstall(t *testing.T) {
	m := needMachine(t)
	m.does("useradd -m %s && echo %s:%s | chpasswd", bootUser, bootUser, password)
	m.has(m.does("dpkg -i /root/boot/1.0.0.deb"), "not started yet")
	m.does("systemctl is-enabled jackdaw")
	if state := m.is("ActiveState"); state != "inactive" {
		t.Errorf("without a certificate it is %s", state)
	}
	ca, err := devca.New()
	must(t, err)
	must(t, os.WriteFile(bootPeople, ca.PEM, 0o644))
	leaf, err := ca.Issue(devca.Options{Names: []string{bootName}})
	must(t, err)
	must(t, leaf.Write(bootCerts, bootName))
	m.configure("")
	said := m.fails("jackdaw check -c " + bootFile)
	m.has(said, bootName+".key: user jackdaw has no access; run chmod g+r ")
	m.does("chmod g+r %s/*.key && jackdaw check -c %s && systemctl start jackdaw", bootCerts, bootFile)

	m = needMachine(t)
	anna := m.login()
	m.does("jackdaw status && jackdaw where %s && jackdaw explain -c %s --service imaps --sni %s --user %[1]s", bootUser, bootFile, bootName)
	m.does("jackdaw kick --user %s", bootUser)
	anna.until("* BYE ")
	m.login().ask("NOOP")
}

// TestBootPage: a reload is waited for, and brings the status page and what Prometheus reads.
func TestBootPage(t *testing.T) {
	m := needMachine(t)
	anna := m.login()
	m.configure(onPage)
	m.does("systemctl reload jackdaw")
	m.has(m.does("curl -sf http://%s/", bootPage), "jackdaw", "store", bootUser)
	m.has(m.does("curl -sf http://%s/metrics", bootPage), "jackdaw_sessions", "jackdaw_build_info")
	m.does("curl -sf http://%s/readyz", bootPage)
	anna.ask("NOOP")
}

// TestBootHardening: systemd leaves the service little, and that is enough.
func TestBootHardening(t *testing.T) {
	m := needMachine(t)
	m.does("systemd-analyze security --no-pager --threshold=20 jackdaw.service")
	status := contents(t, "/proc/"+m.is("MainPID")+"/status")
	m.has(status, "CapEff:\t0000000000000400\n", "CapBnd:\t0000000000000400\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n")
	m.has(m.does("stat -c '%%U %%G %%a' /run/jackdaw /run/jackdaw/admin.sock /var/lib/jackdaw %s", bootCerts),
		"jackdaw jackdaw 750\njackdaw jackdaw 660\njackdaw jackdaw 750\nroot jackdaw 2750")
	m.has(m.fails("setpriv --reuid=nobody --clear-groups jackdaw status"), "permission denied")
	m.does("setpriv --reuid=nobody --regid=jackdaw --clear-groups jackdaw status")

	m.does("jackdaw block 192.0.2.7 && grep 192.0.2.7 /var/lib/jackdaw/blocked.json && jackdaw unblock 192.0.2.7")
	m.does("install -o jackdaw -d /home/secret && install -D -o jackdaw /dev/null /srv/theirs/file")
	inside := "nsenter -t $(systemctl show --value -p MainPID jackdaw) -m -S $(id -u jackdaw) -- "
	m.fails(inside + "ls /home/secret")
	m.has(m.fails(inside+"touch /srv/theirs/file"), "Read-only file system")
}

// TestBootGroup: a key of the group ssl-cert is served after the service has joined it.
func TestBootGroup(t *testing.T) {
	m := needMachine(t)
	m.does("groupadd -f ssl-cert && mkdir -p /etc/ssl/theirs/private && cd /etc/ssl/theirs && cp %s/*.crt server.crt && cp %[1]s/*.key private/key"+
		" && chgrp -R ssl-cert private && chmod 710 private && chmod 640 private/key", bootCerts)
	m.configure("")
	m.does("sed -i 's|\\[\"%s\"\\]|[\"/etc/ssl/theirs/server.crt\", \"/etc/ssl/theirs/private/key\"]|' %s", bootCerts, bootFile)
	m.fails("jackdaw check -c " + bootFile)
	m.does("usermod -aG ssl-cert jackdaw && jackdaw check -c %s && systemctl restart jackdaw", bootFile)
	m.login().ask("NOOP")
	m.configure(onPage)
	m.does("systemctl reload jackdaw")
}

// TestBootPostfix: mail comes in by Postfix, out of its chroot, and goes by jackdaw to Dovecot.
func TestBootPostfix(t *testing.T) {
	m := needMachine(t)
	m.does("install -D -m 644 /usr/share/jackdaw/postfix.conf /etc/systemd/system/jackdaw.service.d/postfix.conf && systemctl daemon-reload")
	m.does("chmod 666 /run/dovecot/lmtp") // in place of Dovecot's own configuration
	m.configure(onPage)
	m.does(`sed -i 's|143"|143", lmtp = "unix:/run/dovecot/lmtp"|' %s && echo '%s' >>%[1]s`, bootFile,
		`listen.lmtp = { address = "unix:/var/spool/postfix/jackdaw/lmtp", mode = "0666" }`)
	m.does("jackdaw check -c %s && systemctl restart jackdaw && stat -c %%U:%%G:%%a /var/spool/postfix/jackdaw | grep jackdaw:postfix:710", bootFile)
	m.does("postconf -e local_transport=lmtp:unix:jackdaw/lmtp mydestination=guest.example && systemctl restart postfix")
	m.does("printf 'Subject: By jackdaw\\n\\nHello.\\n' | /usr/sbin/sendmail -f %s@guest.example %[1]s@guest.example", bootUser)
	anna := m.login()
	eventually(t, "the message has come", func() bool {
		anna.ask("SELECT INBOX")
		return strings.Contains(anna.ask(`SEARCH SUBJECT "By jackdaw"`), "* SEARCH 1")
	})
}

// TestBootBroken: what is wrong with a configuration is seen where people look, and sessions go on.
func TestBootBroken(t *testing.T) {
	m := needMachine(t)
	m.configure(onPage)
	m.does("systemctl reload jackdaw")
	anna := m.login()
	m.configure(onPage + "surplus = 1\n")
	m.fails("systemctl reload jackdaw")
	m.has(m.does("systemctl status --no-pager --full jackdaw || true"), "jackdaw.toml:5", "surplus", "active (running)")
	anna.ask("NOOP")
	m.fails("systemctl restart jackdaw")
	eventually(t, "the status says what is wrong", func() bool { // the journal may be behind
		return strings.Contains(m.does("systemctl status --no-pager --full jackdaw || true"), "jackdaw.toml:5: ")
	})
	m.configure(onPage)
	m.does("systemctl stop jackdaw; systemctl reset-failed jackdaw; systemctl start jackdaw")
	m.login().ask("NOOP")
}

// TestBootUpgrade: the main process changes, by a signal, a command and a newer package, and sessions go on; what systemd watches is
// the newest.
func TestBootUpgrade(t *testing.T) {
	m := needMachine(t)
	anna := m.login()
	started := m.is("ExecMainStartTimestamp")
	for _, script := range []string{
		"systemctl kill --kill-whom=main --signal=USR2 jackdaw || systemctl kill --kill-who=main --signal=USR2 jackdaw",
		"jackdaw upgrade",
		"apt-get install -y /root/boot/1.0.1.deb",
	} {
		before := m.is("MainPID")
		m.does("%s", script)
		eventually(t, "another process after "+script, func() bool { return m.is("MainPID") != before })
		m.becomes("ActiveState", "active")
		anna.ask("NOOP")
		m.login().ask("NOOP")
	}
	m.has(m.does("jackdaw status"), "1.0.1")
	if now := m.is("NRestarts"); now != "0" {
		t.Errorf("%s restarts, since %s", now, started)
	}
	time.Sleep(40 * time.Second) // WatchdogSec is 30 seconds
	anna.ask("NOOP")
	m.does("systemctl reload jackdaw")
	if now := m.is("NRestarts"); now != "0" {
		t.Errorf("the watchdog is not content; the journal:\n%s", m.journal())
	}
}

// TestBootWatchdog: a process that hangs is replaced.
func TestBootWatchdog(t *testing.T) {
	m := needMachine(t)
	pid := number(t, m.is("MainPID"))
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	m.becomes("NRestarts", "1")
	m.becomes("ActiveState", "active")
	m.login().ask("NOOP")
	m.has(m.does("journalctl -u jackdaw -o cat --no-pager"), "Watchdog timeout")
}

// TestBootStop: whoever asks hears first that it is going to stop; the doors close after stop_delay, and the sessions end.
func TestBootStop(t *testing.T) {
	m := needMachine(t)
	m.configure(onPage + "limits = { stop_delay = \"30s\", stop_timeout = \"20s\" }\n")
	m.does("systemctl reload jackdaw && jackdaw upgrade && sleep 5") // alone, and no child of systemd's
	anna := m.login()
	began := time.Now()
	m.does("systemctl stop --no-block jackdaw")
	m.becomes("ActiveState", "deactivating")
	eventually(t, "it is not ready", func() bool {
		return strings.Contains(m.does("curl -s -o /dev/null -w '%%{http_code}' http://%s/readyz || true", bootPage), "503")
	})
	m.login().ask("NOOP") // the doors are open yet
	anna.until("* BYE ")
	if took := time.Since(began); took < 30*time.Second {
		t.Errorf("sessions are ended after %v, before stop_delay", took)
	}
	m.becomes("ActiveState", "inactive")
	if result := m.is("Result"); result != "success" {
		t.Errorf("the stop is a %s; the journal:\n%s", result, m.journal())
	}
	m.configure(onPage)
	m.does("systemctl start jackdaw")
}

// TestBootSocket: systemd listens, and jackdaw comes with the first client; an upgrade hands the sockets on.
func TestBootSocket(t *testing.T) {
	m := needMachine(t)
	m.does("systemctl stop jackdaw && systemctl start jackdaw.socket")
	if state := m.is("ActiveState"); state != "inactive" {
		t.Errorf("before the first client it is %s", state)
	}
	anna := m.login()
	m.does("jackdaw upgrade")
	anna.ask("NOOP")
	m.login().ask("NOOP")
	m.does("systemctl restart jackdaw.service")
	m.login().ask("NOOP")
	m.does("systemctl stop jackdaw.socket jackdaw.service && systemctl start jackdaw.service")
}

// TestBootAppArmor: nothing that the tests before have done is against the profile, and so it can be enforced.
func TestBootAppArmor(t *testing.T) {
	m := needMachine(t)
	if _, err := os.Stat("/sys/kernel/security/apparmor/profiles"); err != nil {
		t.Skip("the kernel has no AppArmor")
	}
	m.has(m.does("cat /proc/%s/attr/current", m.is("MainPID")), "jackdaw (complain)")
	const against = `journalctl --no-pager -o cat -k _TRANSPORT=audit + _TRANSPORT=kernel | grep 'profile="jackdaw"' | grep -E 'ALLOWED|DENIED' || true`
	if said := m.does(against); said != "" {
		t.Errorf("the profile does not allow\n%s", said)
	}
	m.does("aa-enforce jackdaw && systemctl restart jackdaw")
	m.has(m.does("cat /proc/%s/attr/current", m.is("MainPID")), "jackdaw (enforce)")
	var anna *dialog
	eventually(t, "anna is in", func() bool { // on such a machine Dovecot may refuse what it is tested with too slowly for the first
		anna = m.connect()
		_, status := anna.command("LOGIN " + bootUser + " " + password)
		return strings.HasPrefix(status, "OK ")
	})
	m.does("systemctl reload jackdaw && jackdaw upgrade && jackdaw block 192.0.2.7 && jackdaw unblock 192.0.2.7")
	m.has(m.does("curl -sf http://%s/metrics", bootPage), "jackdaw_sessions")
	anna.ask("NOOP")
	m.login().ask("NOOP")
	if said := m.does(against); said != "" {
		t.Errorf("enforced, the profile does not allow\n%s", said)
	}
}

// TestBootAgain: the machine has been started anew, and the service has come by itself.
func TestBootAgain(t *testing.T) {
	m := needMachine(t)
	m.becomes("ActiveState", "active")
	m.login().ask("NOOP")
	m.has(m.does("curl -sf http://%s/", bootPage), "jackdaw")
}

// TestBootPurge: a removal stops the service, and a purge leaves what belongs to others.
func TestBootPurge(t *testing.T) {
	m := needMachine(t)
	anna := m.login()
	pid := m.is("MainPID")
	removed := make(chan string)
	go func() {
		out, err := exec.Command("apt-get", "remove", "-y", "jackdaw").CombinedOutput()
		removed <- fmt.Sprintf("%s%v", out, err)
	}()
	anna.until("* BYE ")
	m.has(<-removed, "<nil>")
	if _, err := os.Stat("/proc/" + pid); err == nil {
		t.Error("the process is still there")
	}
	m.does("test -e %s && apt-get purge -y jackdaw", bootFile)
	m.does("test -e %s/%s.key && ! test -e %s && ! test -e /var/lib/jackdaw && ! systemctl cat jackdaw.service", bootCerts, bootName, bootFile)
}
