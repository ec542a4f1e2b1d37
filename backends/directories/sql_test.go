package directories

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"jackdaw/configs"
)

// The tests here ask SQLite, which needs no server; what differs elsewhere is asked in integration.

// makeSQLite makes a database from statements.
func makeSQLite(t testing.TB, statements string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a file?#%.db")
	db, err := openSQLite("file:"+strings.NewReplacer("%", "%25", "?", "%3F", "#", "%23", " ", "%20").Replace(path), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statements); err != nil {
		t.Fatal(err)
	}
	return path
}

func openSQL(t testing.TB, driver, dsn, query string) Directory {
	t.Helper()
	d, err := Open("accounts", configs.Directory{Kind: configs.DirectorySQL, Driver: driver, DSN: dsn, Query: configs.Query(query),
		Timeout: 10 * time.Second}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// loggedIn asks for somebody who shows a password; placed for somebody who does not.
func loggedIn(t testing.TB, d Directory, user, password string, service configs.Service) (Answer, error) {
	t.Helper()
	q := queryFor(user, service)
	q.Verify, q.Secret = true, password
	return d.Lookup(t.Context(), q)
}

func placed(t testing.TB, d Directory, user string, service configs.Service) (Answer, error) {
	t.Helper()
	return d.Lookup(t.Context(), queryFor(user, service))
}

func queryFor(user string, service configs.Service) Query {
	local, domain, _ := strings.Cut(user, "@")
	return Query{User: user, Local: local, Domain: domain, Service: service}
}

const webCyradm = `
CREATE TABLE accountuser (username TEXT PRIMARY KEY, password TEXT NOT NULL DEFAULT '', prefix TEXT, domain_name TEXT,
	imap INTEGER NOT NULL DEFAULT 1, pop INTEGER DEFAULT 1, sieve INTEGER DEFAULT 1, smtpauth INTEGER DEFAULT 1, smtp INTEGER DEFAULT 1);
INSERT INTO accountuser (username, password, domain_name) VALUES
	('anna', '5ebe2294ecd0e0f08eab7690d2a6ee69', 'a.example'),
	('bob', '$1$0jEOfr0t$8fzYo0q8h5eTjEAbJxeqa1', 'b.example'),
	('eve', '', 'a.example');
UPDATE accountuser SET sieve = 0 WHERE username = 'bob';`

const webCyradmQuery = `SELECT username AS user, password, imap, pop AS pop3, sieve, smtpauth AS submission, smtp AS lmtp
	FROM accountuser WHERE username = :local`

func TestSQL(t *testing.T) {
	d := openSQL(t, "sqlite", makeSQLite(t, webCyradm), webCyradmQuery)
	for _, tt := range []struct {
		user, password string
		service        configs.Service
		want           Answer
		err            error
	}{
		{"anna@a.example", "secret", configs.IMAPS, Answer{User: "anna", Verified: true}, nil},
		{"anna@a.example", "Secret", configs.IMAPS, Answer{}, ErrDenied},
		{"anna@a.example", "5ebe2294ecd0e0f08eab7690d2a6ee69", configs.IMAPS, Answer{}, ErrDenied},
		{"bob@b.example", "secret", configs.POP3, Answer{User: "bob", Verified: true}, nil},
		{"bob@b.example", "secret", configs.Sieve, Answer{User: "bob", Verified: true, Refuse: "sieve is not permitted in the database"}, nil},
		{"bob@b.example", "wrong", configs.Sieve, Answer{}, ErrDenied},
		{"eve@a.example", "", configs.IMAP, Answer{}, ErrDenied},
		{"eve@a.example", "secret", configs.IMAP, Answer{}, ErrDenied},
		{"nobody@a.example", "secret", configs.IMAP, Answer{}, ErrNotFound},
	} {
		if got, err := loggedIn(t, d, tt.user, tt.password, tt.service); got != tt.want || err != tt.err {
			t.Errorf("%s with %q on %s: got %+v, %v, want %+v, %v", tt.user, tt.password, tt.service, got, err, tt.want, tt.err)
		}
	}
	if got, err := placed(t, d, "eve@a.example", configs.LMTP); got != (Answer{User: "eve"}) || err != nil {
		t.Errorf("mail for eve, who cannot log in: %+v, %v", got, err)
	}
}

// TestSQLInjection: a name is a value, whatever stands in it.
func TestSQLInjection(t *testing.T) {
	d := openSQL(t, "sqlite", makeSQLite(t, webCyradm), webCyradmQuery)
	for _, user := range injections {
		if got, err := loggedIn(t, d, user, "secret", configs.IMAP); got != (Answer{}) || err == nil || errors.Is(err, ErrDenied) {
			t.Errorf("%q: %+v, %v", user, got, err)
		}
	}
	if _, err := loggedIn(t, d, "anna@a.example", "secret", configs.IMAP); err != nil {
		t.Errorf("afterwards anna: %v", err)
	}
}

// injections are names of nobody.
var injections = []string{
	"", "'", "''", "\\", "\\'", `"`, "`", ":user", ":local", "?", "$1", "%", "_nna", "an%", "*", ";", "anna'--", "anna' OR '1'='1", "anna\\' OR 1=1 -- ",
	"anna'; DROP TABLE accountuser; --", "x' UNION SELECT username,password,1,1,1,1,1 FROM accountuser --", "anna\x00", "anna\r\n", "anna\n",
	"\xbf' OR 1=1 -- ", "\xff\xfe", "anna/*", "*)(uid=*", strings.Repeat("a", 100_000),
}

// TestSQLWorld: none of these says anything about the user, and so all are failures of the world.
func TestSQLWorld(t *testing.T) {
	path := makeSQLite(t, "CREATE TABLE t (user TEXT, store TEXT, password TEXT); INSERT INTO t VALUES ('anna', 's1', 'x'), ('anna', 's2', '{X}y')")
	for _, tt := range []struct{ query, want string }{
		{"SELECT store AS backend FROM t WHERE user = :user", "several rows"},
		{"SELECT store, user, 1 AS quota FROM t", `columns of no use: "store", "quota"`},
		{"SELECT store AS host FROM t WHERE user = :user AND absent", "no such column"},
		{"SELECT 's1' AS host, 's2' AS backend", "two columns for backend"},
		{"SELECT 's1' AS backend, 's2' AS Backend", "two columns for backend"},
		{"SELECT 1 AS imaps", `no use: "imaps"`},
		{"SELECT char(10) AS backend", "the column backend has control characters"},
		{"SELECT CAST(x'ff' AS TEXT) AS user", "the column user has control characters, or is not in UTF-8"},
		{"SELECT 1.5 AS user", "the column user has no text"},
		{"SELECT printf('%600s', 'x') AS backend", "the column backend has more than 512 bytes"},
		{"SELECT printf('%1100s', 'x') AS password", "the column password has more than 1024 bytes"},
		{"SELECT 'perhaps' AS imap", "the column imap says neither yes nor no"},
		{"SELECT 's1' AS backend", "no column password"},
		{"SELECT password FROM t WHERE store = 's2'", "unknown scheme, {X}"},
		{"SELECT password FROM t WHERE store = 's1'", "does not say its scheme"},
		{"SELECT FROM", "syntax error"},
		{"DELETE FROM t WHERE user = :user", "readonly"},
	} {
		d := openSQL(t, "sqlite", path, tt.query)
		got, err := loggedIn(t, d, "anna", "x", configs.IMAP)
		if got != (Answer{}) || err == nil || errors.Is(err, ErrDenied) || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %+v, %v, want %s", tt.query, got, err, tt.want)
		}
	}
}

func TestSQLPermission(t *testing.T) {
	path := makeSQLite(t, "CREATE TABLE t (x)")
	for _, yes := range []string{"1", "2", "-1", "0.5", "'1'", "'y'", "'Y'", "'yes'", "'true'", "'t'", "'on'", "x'01'", "' 1'"} {
		if a, err := placed(t, openSQL(t, "sqlite", path, "SELECT "+yes+" AS sieve"), "a", configs.Sieve); a.Refuse != "" || err != nil {
			t.Errorf("%s: %+v, %v", yes, a, err)
		}
	}
	for _, no := range []string{"0", "0.0", "NULL", "false", "'0'", "'n'", "'N'", "'no'", "'f'", "'false'", "'off'", "''", "'  '", "x'00'"} {
		d := openSQL(t, "sqlite", path, "SELECT "+no+" AS sieve, 1 AS pop3")
		if a, err := placed(t, d, "a", configs.Sieve); a.Refuse == "" || err != nil {
			t.Errorf("%s: %+v, %v", no, a, err)
		}
		for _, service := range []configs.Service{configs.IMAP, configs.POP3S} {
			if a, err := placed(t, d, "a", service); a.Refuse != "" || err != nil {
				t.Errorf("%s: %s: %+v, %v", no, service, a, err)
			}
		}
	}
}

// TestSQLiteFile: it is not made where it is missing, and what is none is no unknown user.
func TestSQLiteFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.db")
	text := filepath.Join(t.TempDir(), "text.db")
	write(t, text, strings.Repeat("this is no database ", 1000))
	for path, want := range map[string]string{missing: "unable to open", text: "not a database"} {
		_, err := placed(t, openSQL(t, "sqlite", path, "SELECT 1 AS imap"), "anna", configs.IMAP)
		if err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
	if found, _ := filepath.Glob(missing); found != nil {
		t.Error("the missing file was made")
	}
}

// TestSQLTimeout: somebody else has the database for himself.
func TestSQLTimeout(t *testing.T) {
	path := makeSQLite(t, webCyradm)
	d, err := newSQL(configs.Directory{Driver: "sqlite", DSN: path, Query: webCyradmQuery, Timeout: 50 * time.Millisecond}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	holder, err := openSQLite(path, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	hold, err := holder.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hold.ExecContext(t.Context(), "PRAGMA query_only(0); BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	if _, err := placed(t, d, "anna", configs.IMAP); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("while it is locked: %v", err)
	}
	if err := hold.Close(); err != nil {
		t.Fatal(err)
	}
	holder.Close()
	if _, err := placed(t, d, "anna", configs.IMAP); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestSQLOpenErrors(t *testing.T) {
	for _, tt := range []struct{ driver, dsn, query, want string }{
		{"postgres", "postgres://u:secret@h:port/x", "SELECT 1", "not the address of a database such as"},
		{"postgres", "secret", "SELECT 1", "not the address of a database such as"},
		{"mysql", "u:secret@tcp(h)", "SELECT 1", "not the address of a database such as"},
		{"mysql", "u:p/a?tls=secret@tcp", "SELECT 1", "not the address of a database such as"},
		{"sqlite", "x", "SELECT :x", "unknown parameter :x"},
	} {
		_, err := Open("accounts", configs.Directory{Kind: configs.DirectorySQL, Driver: tt.driver, DSN: tt.dsn,
			Query: configs.Query(tt.query), Timeout: time.Second}, zap.NewNop())
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s %s: got %v, want %s", tt.driver, tt.dsn, err, tt.want)
		}
	}
}

// TestSQLClosed: a closed directory answers nobody.
func TestSQLClosed(t *testing.T) {
	d := openSQL(t, "sqlite", makeSQLite(t, webCyradm), webCyradmQuery)
	d.Close()
	if _, err := placed(t, d, "anna", configs.IMAP); err == nil {
		t.Errorf("got %v", err)
	}
}

// TestSQLTogether: many ask at once, with a few connections.
func TestSQLTogether(t *testing.T) {
	d := openSQL(t, "sqlite", makeSQLite(t, webCyradm), webCyradmQuery)
	errs := make(chan error)
	for range 50 {
		go func() {
			got, err := d.Lookup(context.WithoutCancel(t.Context()), queryFor("anna", configs.IMAP))
			if err == nil && got.User != "anna" {
				err = fmt.Errorf("got %+v", got)
			}
			errs <- err
		}()
	}
	for range 50 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// TestDeadConnection: what a fresh connection would not answer otherwise is not asked again.
func TestDeadConnection(t *testing.T) {
	for _, err := range []error{io.EOF, fmt.Errorf("reading: %w", io.ErrUnexpectedEOF), syscall.ECONNRESET, driver.ErrBadConn, mysql.ErrInvalidConn,
		&pgconn.PgError{Code: "57P01"}, &mysql.MySQLError{Number: 1927}} {
		if !deadConnection(err) {
			t.Errorf("%v is the end of a connection", err)
		}
	}
	for _, err := range []error{ErrNotFound, errSeveralRows, context.DeadlineExceeded, syscall.ECONNREFUSED, &pgconn.PgError{Code: "42P01"},
		&mysql.MySQLError{Number: 1146}} {
		if deadConnection(err) {
			t.Errorf("%v is asked again", err)
		}
	}
}
