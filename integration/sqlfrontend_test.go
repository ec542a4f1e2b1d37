package integration

import (
	"fmt"
	"strings"
	"testing"
)

// TestSQLFrontend: a database says who lives where, whose password is right and who may use which service. Its word holds from one
// login to the next, and while it is down nobody is told that his password is wrong.
func TestSQLFrontend(t *testing.T) {
	t.Parallel()
	db := startPostgres(t)
	db.exec(t, `CREATE TABLE users (username text PRIMARY KEY, password text, host text, sieve boolean DEFAULT true)`,
		`INSERT INTO users VALUES ('alice@a.example', '{PLAIN}of-the-database', 'store1'), ('bob@b.example', '{PLAIN}of-the-database', 'store2')`)
	store1 := startDovecot(t, "store1", passwords, "alice@a.example")
	store2 := startDovecot(t, "store2", passwords, "alice@a.example", "bob@b.example")
	onBehalf := fmt.Sprintf("login = \"master\"\nlogin_user = %q\nlogin_password = %q", proxyUser, proxyPassword)
	jd := startJackdaw(t, store1.backend(onBehalf), store2.backend(onBehalf), fmt.Sprintf(`
[auth]
verify = "directory"
[directory.accounts]
kind = "sql"
driver = "postgres"
dsn = %q
query = "SELECT host, password, sieve FROM users WHERE username = :user"
cache = "0s"
cache_missing = "0s"
[[route]]
lookup = "accounts"
`, db.dsn))
	imap := func(name, user, secret, want string) string {
		t.Helper()
		d := jd.imap(name)
		_, status := d.command("LOGIN " + user + " " + secret)
		if !strings.HasPrefix(status, want) {
			t.Errorf("%s with %q is told %q, want %q", user, secret, status, want)
			return ""
		}
		if want != "OK" {
			return ""
		}
		return d.ask(`LIST "" *`)
	}
	const right, wrong = "of-the-database", password // a store would take the wrong one
	if folders := imap("mail.a.example", "alice", right, "OK"); !strings.Contains(folders, store1.folder()) {
		t.Errorf("alice has %q", folders)
	}
	if folders := imap("mail.b.example", "bob", right, "OK"); !strings.Contains(folders, store2.folder()) {
		t.Errorf("bob has %q", folders)
	}
	imap("mail.a.example", "alice", wrong, "NO [AUTHENTICATIONFAILED]")
	imap("mail.a.example", "bob", right, "NO [AUTHENTICATIONFAILED]")
	imap("mail.a.example", `"' OR 1=1 -- "`, right, "NO [AUTHENTICATIONFAILED]")

	db.exec(t, "UPDATE users SET sieve = false, host = 'store2' WHERE username = 'alice@a.example'")
	if folders := imap("mail.a.example", "alice", right, "OK"); !strings.Contains(folders, store2.folder()) {
		t.Errorf("after her move alice has %q", folders)
	}
	sieve := func(secret string) string {
		d := jd.sieve("mail.a.example")
		d.send(`AUTHENTICATE "PLAIN" "` + plain("alice", secret) + `"`)
		return d.until("OK", "NO", "BYE")
	}
	refused, denied := sieve(right), sieve(wrong)
	if !strings.HasPrefix(refused, "NO ") || !strings.HasPrefix(denied, "NO ") || refused == denied {
		t.Errorf("without the permission alice is told %q, and with a wrong password %q", refused, denied)
	}
	jd.logged(t, "login failed", `"service":"sieve"`, "sieve is not permitted in the database")
	jd.logged(t, "login failed", `"service":"sieve"`, "the password is wrong")

	db.fail()
	imap("mail.a.example", "alice", right, unavailable)
	imap("mail.a.example", "alice", wrong, unavailable)
	jd.logged(t, "login failed", "asking the database", "connection refused")
	db.restart(t)
	imap("mail.a.example", "alice", right, "OK")
	if strings.Contains(jd.Log(), right) || strings.Contains(jd.Log(), proxyPassword) {
		t.Error("the log has a password")
	}
}

// TestSQLPermissions: in front of a store that decides about passwords, with the tables that others have made in a real MariaDB, a
// flag that is cleared refuses its own service on every port, and no other.
func TestSQLPermissions(t *testing.T) {
	t.Parallel()
	db := startMariaDB(t)
	db.exec(t, `CREATE TABLE accountuser (username varchar(50) PRIMARY KEY, imap smallint DEFAULT 1, pop smallint DEFAULT 1, sieve smallint DEFAULT 1)`,
		`INSERT INTO accountuser (username) VALUES ('alice@a.example')`,
		`CREATE TABLE mailbox (username varchar(255) PRIMARY KEY, active tinyint(1) NOT NULL DEFAULT 1, sieve tinyint(1) NOT NULL DEFAULT 1)`,
		`INSERT INTO mailbox (username) VALUES ('bob@b.example')`)
	s := startDovecot(t, "store1", passwords, "alice@a.example", "bob@b.example").serving("imap", "pop3", "sieve")
	directory := func(name, query string) string {
		return fmt.Sprintf("[directory.%s]\nkind = \"sql\"\ndriver = \"mysql\"\ndsn = %q\nquery = %q\ncache = \"0s\"\ncache_missing = \"0s\"\n"+
			"[[route]]\nlookup = %[1]q\nto = \"store1\"\n", name, db.dsn, query)
	}
	jd := startJackdaw(t, s.backend(),
		directory("cyradm", "SELECT username AS user, imap, pop AS pop3, sieve FROM accountuser WHERE username = :user"),
		directory("postfixadmin", "SELECT username AS user, sieve FROM mailbox WHERE username = :user AND active = 1"))
	jd.knows(s)
	login := func(service, name, user, secret string) string {
		d := jd.meet(t, client{}.at(service, name))
		defer d.conn.Close()
		return d.plain(user, secret)
	}
	for name, user := range map[string]string{"mail.a.example": "alice", "mail.b.example": "bob"} {
		for _, service := range []string{"imaps", "imap", "pop3s", "sieve"} {
			if got := login(service, name, user, password); !strings.HasPrefix(got, letIn[protocol(service)]) {
				t.Errorf("%s, %s: %q", user, service, got)
			}
		}
	}
	db.exec(t, "UPDATE accountuser SET sieve = 0", "UPDATE mailbox SET sieve = 0")
	for name, user := range map[string]string{"mail.a.example": "alice", "mail.b.example": "bob"} {
		if got := login("sieve", name, user, password); got != `NO "Service not permitted for this user"` {
			t.Errorf("%s, without the permission: %q", user, got)
		}
		if got := login("sieve", name, user, "wrong"); !strings.HasPrefix(got, denied["sieve"]) {
			t.Errorf("%s, with a wrong password: %q", user, got)
		}
		if got := login("imaps", name, user, password); !strings.HasPrefix(got, letIn["imap"]) {
			t.Errorf("%s, on 993: %q", user, got)
		}
	}
	db.exec(t, "UPDATE accountuser SET pop = 0")
	if got := login("pop3s", "mail.a.example", "alice", password); !strings.HasPrefix(got, "-ERR [SYS/PERM]") {
		t.Errorf("pop3s: %q", got)
	}
}
