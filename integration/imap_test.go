package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOwnStore: everybody lands on the store of their domain, whatever name they ask for, with a domain and without.
func TestOwnStore(t *testing.T) {
	t.Parallel()
	store1 := startDovecot(t, "store1", passwords, "alice@a.example")
	store2 := startDovecot(t, "store2", passwords, "bob@b.example", "alice@b.example")
	cyrus := startCyrus(t, "store3", "carol")
	jd := startJackdaw(t, twoStores(store1, store2), cyrus.backend(), domainTo("c.example", cyrus))
	for _, c := range []struct {
		name, user string
		store      *store
	}{
		{"mail.a.example", "alice@a.example", store1},
		{"mail.a.example", "alice", store1},
		{"mail.b.example", "alice", store2},
		{"mail.b.example", "alice%a.example", store1},
		{"mail.a.example", "BOB@B.Example", store2},
		{"mail.c.example", "carol", cyrus},
		{"mail.a.example", "carol@c.example", cyrus},
	} {
		if folders := jd.folders(t, c.name, c.user); !strings.Contains(folders, c.store.folder()) {
			t.Errorf("%s at %s is not on %s, but has %q", c.user, c.name, c.store.name, folders)
		}
	}
}

// TestLargeMessage: 50 MB go up and come down unchanged.
func TestLargeMessage(t *testing.T) {
	t.Parallel()
	store := startDovecot(t, "store1", passwords, "alice@a.example")
	jd := startJackdaw(t, store.backend())
	line := strings.Repeat("0123456789abcdef", 4) + "\r\n"
	message := "Subject: large\r\n\r\n" + strings.Repeat(line, 50<<20/len(line))
	up, down := filepath.Join(t.TempDir(), "up"), filepath.Join(t.TempDir(), "down")
	if err := os.WriteFile(up, []byte(message), 0o600); err != nil {
		t.Fatal(err)
	}
	jd.curl(t, "mail.a.example", "alice", "INBOX", "--upload-file", up)
	jd.curl(t, "mail.a.example", "alice", "INBOX;MAILINDEX=1", "--output", down)
	got, err := os.ReadFile(down)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != message {
		t.Errorf("sent %d bytes, got %d, and others", len(message), len(got))
	}
}

// TestMbsync: a client that synchronises both ways, by password and by SCRAM.
func TestMbsync(t *testing.T) {
	t.Parallel()
	store := startDovecot(t, "store1", passwords, "alice@a.example")
	jd := startJackdaw(t, store.backend())
	jd.knows(store)
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256"} {
		t.Run(mechanism, func(t *testing.T) {
			here := newMaildir(t)
			here.deliver(t, "From here by "+mechanism)
			jd.curl(t, "mail.a.example", "alice", "INBOX", "--upload-file", mailFile(t, "From there by "+mechanism))

			mbsync(t, jd, mechanism, "alice@a.example", here)

			if mail := here.read(t); !strings.Contains(mail, "From there by "+mechanism) {
				t.Errorf("nothing was pulled; here is %q", mail)
			}
			there := jd.login("mail.a.example", "alice")
			there.ask("SELECT INBOX")
			if found := there.ask(fmt.Sprintf("SEARCH SUBJECT %q", "From here by "+mechanism)); found == "* SEARCH\n" {
				t.Error("nothing was pushed")
			}
		})
	}
}

// TestScram: an exchange passes through to either kind of store, which proves itself in return.
func TestScram(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example")
	cyrus := startCyrus(t, "store2", "bob@b.example")
	jd := startJackdaw(t, twoStores(dovecot, cyrus))
	jd.knows(dovecot, cyrus)
	for _, user := range []string{"alice@a.example", "bob@b.example"} {
		d := jd.imap("mail.a.example")
		exchange := scram{user: user, password: password}
		d.send("s AUTHENTICATE SCRAM-SHA-256 " + encode(exchange.first()))
		d.send(encode(exchange.final(t, decode(t, d.expect("+ ")))))
		exchange.verify(t, decode(t, d.expect("+ ")))
		d.send("")
		d.until("s OK")
		d.ask("SELECT INBOX")
	}
}

// TestRefusals: nobody learns from an answer whether a user exists, nor which kind of store has refused.
func TestRefusals(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example")
	cyrus := startCyrus(t, "store2", "bob@b.example")
	jd := startJackdaw(t, twoStores(dovecot, cyrus))
	const want = "NO [AUTHENTICATIONFAILED] Authentication failed"
	for _, user := range []string{"alice@a.example", "nobody@a.example", "bob@b.example", "nobody@b.example", "alice@elsewhere.example"} {
		if _, got := jd.imap("mail.a.example").command("LOGIN " + user + " wrong"); got != want {
			t.Errorf("%s is told %q, want %q", user, got, want)
		}
	}
}
