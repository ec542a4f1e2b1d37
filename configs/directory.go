package configs

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Directory is a [directory.NAME]: where it is known in which store a user's mail lives, and perhaps his password. What
// stands beside Kind, Timeout and the lifetimes is for the kinds that are named there, and an error for others.
type Directory struct {
	Kind DirectoryKind `toml:"kind"`

	// Path is the file of DirectoryFile. It is watched.
	Path string `toml:"path"`

	// Driver, DSN and Query are for DirectorySQL. The DSN is what the driver wants: a URL, or a file for sqlite, which must be
	// there. The query has named parameters, :user :local :domain :service :sni :client, and its columns are known by their
	// names: backend or host, user, password as it is stored, and the permissions imap, pop3, submission, sieve and lmtp.
	Driver string `toml:"driver"`
	DSN    string `toml:"dsn,secret"`
	Query  Query  `toml:"query"`

	// URLs are the servers of DirectoryLDAP, tried in order: "ldap://host", "ldaps://host", both with a port if need be, and
	// "ldapi:///path" for a unix socket. StartTLS is for the first kind, and must be said for hosts beyond this machine.
	URLs     []string `toml:"urls"`
	StartTLS bool     `toml:"starttls"`
	// BindDN and BindPassword are what searches log in with; default: nothing, as a server allows that answers anybody.
	BindDN       string `toml:"bind_dn"`
	BindPassword string `toml:"bind_password,secret"`
	Base         string `toml:"base"`
	// Filter has the parameters of Query, which are escaped in it; default "(mail=:user)".
	Filter Query `toml:"filter"`
	// Backend and User are the attributes of DirectoryLDAP that hold the store and the name there; default: none. For
	// DirectoryMUPDATE User is the name to log in with; default: none, as a master allows that trusts our address.
	Backend string `toml:"backend"`
	User    string `toml:"user"`
	// Services maps a service to the attribute that permits it: "1", "TRUE" and "yes" do, "0", "FALSE", "no" and none refuse.
	Services map[Service]string `toml:"services"`

	// URL and Headers are for DirectoryHTTP, nginx's auth_http protocol. {listen_port} in a header is the port that the client
	// has connected to, {client_port} the client's own.
	URL     string            `toml:"url"`
	Headers map[string]string `toml:"headers"`

	// Servers are the masters of DirectoryMUPDATE, tried in order. TLS is none unless the file says otherwise, which it has to
	// for a host beyond this machine. Password belongs to User. Copy is a file that a restart begins with.
	Servers  []Address `toml:"server"`
	TLS      TLSMode   `toml:"tls"`
	Password string    `toml:"password,secret"`
	Copy     string    `toml:"copy"`

	// TLSCA is a PEM file with the authorities that the server's certificate is checked with; default: the system's. For
	// DirectoryLDAP, DirectoryHTTP and DirectoryMUPDATE.
	TLSCA string `toml:"tls_ca"`

	// Timeout bounds one question; default 5s.
	Timeout time.Duration `toml:"timeout"`
	// Cache is how long an answer holds, CacheMissing how long it does that a user is not known, and Stale how long an answer
	// is good for while the source cannot be asked; default 30s, 5s and 1h. DirectoryFile and DirectoryMUPDATE have everything
	// in memory and need none of these. An answer that verifies a password is never stale.
	Cache        time.Duration `toml:"cache"`
	CacheMissing time.Duration `toml:"cache_missing"`
	Stale        time.Duration `toml:"stale"`

	Line int // where it stands in the file
}

// Query is text of several lines in which named parameters stand.
type Query string

// DirectoryKind is a kind of directory.
type DirectoryKind string

// The kinds.
const (
	DirectoryFile    DirectoryKind = "file"
	DirectorySQL     DirectoryKind = "sql"
	DirectoryLDAP    DirectoryKind = "ldap"
	DirectoryHTTP    DirectoryKind = "http"
	DirectoryMUPDATE DirectoryKind = "mupdate"
)

// StoresPasswords reports whether such a directory has what is stored of passwords, and not only an answer about one.
func (k DirectoryKind) StoresPasswords() bool { return k == DirectoryFile || k == DirectorySQL }

// directoryKeys are the keys that only some kinds have, and whether the kind must have them.
var directoryKeys = map[DirectoryKind]map[string]bool{
	DirectoryFile: {"path": true},
	DirectorySQL:  {"driver": true, "dsn": true, "query": true, "cache": false, "cache_missing": false, "stale": false},
	DirectoryLDAP: {"urls": true, "base": true, "starttls": false, "bind_dn": false, "bind_password": false, "filter": false, "backend": false,
		"user": false, "services": false, "tls_ca": false, "cache": false, "cache_missing": false, "stale": false},
	DirectoryHTTP:    {"url": true, "headers": false, "tls_ca": false, "cache": false, "cache_missing": false, "stale": false},
	DirectoryMUPDATE: {"server": true, "user": false, "password": false, "tls": false, "tls_ca": false, "copy": false},
}

