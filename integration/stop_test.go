package integration

import (
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ready is what a load balancer hears: an HTTP status, or 0 when nobody answers.
func (d *dynasty) ready() int {
	d.t.Helper()
	response, err := d.byHTTP().Get("http://jackdaw/readyz")
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// TestStopDelay: a load balancer hears of a stop while clients are still served, then sessions end with a word, those of a former
// process, too.
func TestStopDelay(t *testing.T) {
	t.Parallel()
	d := newDynasty(t)
	d.write("[limits]\nstop_delay = \"8s\"\n")
	d.start()
	former := d.login("mail.a.example", "alice@a.example")
	pid := d.upgrade()
	session := d.login("mail.a.example", "alice@a.example")
	if status := d.ready(); status != http.StatusOK {
		t.Errorf("ready: %d", status)
	}
	must(t, syscall.Kill(pid, syscall.SIGTERM))
	eventually(t, "it is ready no longer", func() bool { return d.ready() == http.StatusServiceUnavailable })
	d.login("mail.a.example", "alice@a.example").conn.Close()
	session.ask("NOOP") // it has not been told yet
	former.until("* BYE")
	session.until("* BYE")
	if conn, err := net.Dial("tcp", d.at(portIMAPS)); err == nil {
		conn.Close()
		t.Error("somebody listens still")
	}
	d.ends(pid)
}

// TestStopTwice: who asks a second time does not want to wait. What is about something else ends nothing.
func TestStopTwice(t *testing.T) {
	t.Parallel()
	d := newDynasty(t)
	d.write("[limits]\nstop_delay = \"1h\"\n")
	d.start()
	pid := d.upgrade()
	session := d.login("mail.a.example", "alice@a.example")
	must(t, syscall.Kill(pid, syscall.SIGTERM))
	d.logged(t, "stopping")
	must(t, syscall.Kill(pid, syscall.SIGHUP))
	must(t, syscall.Kill(pid, syscall.SIGUSR2))
	d.loggedTimes(t, 2, "this process is ending")
	d.refuses("reload", "this process is ending")
	session.ask("NOOP")
	must(t, syscall.Kill(pid, syscall.SIGINT))
	d.ends(pid)
}

// TestUpgradeTimeout: a process that was replaced keeps its sessions for a time, and then ends them with a word.
func TestUpgradeTimeout(t *testing.T) {
	t.Parallel()
	d := newDynasty(t)
	d.write("[limits]\nupgrade_timeout = \"4s\"\n")
	d.start()
	d.upgrade()
	pid := d.upgrade()
	session := d.login("mail.a.example", "alice@a.example")
	d.upgrade()
	session.ask("NOOP")
	begun := time.Now()
	session.until("* BYE")
	if after := time.Since(begun); after < time.Second {
		t.Errorf("it ended after %v, want a while", after)
	}
	d.ends(pid)
	if log := d.Log(); strings.Contains(log, "cut off") {
		t.Error("a session was cut off")
	}
}
