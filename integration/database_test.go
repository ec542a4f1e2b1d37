package integration

import (
	"database/sql"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// database is a real server, with accounts for its administrator and for jackdaw, which may only read.
type database struct {
	*process
	driver string
	dsn    string // jackdaw's
	admin  *sql.DB
	hangUp string // a statement that ends all connections but its own
	launch func() *process
	crash  syscall.Signal
}

// restart brings it back, or up for the first time.
func (d *database) restart(t testing.TB) {
	t.Helper()
	d.process = d.launch()
	eventually(t, d.driver+" answers", func() bool {
		select {
		case <-d.done:
			t.Fatalf("%s ended (%v):\n%s", d.driver, d.end, d.Log())
		default:
		}
		return d.admin.PingContext(t.Context()) == nil
	})
}

// fail ends it as a crash does.
func (d *database) fail() {
	d.signal(d.crash)
	<-d.done
}

func (d *database) exec(t testing.TB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := d.admin.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %s: %v", d.driver, statement, err)
		}
	}
}

const (
	portPostgres = "15432"
	portMariaDB  = "13306"
)

// startPostgres runs a PostgreSQL until the test ends.
func startPostgres(t testing.TB) *database {
	t.Helper()
	bin := onlyOne(t, filepath.Join(needServers(t), "postgres/usr/lib/postgresql/*/bin"))
	dir, host := serverDir(t), newHost()
	write(t, filepath.Join(dir, "admin"), "admin-secret\n")
	create := asServant(t, exec.Command(filepath.Join(bin, "initdb"), "-D", dir+"/data", "-U", "admin", "--pwfile", dir+"/admin",
		"-A", "scram-sha-256", "-E", "UTF8", "--locale", "C", "--no-sync"))
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", create, err, out)
	}
	at := "@" + net.JoinHostPort(host, portPostgres) + "/postgres?sslmode=disable"
	d := &database{driver: "postgres", dsn: "postgres://mail:" + proxyPassword + at, crash: syscall.SIGQUIT,
		hangUp: "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mail'"}
	d.launch = func() *process {
		return startProcess(t, filepath.Join(dir, "log"), asServant(t, exec.Command(filepath.Join(bin, "postgres"), "-D", dir+"/data",
			"-k", dir, "-h", host, "-p", portPostgres, "-c", "fsync=off", "-c", "shared_buffers=8MB", "-c", "max_connections=40")))
	}
	d.open(t, "pgx", "postgres://admin:admin-secret"+at)
	d.exec(t, "CREATE USER mail PASSWORD '"+proxyPassword+"'", "GRANT pg_read_all_data TO mail")
	return d
}

// startMariaDB runs a MariaDB until the test ends.
func startMariaDB(t testing.TB) *database {
	t.Helper()
	tree := filepath.Join(needServers(t), "mariadb/usr")
	dir, host := serverDir(t), newHost()
	mustMkdir(t, filepath.Join(dir, "data"), 0o700)
	give(t, filepath.Join(dir, "data"))
	server := func(args ...string) *exec.Cmd {
		return asServant(t, exec.Command(filepath.Join(tree, "sbin/mariadbd"), append([]string{"--no-defaults", "--datadir=" + dir + "/data",
			"--basedir=" + tree, "--lc-messages-dir=" + tree + "/share/mysql", "--character-sets-dir=" + tree + "/share/mysql/charsets",
			"--innodb-buffer-pool-size=8M", "--innodb-flush-log-at-trx-commit=0"}, args...)...))
	}
	create := server("--bootstrap")
	create.Stdin = strings.NewReader("CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n" +
		contents(t, tree+"/share/mysql/mysql_system_tables.sql") + contents(t, tree+"/share/mysql/mysql_system_tables_data.sql") +
		"\nFLUSH PRIVILEGES;\nCREATE DATABASE mail;\n" +
		"CREATE USER admin IDENTIFIED BY 'admin-secret';\nGRANT ALL ON *.* TO admin;\n" +
		"CREATE USER mail IDENTIFIED BY '" + proxyPassword + "';\nGRANT SELECT ON mail.* TO mail;\n")
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", create, err, out)
	}
	at := "@tcp(" + net.JoinHostPort(host, portMariaDB) + ")/mail"
	d := &database{driver: "mysql", dsn: "mail:" + proxyPassword + at, crash: syscall.SIGKILL, hangUp: "KILL CONNECTION USER mail"}
	d.launch = func() *process {
		return startProcess(t, filepath.Join(dir, "log"), server("--socket="+dir+"/socket", "--bind-address="+host,
			"--port="+portMariaDB, "--skip-name-resolve", "--max-connections=40"))
	}
	d.open(t, "mysql", "admin:admin-secret"+at)
	return d
}

// open starts the server, for the administrator first.
func (d *database) open(t testing.TB, driver, dsn string) {
	t.Helper()
	var err error
	if d.admin, err = sql.Open(driver, dsn); err != nil {
		t.Fatal(err)
	}
	d.admin.SetMaxIdleConns(0) // no connection of before a restart
	d.restart(t)
	t.Cleanup(func() { _ = d.admin.Close() })
}

// openSQLite is the library that stands for a server in jackdaw itself.
func openSQLite(t testing.TB) *database {
	t.Helper()
	path := filepath.Join(t.TempDir(), "accounts.db")
	admin, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })
	return &database{driver: "sqlite", dsn: path, admin: admin}
}

func onlyOne(t testing.TB, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s is %q: %v", pattern, found, err)
	}
	return found[0]
}