// SQLDrivers are the databases that are known.
var SQLDrivers = []string{"postgres", "mysql", "sqlite"}

func parseDirectoryKind(s string) (any, error) {
	kinds := []string{string(DirectoryFile), string(DirectorySQL), string(DirectoryLDAP), string(DirectoryHTTP), string(DirectoryMUPDATE)}
	return DirectoryKind(s), oneOf("kind of directory", s, kinds)
}

func (q *Directory) check(d *decoder, n *node) {
	keys, known := directoryKeys[q.Kind]
	if !known {
		if n.get("kind") == nil {
			d.errorf(n, `%s needs a kind: "file", "sql", "ldap", "http" or "mupdate"`, n.path)
		}
		return
	}
	for _, key := range n.keys {
		if _, fits := keys[strings.TrimSuffix(key, "_file")]; !fits && key != "kind" && key != "timeout" {
			d.errorf(n.values[key], "%s: a directory of kind %q has no %s", n.path, q.Kind, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if keys[key] && n.secret(key) == nil {
			d.errorf(n, "%s: a directory of kind %q needs %s", n.path, q.Kind, key)
		}
	}
	q.checkValues(d, n)
	q.fillIn(n)
}

func (q *Directory) checkValues(d *decoder, n *node) {
	if value := n.get("driver"); value != nil {
		if err := oneOf("driver", q.Driver, SQLDrivers); err != nil {
			d.errorf(value, "%s: %s", value.path, err)
		}
	}
	if value := n.get("url"); value != nil && strings.Contains(q.URL, "@") {
		d.errorf(value, "%s: a name or password cannot stand in a URL; a secret can be one of the headers", value.path)
	} else if value != nil && !isURL(q.URL) {
		d.errorf(value, `%s: %q is no URL such as "http://127.0.0.1:9000/auth"`, value.path, q.URL)
	}
	q.checkHeaders(d, n.get("headers"))
	q.checkLDAP(d, n)
	q.checkMUPDATE(d, n)
	for key, lifetime := range map[string]time.Duration{"timeout": q.Timeout, "cache": q.Cache, "cache_missing": q.CacheMissing, "stale": q.Stale} {
		if lifetime < 0 || key == "timeout" && lifetime == 0 && n.get(key) != nil {
			d.errorf(n.at(key), "%s must be longer than 0", key)
		}
	}
	d.canonical(n.at("path"), &q.Path, d.relative)
	if q.Driver == "sqlite" && !strings.HasPrefix(q.DSN, "file:") {
		d.canonical(n.at("dsn"), &q.DSN, d.relative)
	}
	d.canonical(n.at("tls_ca"), &q.TLSCA, d.relative)
	d.canonical(n.at("copy"), &q.Copy, d.relative)
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
}

// checkHeaders refuses what is no header, and those that say what the protocol or HTTP itself says there.
func (q *Directory) checkHeaders(d *decoder, n *node) {
	for _, name := range slices.Sorted(maps.Keys(q.Headers)) {
		own := []string{"Auth-Method", "Auth-User", "Auth-Pass", "Auth-Protocol", "Auth-Login-Attempt", "Client-IP", "Client-Host", "Host",
			"Connection", "Content-Length", "Transfer-Encoding", "Trailer"}
		switch {
		case name == "" || strings.ContainsFunc(name, func(r rune) bool { return !isBare(r) }):
			d.errorf(n.at(name), "%s: %q is no name of a header", n.path, name)
		case slices.ContainsFunc(own, func(o string) bool { return strings.EqualFold(o, name) }):
			d.errorf(n.at(name), "%s: %s has its own meaning in the protocol", n.path, name)
		}
	}
}

// fillIn gives the defaults of what a kind has.
func (q *Directory) fillIn(n *node) {
	fill := func(key string, value *time.Duration, unset time.Duration) {
		if n.get(key) == nil {
			*value = unset
		}
	}
	fill("timeout", &q.Timeout, 5*time.Second)
	if _, cached := directoryKeys[q.Kind]["cache"]; cached {
		fill("cache", &q.Cache, 30*time.Second)
		fill("cache_missing", &q.CacheMissing, 5*time.Second)
		fill("stale", &q.Stale, time.Hour)
	}
	if q.Kind == DirectoryLDAP && q.Filter == "" {
		q.Filter = "(mail=:user)"
	}
}
