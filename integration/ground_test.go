package integration

import (
	"strings"
	"testing"
)

// The ground that the other tests stand on: the servers by themselves.

func TestGroundDovecot(t *testing.T) {
	t.Parallel()
	s := startDovecot(t, "store1", passwords, "alice@a.example")
	folders := curl(t, "--user", "alice@a.example:"+password, "imap://"+s.imap()+"/")
	if !strings.Contains(folders, s.folder()) {
		t.Errorf("alice has %q, and not %s", folders, s.folder())
	}
	d := dial(t, s.sieve())
	d.until("OK")
	d.send(`AUTHENTICATE "PLAIN" "` + plain("alice@a.example", password) + `"`)
	d.expect("OK")
	d.send("PUTSCRIPT \"night\" {5+}\r\nkeep;")
	d.expect("OK")
}

func TestGroundDovecotOpen(t *testing.T) {
	t.Parallel()
	d := dial(t, startDovecot(t, "open", anything).imap())
	d.expect("* OK")
	d.ask("LOGIN somebody@a.example anything")
}

func TestGroundCyrus(t *testing.T) {
	t.Parallel()
	s := startCyrus(t, "cyrus", "carol")
	folders := curl(t, "--user", "carol:"+password, "imap://"+s.imap()+"/")
	if !strings.Contains(folders, s.folder()) {
		t.Errorf("carol has %q, and not %s", folders, s.folder())
	}
	d := dial(t, s.sieve())
	d.until("OK")
	d.send(`AUTHENTICATE "PLAIN" "` + plain("carol", password) + `"`)
	d.expect("OK")
	d.send("PUTSCRIPT \"night\" {5+}\r\nkeep;")
	d.expect("OK")
}

func TestGroundCyrusDomains(t *testing.T) {
	t.Parallel()
	s := startCyrus(t, "cyrus", "bob@b.example")
	d := dial(t, s.imap())
	d.expect("* OK")
	d.ask("LOGIN bob@b.example " + password)
	if folders := d.ask(`LIST "" *`); !strings.Contains(folders, s.folder()) {
		t.Errorf("bob has %q, and not %s", folders, s.folder())
	}
}
