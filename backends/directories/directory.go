// Package directories asks where a user's mail lives, and whether a password is right: in files, databases, LDAP, a service that
// speaks nginx's auth_http, or a Cyrus Murder. Those who verify and place nobody, saslauthd and Dovecot's auth service, are
// directories, too.
//
// Each kind is one file, and made by New. What a kind need not know is in cache.go: answers are kept for a while, a question that
// is being asked is not asked twice, and a source that is down is answered for by what it said last.
package directories

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"time"

	"jackdaw/configs"
)

// Query is what is known when a user must be placed or verified. No part of it has control characters.
type Query struct {
	// User is the canonical user, Local and Domain are its parts; a bare name has no Domain.
	User, Local, Domain string
	Detail              string // what stands behind the user in a recipient's address, with the "+" in front; LMTP alone has it
	Service             configs.Service
	Mechanism           string // SASL's name in upper case, LOGIN for a protocol's own command; "" for LMTP, which has no login
	// Secret is the password or token that the client has given, "" where it gave none: LMTP, SCRAM, EXTERNAL.
	Secret string
	// Exchange is what the client shows where a secret is not all; nil for a password.
	Exchange *Exchange
	// Verify asks for a verification: the answer is ErrDenied, or has Verified. Without it the answer only places the user, and the
	// secret is for a directory whose protocol cannot do without.
	Verify bool
	// Stored asks for Answer.Stored.
	Stored bool

	Client   netip.Addr     // the zero address on a unix socket
	Port     uint16         // the client's
	Address  netip.AddrPort // where the client has connected to; zero on a unix socket
	Listener string
	SNI      string // only if a certificate of ours has the name
	Hello    string // what a client of SMTP or LMTP calls itself
	Session  string // the session's id
	TLS      uint16 // the version; 0 without TLS
	Cipher   uint16 // the cipher suite; 0 without TLS
	Attempt  int    // the how-many-th of the connection, from 1
}

// Exchange is a proof that takes several messages (RFC 4422 section 3), at the point where the client has sent the first.
type Exchange struct {
	// Name is whom the first message names, octet by octet: another name than the canonical one cannot take its place.
	Name  string
	First []byte
	// Ask hands a challenge to the client and returns the response, for which the client may take its time.
	Ask func(challenge []byte) (response []byte, err error)
}

// Answer is what a directory says of a user whom it knows.
type Answer struct {
	// Backend is a backend's or a pool's name, or a host, or host:port; "" leaves it to the route.
	Backend string
	// User is the name to log in with; "" keeps it.
	User string
	// Password is the one to log in with; "" keeps the client's.
	Password string
	// Verified says that the secret was checked, and is right.
	Verified bool
	// Until is when that ends to hold; zero where nobody has said.
	Until time.Time
	// Refuse says why the user may not use this service; "" where he may.
	Refuse string
	// Wait is a delay before the answer to the client that the source asks for.
	Wait time.Duration
	// Kept is when the source has said this, where it was not asked now, and Down since when it cannot be asked; zero otherwise.
	Kept, Down time.Time
	// Stored is what is stored of the password, in a form of package passwords, if it was asked for; "" is nobody's, and also for a
	// directory that does not know.
	Stored string
}

// Or completes what a directory says of a user by what a verifier has said of him before.
func (a Answer) Or(before Answer) Answer {
	a.User = cmp.Or(a.User, before.User)
	a.Password = cmp.Or(a.Password, before.Password)
	a.Refuse = cmp.Or(a.Refuse, before.Refuse)
	a.Verified = a.Verified || before.Verified
	return a
}

// What a directory may answer instead. Any other error is a failure of the world: the source is down, slow or talks
// nonsense.
var (
	// ErrNotFound means that the directory does not know the user.
	ErrNotFound = errors.New("the directory does not know the user")
	// ErrDenied means that the secret is wrong. A source that tells no wrong password from an unknown user says this, too.
	ErrDenied = errors.New("the password is wrong")
)

// Directory places users, verifies them, or both. It is safe for concurrent use. Lookup ends when ctx does; Close ends what
// runs in the background and closes connections, after which Lookup fails.
type Directory interface {
	Lookup(ctx context.Context, q Query) (Answer, error)
	Close()
}
