package integration

import (
	"fmt"
	"os/exec"
	"testing"
	"time"
)

// The clock on the wall cannot be turned here for one process: programs in Go read it past the C library, and Linux has one for all
// of its namespaces. jackdaw measures time by the other clock, of which these tests are.

// TestAsleep: a machine that has slept wakes up later than everything was due. Sessions are as they were, who was late already is
// sent away, and the next client is served.
func TestAsleep(t *testing.T) {
	t.Parallel()
	jd := frontend{limits: `login_timeout = "4s"`}.start(t, quickBackend("store", quickStore(t), quickly))
	jd.logged(t, "learned capabilities")
	there, late := jd.login("mail.a.example", "alice@a.example"), dial(t, jd.at(portIMAP))
	late.expect("* OK ")
	resume := jd.hang(t)
	there.send("x NOOP")
	time.Sleep(6 * time.Second)
	resume()
	there.expect("x OK")
	jd.served()
	late.until("* BYE ")
	there.ask("NOOP")
}

// TestLongUptime: a machine that has been up for ten years is one like any other.
func TestLongUptime(t *testing.T) {
	t.Parallel()
	const decade = 10 * 365 * 24 * 3600
	later := fmt.Sprintf("unshare --time --monotonic %d --boottime %[1]d ", decade)
	if out, err := exec.Command("sh", "-c", later+"true").CombinedOutput(); err != nil {
		t.Skipf("no clock can be moved here: %v: %s", err, out)
	}
	d := newDynasty(t)
	d.install(d.script("#!/bin/sh\nexec " + later + built(t) + " \"$@\"\n"))
	d.write("[limits]\nidle_timeout = \"3s\"\n")
	d.start()
	session := d.login("mail.a.example", "alice@a.example")
	for range 4 {
		time.Sleep(time.Second)
		session.ask("NOOP")
	}
	session.until("* BYE ") // after three seconds without a word
	d.login("mail.a.example", "alice@a.example").ask("NOOP")
}
