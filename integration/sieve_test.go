package integration

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSieveConnect: a script is put, listed, activated and read back, on either kind of store and under its own name.
func TestSieveConnect(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example")
	cyrus := startCyrus(t, "store2", "bob@b.example")
	jd := startJackdaw(t, twoStores(dovecot, cyrus))
	for name, user := range users {
		t.Run(user, func(t *testing.T) {
			dir := t.TempDir()
			night, back := filepath.Join(dir, "night"), filepath.Join(dir, "back")
			const script = "require \"fileinto\";\r\nif header :is \"Subject\" \"{16+}\" {\r\n  fileinto \"Night\";\r\n}\r\n"
			if err := os.WriteFile(night, []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			sieveConnect(t, jd, name, user, "--upload", "--localsieve", night, "--remotesieve", "night")
			sieveConnect(t, jd, name, user, "--activate", "--remotesieve", "night")
			if list := sieveConnect(t, jd, name, user, "--list"); list != "\"night\" ACTIVE\n" {
				t.Errorf("the list is %q", list)
			}
			sieveConnect(t, jd, name, user, "--download", "--remotesieve", "night", "--localsieve", back)
			got, err := os.ReadFile(back)
			if err != nil {
				t.Fatal(err)
			}
			if strings.ReplaceAll(string(got), "\r", "") != strings.ReplaceAll(script, "\r", "") {
				t.Errorf("put %q, got %q", script, got)
			}
		})
	}
}

// TestSieveScram: Dovecot sends the last message as a challenge, Cyrus with its OK.
func TestSieveScram(t *testing.T) {
	t.Parallel()
	dovecot := startDovecot(t, "store1", passwords, "alice@a.example")
	cyrus := startCyrus(t, "store2", "bob@b.example")
	jd := startJackdaw(t, twoStores(dovecot, cyrus))
	jd.knows(dovecot, cyrus)
	for _, user := range []string{"alice@a.example", "bob@b.example"} {
		d := jd.sieve("mail.a.example")
		exchange := scram{user: user, password: password}
		d.send(`AUTHENTICATE "SCRAM-SHA-256" "` + encode(exchange.first()) + `"`)
		d.send(`"` + encode(exchange.final(t, decode(t, d.sieveString()))) + `"`)
		last, ended := d.sieveEnd()
		exchange.verify(t, decode(t, last))
		if !ended {
			d.send(`""`)
			d.expect("OK")
		}
		d.send("LISTSCRIPTS")
		d.until("OK")
	}
}

// TestSieveUnauthenticate: Cyrus would let a session go on as somebody else, by a command that it also finds in places where
// no other parser would look for one. The session ends before it gets there.
func TestSieveUnauthenticate(t *testing.T) {
	t.Parallel()
	cyrus := startCyrus(t, "store1", "bob@b.example", "eve@b.example")
	jd := startJackdaw(t, cyrus.backend())
	for _, attack := range []string{
		"UNAUTHENTICATE",
		"unauthenticate",
		" UNAUTHENTICATE",
		"NOOP \"x\r\nUNAUTHENTICATE\r\ny\"",
		"NOOP {16}\r\nUNAUTHENTICATE\r\n",
		"NOOP {16+} \r\nUNAUTHENTICATE\r\n",
		"FOO {16+}\r\nUNAUTHENTICATE\r\n",
		"SETACTIVE x {16+}\r\nUNAUTHENTICATE\r\n",
		"NOOP\nUNAUTHENTICATE",
	} {
		d := jd.sieve("mail.b.example")
		d.send(`AUTHENTICATE "PLAIN" "` + plain("bob", password) + `"`)
		d.expect("OK")
		d.send(attack + "\r\n" + `AUTHENTICATE "PLAIN" "` + plain("eve@b.example", password) + "\"\r\nLISTSCRIPTS")
		// To this command, and to a login, Cyrus says OK and no more.
		if got := d.ended(); strings.Contains("\r\n"+got, "\r\nOK\r\n") {
			t.Errorf("%q got through, the answer is %q", attack, got)
		}
	}
}

// TestSieveTLSInside: Cyrus takes STARTTLS also from a user who is logged in. Within TLS that ends at the store, nobody could
// see an UNAUTHENTICATE; the session ends before it begins.
func TestSieveTLSInside(t *testing.T) {
	t.Parallel()
	cyrus := startCyrus(t, "store1", "bob@b.example")
	jd := startJackdaw(t, cyrus.backend())
	d := jd.sieve("mail.b.example")
	d.send(`AUTHENTICATE "PLAIN" "` + plain("bob", password) + `"`)
	d.expect("OK")
	d.send("STARTTLS")
	d.expect("OK")
	if err := tls.Client(d.conn, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Error("a logged-in client speaks TLS with the store")
	}
}
