package integration

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// guide is an auth_http server that knows where alice@a.example is, and what her password is.
type guide struct {
	store string
	hangs atomic.Bool
	over  chan struct{}
}

func (g *guide) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.hangs.Load() {
		select {
		case <-r.Context().Done():
		case <-g.over:
		}
		return
	}
	if r.Header.Get("Auth-Pass") != password {
		w.Header().Set("Auth-Status", "Invalid login or password")
		return
	}
	host, port, _ := net.SplitHostPort(g.store)
	w.Header().Set("Auth-Status", "OK")
	w.Header().Set("Auth-Server", host)
	w.Header().Set("Auth-Port", port)
}

// open has it answer at an address until it is closed.
func (g *guide) open(t testing.TB, address string) (at string, server *http.Server) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	must(t, err)
	server = &http.Server{Handler: g}
	t.Cleanup(func() { server.Close() })
	go func() { _ = server.Serve(l) }()
	return l.Addr().String(), server
}

// TestDirectoryFails: while a directory hangs, and while it is gone, nobody is told that a password is wrong, and nobody is let in;
// sessions go on. When it is back the next login is good.
func TestDirectoryFails(t *testing.T) {
	t.Parallel()
	g := &guide{store: quickStore(t), over: make(chan struct{})}
	defer close(g.over)
	at, server := g.open(t, net.JoinHostPort(newHost(), portHTTP))
	jd := startJackdaw(t, "[auth]\nverify = \"directory\"\n", fmt.Sprintf("[directory.guide]\nkind = \"http\"\nurl = %q\n"+
		"cache = \"0s\"\nstale = \"0s\"\ntimeout = \"2s\"\n[[route]]\nlookup = \"guide\"\n", "http://"+at+"/auth"),
		quickBackend("store", g.store))
	there := jd.login("mail.a.example", "alice@a.example")
	fails := func(why string) {
		t.Helper()
		var hopeful []*dialog
		for _, secret := range []string{password, "wrong"} {
			for range 8 {
				d := jd.imap("mail.a.example")
				d.send("a LOGIN alice@a.example " + secret)
				hopeful = append(hopeful, d)
			}
		}
		there.ask("NOOP")
		for _, d := range hopeful {
			if line := d.read(); !strings.HasPrefix(line, "a "+unavailable) {
				t.Errorf("while the directory %s somebody is told %q", why, line)
			}
			d.conn.Close()
		}
		there.ask("NOOP")
	}
	g.hangs.Store(true)
	fails("hangs")
	g.hangs.Store(false)
	jd.served()
	must(t, server.Close())
	fails("is gone")
	g.open(t, at)
	jd.served()
	d := jd.imap("mail.a.example")
	if _, status := d.command("LOGIN alice@a.example wrong"); !strings.HasPrefix(status, denied["imap"]) {
		t.Errorf("a wrong password is told %q", status)
	}
}
