package configs

import "testing"

// TestSQLiteFile: a database that is a file stands, as any file, beside the configuration; other addresses stay as they are.
func TestSQLiteFile(t *testing.T) {
	for _, tt := range []struct{ driver, dsn, want string }{
		{"sqlite", "accounts.db", "/etc/jackdaw/accounts.db"},
		{"sqlite", "/var/lib/accounts.db", "/var/lib/accounts.db"},
		{"sqlite", "file:accounts.db?mode=ro", "file:accounts.db?mode=ro"},
		{"postgres", "host=/run/postgresql", "host=/run/postgresql"},
	} {
		got := parse(t, `
			[listen]
			imap = "127.0.0.1:1143"
			[tls]
			certificates = "certs"
			[directory.accounts]
			kind = "sql"
			driver = "`+tt.driver+`"
			dsn = "`+tt.dsn+`"
			query = "SELECT 1 AS imap"
			[[backend]]
			name = "store1"
			imap = "127.0.0.1:143"
			[[route]]
			lookup = "accounts"
			to = "store1"`)
		if dsn := got.Directories["accounts"].DSN; dsn != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.driver, tt.dsn, dsn, tt.want)
		}
	}
}
