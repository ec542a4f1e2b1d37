package main

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"jackdaw/configs"
	"jackdaw/internal/devca"
	"jackdaw/internal/inherit"
	"jackdaw/tlsstore"
)

// TestHandshakeReports visits a daemon, and then asks it who was there. A reload forgets nothing.
func TestHandshakeReports(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dir, err := os.MkdirTemp("", "counts")
	must(t, err)
	defer os.RemoveAll(dir)
	ca, err := devca.New()
	must(t, err)
	leaf, err := ca.Issue(devca.Options{Names: []string{"mail.a.example", "*.b.example"}})
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "certs"), 0o700))
	must(t, leaf.Write(filepath.Join(dir, "certs"), "a"))
	socket := filepath.Join(dir, "admin.sock")
	config, err := configs.Parse(filepath.Join(dir, "jackdaw.toml"), []byte(`
		listen.imaps = { address = "127.0.0.1:0", default = "" }
		tls.certificates = ["certs"]
		admin.socket = "admin.sock"
		log.level = "error"
		[[backend]]
		name = "store1"
		imap = "127.0.0.1:1"`))
	must(t, err)
	d := newDaemon(config, inherit.NewSockets())
	must(t, d.apply(config))
	defer d.close(context.Background())

	visit := func(name string) {
		address := d.server.Addresses()[0].Address.String()
		conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err == nil {
			conn.Close()
		}
	}
	for _, name := range []string{"mail.a.example", "imap.b.example", "c.example", "C.example", "d.example"} {
		visit(name)
	}
	must(t, d.apply(config))
	visit("mail.a.example")
	visit("")
	mustPrint(t, "certs --socket "+socket,
		"handshakes: 2 exact, 1 wildcard, 0 default, 3 refused for their name, 1 refused without one\n")
	mustPrint(t, "certs --json --socket "+socket,
		`"handshakes":{"exact":2,"wildcard":1,"default":0,"unknown":3,"nameless":1,"invalid":0}`)
	mustPrint(t, "certs --missed --socket "+socket, "TIMES  NAME\n2      c.example\n1      d.example\n")
	mustPrint(t, "certs --missed --json --socket "+socket, "{\n      \"name\": \"c.example\",\n      \"count\": 2\n    }")
}

// mustPrint runs a command that succeeds and prints this somewhere.
func mustPrint(t *testing.T, args, want string) {
	t.Helper()
	var out, errOut strings.Builder
	if status := run(strings.Fields(args), &out, &errOut); status != exitGood || !strings.Contains(out.String(), want) {
		t.Errorf("%v: exit status %d, %q, and\n%s\nwant %s", args, status, errOut.String(), out.String(), want)
	}
}

func TestHandshakesInWords(t *testing.T) {
	got := describeHandshakes(tlsstore.Handshakes{Exact: 1, Wildcard: 2, Default: 3, Unknown: 4, Nameless: 5, Invalid: 6})
	want := "handshakes: 1 exact, 2 wildcard, 3 default, 4 refused for their name, 5 refused without one; " +
		"6 asked for what is no name"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A count that a name has taken over from others may be that much lower.
func TestMissedTable(t *testing.T) {
	var out strings.Builder
	missedReport{}.writeTable(&out)
	if out.Len() > 0 {
		t.Errorf("printed of none: %q", out.String())
	}
	missedReport{[]tlsstore.Missed{{Name: "a.example", Count: 100}, {Name: "b.example", Count: 9, Over: 7}}}.writeTable(&out)
	if want := "TIMES  NAME\n100    a.example\n2-9    b.example\n"; out.String() != want {
		t.Errorf("printed %q, want %q", out.String(), want)
	}
}
