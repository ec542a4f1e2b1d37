package configs

import "time"

// Auth is the [auth] table: who decides whether a password is right.
type Auth struct {
	// Verify is VerifyBackend unless the file says otherwise.
	Verify Verify `toml:"verify"`
	// Scram are the mechanisms, of SCRAM-SHA-256 and SCRAM-SHA-1, for which directories have keys of all passwords, or the passwords
	// themselves. A client that may choose takes them, so nobody without keys could log in any more. Default: none; for
	// VerifyDirectory only, as Dovecot says itself what it has.
	Scram []string `toml:"scram"`
	// Socket is the unix socket of saslauthd or of Dovecot's auth service; default /run/saslauthd/mux, and
	// /run/dovecot/auth-client. For other verifiers none of Socket, Timeout and Cache is of use: stores are asked each time
	// anyway, and directories have their own.
	Socket string `toml:"socket"`
	// Realm tells how saslauthd is told of a user's domain: RealmApart (the default), in a field of its own, or RealmJoined, as
	// part of the name, which `saslauthd -r` makes of the two as well.
	Realm AuthRealm `toml:"realm"`
	// Timeout bounds one question; default 30s: Dovecot lets a client with wrong passwords wait for up to 17.
	Timeout time.Duration `toml:"timeout"`
	// Cache is how long a right password is known by a keyed hash and not asked about again; default 0: never.
	Cache time.Duration `toml:"cache"`

	Tokens Tokens `toml:"tokens"`
}

// Verify is who verifies.
type Verify string

// The verifiers.
const (
	VerifyBackend   Verify = "backend"   // the store itself
	VerifySaslauthd Verify = "saslauthd" // over its mux socket
	VerifyDovecot   Verify = "dovecot"   // over the client socket of its auth service
	VerifyDirectory Verify = "directory" // the directory that places the user
)

// AuthRealm is a way to say a domain.
type AuthRealm string

// The ways.
const (
	RealmApart  AuthRealm = "apart"
	RealmJoined AuthRealm = "joined"
)

func parseVerify(s string) (any, error) {
	return Verify(s), oneOf("verifier", s, []string{string(VerifyBackend), string(VerifySaslauthd), string(VerifyDovecot), string(VerifyDirectory)})
}

func parseAuthRealm(s string) (any, error) {
	return AuthRealm(s), oneOf("way", s, []string{string(RealmApart), string(RealmJoined)})
}

// sockets are where verifiers usually are.
var sockets = map[Verify]string{VerifySaslauthd: "/run/saslauthd/mux", VerifyDovecot: "/run/dovecot/auth-client"}

// scramMechanisms are what may stand in Auth.Scram.
var scramMechanisms = []string{"SCRAM-SHA-256", "SCRAM-SHA-1"}

func (a *Auth) check(d *decoder, n *node) {
	if n.get("verify") == nil {
		a.Verify = VerifyBackend
	}
	for _, key := range []string{"socket", "timeout", "cache"} {
		if value := n.get(key); value != nil && sockets[a.Verify] == "" {
			d.errorf(value, "auth.%s is of no use with verify = %q", key, a.Verify)
		}
	}
	if value := n.get("scram"); value != nil && a.Verify != VerifyDirectory {
		d.errorf(value, `auth.scram is of no use without verify = "directory"`)
	}
	for i, name := range a.Scram {
		if err := oneOf("mechanism", name, scramMechanisms); err != nil {
			d.errorf(n.get("scram").list()[i], "auth.scram: %s", err)
		}
	}
	if value := n.get("tokens"); value != nil && a.Verify == VerifyBackend {
		d.errorf(value, `auth.tokens is of no use with verify = "backend": the stores decide about tokens, too`)
	}
	if n.get("socket") == nil {
		a.Socket = sockets[a.Verify]
	}
	d.canonical(n.at("socket"), &a.Socket, d.relative)
	if value := n.get("realm"); value == nil {
		a.Realm = RealmApart
	} else if a.Verify != VerifySaslauthd {
		d.errorf(value, `auth.realm is of no use without verify = "saslauthd"`)
	}
	d.verifierTimes(n, &a.Timeout, 30*time.Second, a.Cache)
}

// verifierTimes looks at how long a verifier may take for one question, by default unset, and how long its answer is known.
func (d *decoder) verifierTimes(n *node, timeout *time.Duration, unset, cache time.Duration) {
	if n.get("timeout") == nil {
		*timeout = unset
	}
	if *timeout <= 0 {
		d.errorf(n.at("timeout"), "timeout must be longer than 0")
	}
	if cache < 0 {
		d.errorf(n.at("cache"), "cache cannot be shorter than 0")
	}
}
