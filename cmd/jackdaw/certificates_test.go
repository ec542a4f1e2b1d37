package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/freeport"
	"jackdaw/internal/inherit"
	"jackdaw/tlsstore/orders"
)

// orderingFixture is a daemon with orders at an authority that refuses all connections.
type orderingFixture struct {
	*daemon
	t            *testing.T
	dir, address string // where challenges are answered
}

func newOrderingFixture(t *testing.T) *orderingFixture {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	dir, err := os.MkdirTemp("", "orders")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := freeport.Listen("127.0.0.1")
	must(t, err)
	must(t, l.Close())
	f := &orderingFixture{t: t, dir: dir, address: l.Addr().String()}
	f.daemon = newDaemon(&configs.Config{}, inherit.NewSockets())
	f.log = zap.NewNop()
	t.Cleanup(func() { _ = f.close(t.Context()) })
	return f
}

// goOver has the daemon go over to a configuration with these lines in [acme]; none is no table.
func (f *orderingFixture) goOver(acme string) error {
	f.t.Helper()
	if acme != "" {
		acme = fmt.Sprintf("[acme]\ncache = %q\ndirectory = \"https://127.0.0.1:1/\"\nhttp = %q\n%s\n",
			filepath.Join(f.dir, "cache"), f.address, acme)
	}
	config, err := configs.Parse(filepath.Join(f.dir, "jackdaw.toml"), fmt.Appendf(nil,
		"[listen]\nimap = { address = \"127.0.0.1:0\", plaintext_from = \"local\" }\n[admin]\nsocket = %q\n"+
			"[[backend]]\nname = \"store1\"\nimap = \"127.0.0.1:9\"\n%s", filepath.Join(f.dir, "sock"), acme))
	must(f.t, err)
	return f.apply(config)
}

// listens tells whether somebody answers challenges.
func (f *orderingFixture) listens() bool {
	conn, err := net.Dial("tcp", f.address)
	if err == nil {
		conn.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

// A daemon orders what its configuration says, tells of it, goes on with that over a reload, and ends it.
func TestOrders(t *testing.T) {
	f := newOrderingFixture(t)
	must(t, f.goOver(`names = ["mail.a.example"]`))
	var report *certsReport
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var err error
		report, err = certsQuestion{socket: filepath.Join(f.dir, "sock")}.report(t.Context())
		must(t, err)
		if len(report.ACME) == 1 && report.ACME[0].Failures == 1 || time.Now().After(end) {
			break
		}
	}
	if len(report.ACME) != 1 || !strings.HasPrefix(report.ACME[0].Error, "opening the account at https://127.0.0.1:1/: ") {
		t.Fatalf("the daemon says %+v", report)
	}
	if len(report.Problems) > 0 || !report.needsHands() || !f.listens() {
		t.Errorf("the daemon says %+v", report)
	}

	first := f.certs
	must(t, f.goOver(`names = ["mail.a.example"]`))
	if f.certs != first {
		t.Error("nothing has changed, and the orders began anew")
	}
	f.certs.look()
	f.certs.ask("mail.b.example")
	must(t, f.goOver(`names = ["mail.a.example", "mail.b.example"]`))
	if f.certs == first || !f.listens() {
		t.Error("the next orders do not listen where the first did")
	}
	must(t, f.goOver(""))
	if f.certs.status() != nil || f.listens() {
		t.Error("the orders go on")
	}
	f.certs.look()
	f.certs.ask("mail.b.example")
}

// Where challenges cannot be answered, nothing changes.
func TestOrdersWithoutAddress(t *testing.T) {
	f := newOrderingFixture(t)
	must(t, f.goOver(""))
	before := f.certs
	l, err := net.Listen("tcp", f.address)
	must(t, err)
	defer l.Close()
	err = f.goOver(`names = ["mail.a.example"]`)
	if err == nil || !strings.HasPrefix(err.Error(), "listening for http-01: ") || f.certs != before {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(orders.Directory(configs.ACME{Cache: filepath.Join(f.dir, "cache")})); err != nil {
		t.Errorf("the directory for certificates is not made: %v", err)
	}
}
