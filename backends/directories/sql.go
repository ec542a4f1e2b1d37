package directories

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/zap"
	_ "modernc.org/sqlite" // the driver sqlite

	"jackdaw/configs"
)

const (
	// sqlConns bounds the connections to a database. Some hundred logins in a second need one.
	sqlConns = 8
	// A connection is closed when it was not needed for sqlIdle, and when it is sqlLifetime old: a firewall may have
	// forgotten it, and the database may have moved.
	sqlIdle     = time.Minute
	sqlLifetime = 10 * time.Minute
	// sqlGoodbye is how long a database is waited for when its connections are closed.
	sqlGoodbye = time.Second
)

// sqlDirectory asks a database one query. Each value in the row, which must be the only one, is known by its column's name.
type sqlDirectory struct {
	db      *sql.DB
	query   sqlQuery
	timeout time.Duration

	prepares  bool // the driver keeps no statements itself
	statement atomic.Pointer[sql.Stmt]
	passwords storedPasswords
}

// sqlOpeners do not connect yet.
var sqlOpeners = map[string]func(dsn string, timeout time.Duration) (*sql.DB, error){
	"postgres": openPostgres, "mysql": openMySQL, "sqlite": openSQLite,
}

func newSQL(c configs.Directory, _ *zap.Logger) (Directory, error) {
	query, err := parseSQL(c.Driver, c.Query)
	if err != nil {
		return nil, err
	}
	db, err := sqlOpeners[c.Driver](c.DSN, c.Timeout)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(sqlConns)
	db.SetMaxIdleConns(sqlConns)
	db.SetConnMaxIdleTime(sqlIdle)
	db.SetConnMaxLifetime(sqlLifetime)
	return &sqlDirectory{db: db, query: query, timeout: c.Timeout, prepares: c.Driver == "mysql"}, nil
}

// The errors of the parsers may show parts of the dsn, and so a password.

func openPostgres(dsn string, timeout time.Duration) (*sql.DB, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New(`dsn: not the address of a database such as "postgres://mail@db.example.net/mail?sslmode=verify-full"`)
	}
	config.ConnectTimeout = timeout
	config.RuntimeParams["client_encoding"] = "UTF8"
	return stdlib.OpenDB(*config), nil
}

func openMySQL(dsn string, timeout time.Duration) (*sql.DB, error) {
	config, err := mysql.ParseDSN(dsn)
	if err == nil {
		config.Timeout, config.ReadTimeout, config.WriteTimeout = timeout, timeout, timeout
		config.Logger = &mysql.NopLogger{} // it would write to stderr, what we get as an error
		var connector driver.Connector
		if connector, err = mysql.NewConnector(config); err == nil {
			return sql.OpenDB(connector), nil
		}
	}
	return nil, errors.New(`dsn: not the address of a database such as "mail:password@unix(/run/mysqld/mysqld.sock)/mail"`)
}

// openSQLite takes a file that must be there, and changes nothing in it. A "file:" URL is taken as it is.
func openSQLite(dsn string, timeout time.Duration) (*sql.DB, error) {
	if !strings.HasPrefix(dsn, "file:") {
		options := url.Values{"mode": {"rw"}, "_pragma": {"query_only(1)", fmt.Sprintf("busy_timeout(%d)", timeout.Milliseconds())}}
		dsn = (&url.URL{Scheme: "file", OmitHost: true, Path: dsn, RawQuery: options.Encode()}).String()
	}
	return sql.Open("sqlite", dsn)
}

// Close ends the connections. A database that hangs is not waited for: its connections end by themselves, some seconds later.
func (d *sqlDirectory) Close() {
	closed := make(chan struct{})
	go func() {
		_ = d.db.Close() // what it closes has no use any more
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(sqlGoodbye):
	}
}

// Lookup asks the database, and compares the password if that is asked for.
func (d *sqlDirectory) Lookup(ctx context.Context, q Query) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	row, err := d.ask(ctx, q)
	switch {
	case errors.Is(err, ErrNotFound):
		if q.Verify {
			d.passwords.waste(ctx)
		}
		return Answer{}, ErrNotFound
	case err != nil:
		return Answer{}, fmt.Errorf("asking the database: %w", err)
	}
	answer, err := row.answer(q.Service)
	switch {
	case err != nil:
	case q.Stored:
		answer.Stored, err = row.stored()
	case q.Verify:
		answer.Verified, err = true, d.verify(ctx, row, q.Secret)
	}
	if err != nil {
		return Answer{}, err
	}
	return answer, nil
}

// verify compares a password with the stored one. Nobody's is NULL or empty.
func (d *sqlDirectory) verify(ctx context.Context, row sqlRow, password string) error {
	stored, err := row.stored()
	if err != nil {
		return err
	}
	return d.passwords.verify(ctx, stored, password)
}

// ask asks again while it meets connections that have died since they were used: there may be as many as are kept.
func (d *sqlDirectory) ask(ctx context.Context, q Query) (sqlRow, error) {
	for tries := 0; ; tries++ {
		row, err := d.askOnce(ctx, q)
		if err == nil || tries == sqlConns || ctx.Err() != nil || !deadConnection(err) {
			return row, err
		}
	}
}

func (d *sqlDirectory) askOnce(ctx context.Context, q Query) (sqlRow, error) {
	rows, err := d.rows(ctx, d.query.arguments(q))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	return readRow(rows)
}

func (d *sqlDirectory) rows(ctx context.Context, arguments []any) (*sql.Rows, error) {
	if !d.prepares {
		return d.db.QueryContext(ctx, d.query.text, arguments...)
	}
	statement := d.statement.Load()
	if statement == nil {
		made, err := d.db.PrepareContext(ctx, d.query.text)
		if err != nil {
			return nil, err
		}
		if statement = made; !d.statement.CompareAndSwap(nil, made) { // somebody else has made one meanwhile
			_ = made.Close()
			statement = d.statement.Load()
		}
	}
	return statement.QueryContext(ctx, arguments...)
}

// What a database says when it is about to end, or when what was prepared on the connection holds no longer.
var (
	postgresEnds = []string{"57P01", "57P02", "57P03", "0A000", "26000"}
	mysqlEnds    = []uint16{1053, 1243, 1615, 1927}
)

// deadConnection reports whether an error is about the connection, so that a fresh one may have an answer.
func deadConnection(err error) bool {
	if _, fresh := errors.AsType[*pgconn.ConnectError](err); fresh {
		return false
	}
	if refusal, ok := errors.AsType[*pgconn.PgError](err); ok {
		return slices.Contains(postgresEnds, refusal.Code)
	}
	if refusal, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return slices.Contains(mysqlEnds, refusal.Number)
	}
	return pgconn.SafeToRetry(err) || slices.ContainsFunc([]error{driver.ErrBadConn, mysql.ErrInvalidConn, io.EOF,
		io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE}, func(dead error) bool { return errors.Is(err, dead) })
}
