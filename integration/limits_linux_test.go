package integration

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDescriptors: when all descriptors are used up, who is there goes on, and who comes waits; when there are some again he is served.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	store := startDovecot(t, "store1", passwords, "alice@a.example")
	jd := startJackdaw(t, store.backend())
	session := jd.login("mail.a.example", "alice@a.example")
	regrant := jd.grant(t, unix.RLIMIT_NOFILE, uint64(jd.descriptors(t))+2)
	waiting := make([]*dialog, 8)
	for i := range waiting {
		waiting[i] = dial(t, jd.at(portIMAPS))
	}
	jd.logged(t, "accepting failed", "too many open files")
	session.ask("NOOP")
	regrant()
	for i, d := range waiting {
		d.handshake(jd.tls("mail.a.example"))
		d.expect("* OK ")
		d.send(fmt.Sprintf("a%d LOGIN alice@a.example %s", i, password))
		d.until(fmt.Sprintf("a%d OK", i))
	}
	session.ask("NOOP")
}
