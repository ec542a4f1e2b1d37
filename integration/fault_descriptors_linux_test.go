package integration

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNoDescriptors: while the system gives no more of them, sessions go on, who comes waits, and a reload changes nothing. As soon
// as there are some again, those who waited and the next one are served: a store that could not be reached for want of a
// descriptor is as good as it was, and a certificate that could not be read is shown.
func TestNoDescriptors(t *testing.T) {
	t.Parallel()
	store := quickBackend("store", quickStore(t), quickly)
	jd := startJackdaw(t, store)
	jd.logged(t, "learned capabilities")
	var there []*dialog
	for range 20 {
		there = append(there, jd.login("mail.a.example", "alice@a.example"))
	}
	regrant := jd.grant(t, unix.RLIMIT_NOFILE, uint64(jd.descriptors(t)))
	var waiting []*dialog
	for range 10 {
		waiting = append(waiting, dial(t, jd.at(portIMAPS)), dial(t, jd.at(portIMAP)))
	}
	jd.logged(t, "accepting failed", "too many open files")
	jd.reload(store)
	jd.logged(t, "reload failed", "too many open files")
	// The pauses between them double up to a second: meanwhile the store is looked at in vain, more than once.
	failures := jd.count("accepting failed")
	eventually(t, "the listeners have tried again and again", func() bool { return jd.count("accepting failed") >= failures+24 })
	for _, d := range there {
		d.ask("NOOP")
	}
	regrant()
	jd.served()
	for i, d := range waiting {
		if i%2 == 0 {
			d.handshake(jd.tls("mail.b.example"))
		}
		d.expect("* OK ")
	}
	jd.reload(store)
	jd.logged(t, `"msg":"reloaded"`)
}

// TestFewDescriptors: what fails for want of one that is almost there, the certificate of a name that nobody has asked for yet, or
// the way to the store, is well as soon as it is there.
func TestFewDescriptors(t *testing.T) {
	t.Parallel()
	for few := range 4 {
		t.Run(fmt.Sprint(few), func(t *testing.T) {
			t.Parallel()
			jd := startJackdaw(t, quickBackend("store", quickStore(t), quickly))
			jd.logged(t, "learned capabilities")
			regrant := jd.grant(t, unix.RLIMIT_NOFILE, uint64(jd.descriptors(t)+few))
			for range 3 { // nobody knows how far they get
				conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", jd.at(portIMAPS), jd.tls("mail.b.example"))
				if err != nil {
					continue
				}
				_ = conn.SetDeadline(time.Now().Add(time.Second))
				fmt.Fprintf(conn, "a LOGIN alice@a.example %s\r\n", password)
				_, _ = io.ReadAll(conn)
				conn.Close()
			}
			regrant()
			d := jd.login("mail.b.example", "alice@a.example")
			if err := d.conn.(*tls.Conn).VerifyHostname("mail.b.example"); err != nil {
				t.Error(err)
			}
			jd.served()
		})
	}
}
