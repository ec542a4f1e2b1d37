package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends/directories"
	"jackdaw/configs"
)

// TestSQL asks each database for what docs/directories.md promises.
func TestSQL(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *database{"postgres": startPostgres, "mariadb": startMariaDB, "sqlite": openSQLite} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := start(t)
			t.Run("PostfixAdmin", func(t *testing.T) { testPostfixAdmin(t, db) })
			t.Run("web-cyradm", func(t *testing.T) { testWebCyradm(t, db) })
			t.Run("Dovecot", func(t *testing.T) { testDovecotUsers(t, db) })
			t.Run("injections", func(t *testing.T) { testInjections(t, db) })
			if db.launch != nil {
				t.Run("hung up", func(t *testing.T) { testHungUp(t, db) })
				t.Run("failing", func(t *testing.T) { testFailing(t, db) })
			}
		})
	}
}

// example is the configuration below a heading of the manual, for this database.
func (d *database) example(t testing.TB, heading string) configs.Directory {
	t.Helper()
	manual, err := os.ReadFile("../docs/directories.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(manual), "\n### "+heading+"\n")
	found := regexp.MustCompile("(?s)```toml\n(.*?)```").FindStringSubmatch(section)
	if found == nil {
		t.Fatalf("no example below %s", heading)
	}
	text := strings.Replace(found[1], `dsn_file = "/etc/jackdaw/accounts.dsn"`, fmt.Sprintf("dsn = %q", d.dsn), 1)
	text = regexp.MustCompile(`(?m)^driver .*`).ReplaceAllString(text, fmt.Sprintf("driver = %q", d.driver))
	c, err := configs.Parse("directories.md", []byte(text+`
[listen]
imap = "127.0.0.1:1143"
[tls]
certificates = "certs"
[[backend]]
name = "store1"
imap = "127.0.0.1:143"
[[route]]
lookup = "accounts"
to = "store1"
`))
	if err != nil {
		t.Fatal(err)
	}
	directory := c.Directories["accounts"]
	directory.Cache, directory.CacheMissing, directory.Stale = 0, 0, 0
	return directory
}

func openDirectory(t testing.TB, c configs.Directory) directories.Directory {
	t.Helper()
	d, err := directories.Open("accounts", c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// attempt is a login with a password, or without one a question where somebody's mail is.
func attempt(user, secret string, service configs.Service) directories.Query {
	local, domain, _ := strings.Cut(user, "@")
	return directories.Query{User: user, Local: local, Domain: domain, Service: service, Secret: secret, Verify: secret != ""}
}

// says compares what a directory says.
func says(t testing.TB, d directories.Directory, q directories.Query, want directories.Answer, wantErr error) {
	t.Helper()
	if got, err := d.Lookup(t.Context(), q); got != want || !errors.Is(err, wantErr) {
		t.Errorf("%s with %q for %s: got %+v, %v, want %+v, %v", q.User, q.Secret, q.Service, got, err, want, wantErr)
	}
}

func testPostfixAdmin(t *testing.T, db *database) {
	boolean := map[string]string{"postgres": "boolean", "mysql": "tinyint(1)", "sqlite": "integer"}[db.driver]
	db.exec(t, `CREATE TABLE mailbox (username varchar(255) PRIMARY KEY, password varchar(255) NOT NULL, name varchar(255) NOT NULL,
		maildir varchar(255) NOT NULL, quota bigint NOT NULL DEFAULT 0, local_part varchar(255) NOT NULL, domain varchar(255) NOT NULL,
		active `+boolean+` NOT NULL DEFAULT '1')`,
		`INSERT INTO mailbox (username, password, name, maildir, local_part, domain) VALUES
		('anna@a.example', '$1$0jEOfr0t$8fzYo0q8h5eTjEAbJxeqa1', 'Anna', 'a.example/anna/', 'anna', 'a.example'),
		('bob@a.example', '{SHA512}vSsar3708Jvp9Szi2NWZZ02Bqp1qRCFpbcTZPdBhnWgs5WtNZKnvCXdhztmeD2cmW192CF5bDufKRpayrW/isg==',
			'Bob', 'a.example/bob/', 'bob', 'a.example'),
		('eve@a.example', '{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=', 'Eve', 'a.example/eve/', 'eve', 'a.example')`,
		`UPDATE mailbox SET active = '0' WHERE username = 'eve@a.example'`,
		`CREATE TABLE domain (domain varchar(255) PRIMARY KEY, active `+boolean+` NOT NULL DEFAULT '1')`,
		`INSERT INTO domain (domain) VALUES ('a.example')`)
	c := db.example(t, "PostfixAdmin")
	d := openDirectory(t, c)
	says(t, d, attempt("anna@a.example", "secret", configs.IMAPS), directories.Answer{User: "anna@a.example", Verified: true}, nil)
	says(t, d, attempt("bob@a.example", "secret", configs.POP3), directories.Answer{User: "bob@a.example", Verified: true}, nil)
	says(t, d, attempt("anna@a.example", "wrong", configs.IMAPS), directories.Answer{}, directories.ErrDenied)
	says(t, d, attempt("eve@a.example", "secret", configs.IMAPS), directories.Answer{}, directories.ErrNotFound)
	says(t, d, attempt("nobody@a.example", "secret", configs.IMAPS), directories.Answer{}, directories.ErrNotFound)

	c.Query = "SELECT NULL AS user FROM domain WHERE domain = :domain AND active = '1'"
	d = openDirectory(t, c)
	says(t, d, attempt("@a.example", "", ""), directories.Answer{}, nil)
	says(t, d, attempt("@b.example", "", ""), directories.Answer{}, directories.ErrNotFound)
}

func testWebCyradm(t *testing.T, db *database) {
	db.exec(t, `CREATE TABLE accountuser (username varchar(50) PRIMARY KEY, password varchar(50) NOT NULL DEFAULT '',
		prefix varchar(50) NOT NULL DEFAULT '', domain_name varchar(255) NOT NULL DEFAULT '', imap smallint NOT NULL DEFAULT 1,
		pop smallint NOT NULL DEFAULT 1, sieve smallint NOT NULL DEFAULT 1, smtpauth smallint NOT NULL DEFAULT 1, smtp smallint NOT NULL DEFAULT 1)`,
		`INSERT INTO accountuser (username, password, prefix, domain_name) VALUES ('anna', '5ebe2294ecd0e0f08eab7690d2a6ee69', 'a', 'a.example'),
		('bob', '*14E65567ABDB5135D0CFD9A70B3032C179A49EE7', 'b', 'b.example')`)
	d := openDirectory(t, db.example(t, "web-cyradm"))
	anna := directories.Answer{User: "anna", Verified: true}
	says(t, d, attempt("anna", "secret", configs.Sieve), anna, nil)
	says(t, d, attempt("bob", "secret", configs.Submission), directories.Answer{User: "bob", Verified: true}, nil)
	says(t, d, attempt("anna", "5ebe2294ecd0e0f08eab7690d2a6ee69", configs.Sieve), directories.Answer{}, directories.ErrDenied)
	if db.driver == "postgres" {
		c := db.example(t, "web-cyradm")
		c.DSN += "&default_query_exec_mode=exec" // for a PgBouncer
		says(t, openDirectory(t, c), attempt("anna", "secret", configs.Sieve), anna, nil)
	}

	for column, services := range map[string][]configs.Service{"imap": {configs.IMAP, configs.IMAPS}, "pop": {configs.POP3, configs.POP3S},
		"sieve": {configs.Sieve}, "smtpauth": {configs.Submission, configs.Submissions}, "smtp": {configs.LMTP}} {
		db.exec(t, "UPDATE accountuser SET "+column+" = 0 WHERE username = 'anna'")
		for _, service := range configs.Services() {
			want := anna
			for _, refused := range services {
				if service == refused {
					want.Refuse = string(service.Protocol()) + " is not permitted in the database"
				}
			}
			says(t, d, attempt("anna", "secret", service), want, nil)
			says(t, d, attempt("anna", "wrong", service), directories.Answer{}, directories.ErrDenied)
		}
		db.exec(t, "UPDATE accountuser SET "+column+" = 1 WHERE username = 'anna'")
	}
}

func testDovecotUsers(t *testing.T, db *database) {
	db.exec(t, `CREATE TABLE users (username varchar(128) NOT NULL, domain varchar(128) NOT NULL, password varchar(255), host varchar(255),
		active char(1) NOT NULL DEFAULT 'Y', PRIMARY KEY (username, domain))`,
		`INSERT INTO users (username, domain, password, host) VALUES
		('anna', 'a.example', '{SSHA}vkuVUmlSzXMb9QzhYVV65pCOLgg/hIqf', 'store1.example'), ('anna', 'b.example', NULL, '192.0.2.7:143'),
		('müller', 'a.example', '{PLAIN}secret', NULL)`)
	d := openDirectory(t, db.example(t, "A table made for Dovecot"))
	says(t, d, attempt("anna@a.example", "secret", configs.IMAP), directories.Answer{Backend: "store1.example", Verified: true}, nil)
	says(t, d, attempt("anna@b.example", "", configs.LMTP), directories.Answer{Backend: "192.0.2.7:143"}, nil)
	says(t, d, attempt("anna@b.example", "secret", configs.IMAP), directories.Answer{}, directories.ErrDenied)
	says(t, d, attempt("müller@a.example", "secret", configs.IMAP), directories.Answer{Verified: true}, nil)
	says(t, d, attempt("anna@c.example", "secret", configs.IMAP), directories.Answer{}, directories.ErrNotFound)

	c := db.example(t, "A table made for Dovecot")
	c.Query = "SELECT CONCAT('{PLAIN}', username) AS password FROM users WHERE username = :local AND domain = :domain"
	says(t, openDirectory(t, c), attempt("anna@a.example", "anna", configs.IMAP), directories.Answer{Verified: true}, nil)
	c.Query = "SELECT host FROM users WHERE username = :local"
	if _, err := openDirectory(t, c).Lookup(t.Context(), attempt("anna", "", configs.IMAP)); err == nil || !strings.Contains(err.Error(), "several rows") {
		t.Errorf("two rows: %v", err)
	}
	db.exec(t, "UPDATE users SET active = 'N'")
	says(t, d, attempt("anna@a.example", "secret", configs.IMAP), directories.Answer{}, directories.ErrNotFound)
}

// testInjections: a name is a value, whatever stands in it. Some a database cannot even compare.
func testInjections(t *testing.T, db *database) {
	d := openDirectory(t, db.example(t, "web-cyradm"))
	for _, user := range []string{"'", "''", `\`, `\'`, `"`, "`", ":user", "?", "$1", "%", "_nna", "*", ";", "anna'--", "anna'-- ", "anna' #",
		"anna' OR '1'='1", `anna\' OR 1=1 -- `, `anna" OR 1=1 -- `, "anna'; DROP TABLE accountuser; -- ", "anna$$", "anna'/*", "anna\x00", "anna\r\n",
		"x' UNION SELECT username, password, 1, 1, 1, 1, 1 FROM accountuser -- ", "\xbf' OR 1=1 -- ", "\xff", "*)(uid=*", strings.Repeat("a", 100_000)} {
		for _, secret := range []string{"", "secret"} {
			got, err := d.Lookup(t.Context(), attempt(user, secret, configs.IMAP))
			if got != (directories.Answer{}) || err == nil || errors.Is(err, directories.ErrDenied) {
				t.Errorf("%.80q: %+v, %v", user, got, err)
			}
		}
	}
	says(t, d, attempt("anna", "secret", configs.IMAP), directories.Answer{User: "anna", Verified: true}, nil)
}

// testHungUp: connections that have died are replaced before anybody notices.
func testHungUp(t *testing.T, db *database) {
	d := openDirectory(t, db.example(t, "web-cyradm"))
	anna := func() {
		says(t, d, attempt("anna", "secret", configs.IMAP), directories.Answer{User: "anna", Verified: true}, nil)
	}
	for range 3 {
		together(20, anna)
		db.exec(t, db.hangUp)
		together(20, anna)
	}
	together(20, anna)
	db.fail()
	db.restart(t)
	together(20, anna)
}

// together does something several times at once.
func together(times int, do func()) {
	var all sync.WaitGroup
	for range times {
		all.Go(do)
	}
	all.Wait()
}

// testFailing: while the database is killed, hangs and comes back nobody hears of a wrong password who has the right one, or gets in
// with a wrong one.
func testFailing(t *testing.T, db *database) {
	c := db.example(t, "web-cyradm")
	c.Timeout = 300 * time.Millisecond
	d := openDirectory(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	var logins sync.WaitGroup
	for range 4 {
		for secret, verdict := range map[string]error{"secret": nil, "wrong": directories.ErrDenied} {
			logins.Go(func() {
				for ctx.Err() == nil {
					got, err := d.Lookup(ctx, attempt("anna", secret, configs.IMAP))
					if errors.Is(err, directories.ErrNotFound) || errors.Is(err, directories.ErrDenied) && verdict == nil || got.Verified && verdict != nil {
						t.Errorf("with %s: %+v, %v", secret, got, err)
					}
					time.Sleep(5 * time.Millisecond)
				}
			})
		}
	}
	succeeds := func() bool {
		got, err := d.Lookup(ctx, attempt("anna", "secret", configs.IMAP))
		return err == nil && got.Verified
	}
	fails := func() bool { return !succeeds() }
	eventually(t, "anna gets in", succeeds)
	for range 2 {
		db.fail()
		eventually(t, "a dead database is noticed", fails)
		db.restart(t)
		eventually(t, "anna gets in after a crash", succeeds)
		resume := db.hang(t)
		eventually(t, "a database that hangs is noticed", fails)
		resume()
		eventually(t, "anna gets in after a pause", succeeds)
	}
	cancel()
	logins.Wait()

	resume := db.hang(t)
	defer resume()
	began := time.Now()
	if d.Close(); time.Since(began) > patience/2 {
		t.Errorf("closing took %v while the database hung", time.Since(began))
	}
}
