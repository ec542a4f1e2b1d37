package integration

import (
	"crypto/tls"
	"os"
	"strings"
	"testing"
	"time"

	"jackdaw/internal/devca"
)

// turn sets the clock, by what date understands, and says how things were when it was.
func (m *machine) turn(to string) {
	m.t.Helper()
	m.does("date -s '%s'", to)
}

// tolerant puts a store of the test's own in the place of Dovecot, which lets nobody in for three minutes when the clock goes back.
func (m *machine) tolerant() {
	m.t.Helper()
	m.store = quickStore(m.t)
	m.configure(onPage)
	m.does("systemctl reload jackdaw")
	m.t.Cleanup(func() {
		m.store = "127.0.0.1:143"
		m.configure(onPage)
		m.does("systemctl reload jackdaw")
	})
}

// tries is how a login is answered.
func (m *machine) tries() string {
	m.t.Helper()
	d := m.connect()
	defer d.conn.Close()
	_, status := d.command("LOGIN " + bootUser + " " + password)
	return status
}

// presented is the serial number of the certificate that a client is shown.
func (m *machine) presented() string {
	m.t.Helper()
	d := dialTLS(m.t, bootIMAPS, &tls.Config{ServerName: bootName, InsecureSkipVerify: true})
	return d.conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// TestBootClock: somebody turns the clock, by hours and by years, to and fro, while everything is at work. Sessions go on, the next
// login works at once, and nothing lasts longer than it was to.
func TestBootClock(t *testing.T) {
	m := needMachine(t)
	m.tolerant()
	anna, before := m.login(), m.is("NRestarts")
	for _, to := range []string{"+3 hours", "-6 hours", "+4 years", "-8 years", "+20 years", "-16 years", "+3 hours"} {
		m.turn(to)
		anna.ask("NOOP")
		m.login().ask("NOOP")
		m.does("jackdaw status && jackdaw sessions && curl -sf http://%s/metrics >/dev/null && curl -sf http://%[1]s/ >/dev/null", bootPage)
		m.does("systemctl reload jackdaw")
	}
	if restarts := m.is("NRestarts"); restarts != before {
		t.Errorf("%s restarts, and %s before; the journal:\n%s", restarts, before, m.journal())
	}
}

// TestBootClockBlock: a block that was made while the clock was years ahead does not last for years.
func TestBootClockBlock(t *testing.T) {
	m := needMachine(t)
	m.tolerant()
	for _, then := range []string{"true", "jackdaw upgrade", "systemctl restart jackdaw"} {
		m.turn("+3 years")
		m.does("jackdaw block %s --for 1m", bootUser)
		m.turn("-3 years")
		m.does("%s", then)
		if status := m.tries(); !strings.HasPrefix(status, "NO") {
			t.Errorf("after %q a blocked user hears %q", then, status)
		}
		eventually(t, "the block has ended, after "+then, func() bool { return strings.HasPrefix(m.tries(), "OK") })
	}
	m.turn("-3 years")
	m.does("jackdaw block %s --for 1h", bootUser)
	m.turn("+3 years")
	m.has(m.does("jackdaw block"), bootUser)
	m.does("jackdaw unblock %s", bootUser)
}

// TestBootClockCertificate: of two certificates for a name the one is served that is valid by the clock as it is now.
func TestBootClockCertificate(t *testing.T) {
	m := needMachine(t)
	m.tolerant()
	ca, err := devca.New()
	must(t, err)
	leaf, err := ca.Issue(devca.Options{Names: []string{bootName}, NotAfter: time.Now().AddDate(9, 0, 0)})
	must(t, err)
	first := m.presented()
	m.turn("+2 years")
	must(t, leaf.Write(bootCerts, "later"))
	must(t, os.Chmod(bootCerts+"/later.key", 0o640))
	eventually(t, "the one that is valid", func() bool { return m.presented() == leaf.TLS.Leaf.SerialNumber.String() })
	must(t, os.Remove(bootCerts+"/later.crt"))
	must(t, os.Remove(bootCerts+"/later.key"))
	eventually(t, "the only one", func() bool { return m.presented() == first })
	m.turn("-2 years")
	m.login().ask("NOOP")
}
