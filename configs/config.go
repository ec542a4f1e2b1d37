// Package configs reads jackdaw's configuration: TOML, strictly. Every key that is unknown, every value of a wrong
// type and every name that leads nowhere is an error with file, line and the nearest valid key or name, and all errors
// are reported at once.
//
// The struct tree in this file is the schema: a key is what a `toml` tag says, and a key that stands in no tag does
// not exist. Where a tag ends in ",secret", there is one more key, with "_file" behind the name: the file that holds the
// secret in its one line, read by Load. Of the two keys a table has one at most. What Load returns has every default filled
// in, so that nobody else knows a default.
package configs

import (
	"io/fs"
	"net/netip"
	"time"
)

// Config is a whole configuration file.
type Config struct {
	// Hostname is what greetings say where no SNI name is known; default: the system's name.
	Hostname string `toml:"hostname"`
	// State is a directory for what outlives a restart: which backends are drained, who is blocked, and what stores could do. If it is not there, the
	// daemon warns and runs without. Default /var/lib/jackdaw; "" for none. Daemons cannot share it.
	State string `toml:"state"`

	Listen   Listen    `toml:"listen"`
	TLS      TLS       `toml:"tls"`
	ACME     ACME      `toml:"acme"`
	Users    Users     `toml:"users"`
	Routes   []Route   `toml:"route"`
	Backends []Backend `toml:"backend"`
	Pools    []Pool    `toml:"pool"`
	// Directories are known by their names.
	Directories map[string]Directory `toml:"directory"`
	Auth        Auth                 `toml:"auth"`
	Limits      Limits               `toml:"limits"`
	Log         Log                  `toml:"log"`
	Admin       Admin                `toml:"admin"`

	SecretFiles []string // the files that secrets were read from
}

// Listen is the [listen] table: for each service an address, a list of addresses, or tables. Peers is the default for
// every listener that does not say otherwise; Load has copied it there already.
type Listen struct {
	Listeners []Listener `toml:",services"` // in the order of Services, then of the file
	Peers
}

// Peers says what the network that a client comes from decides. It stands in [listen] for all listeners, or in a listener's
// table, where it replaces what [listen] says, key by key.
type Peers struct {
	// From holds the networks that may connect at all; empty means all. It is about peers, not about the clients of whom a
	// PROXY header speaks. An lmtp listener on TCP must have it, unless it listens on loopback: LMTP has no login.
	From Networks `toml:"from"`
	// PlaintextFrom holds the networks of clients that may log in without TLS; default: none. An lmtp listener has no use
	// for it; what [listen] says is not copied there.
	PlaintextFrom Networks `toml:"plaintext_from"`
	// ProxyFrom holds the networks of peers, such as a load balancer, that must begin with a PROXY header, version 1 or 2;
	// default: none. Of no other peer is one taken. The client of whom the header speaks takes the place of the peer
	// everywhere but in From. Where it speaks of none (LOCAL, UNKNOWN), the client is in no network.
	ProxyFrom Networks `toml:"proxy_from"`
}

// Listener is one address on which one service is offered.
type Listener struct {
	Service Service // from the key, not a key itself
	// Address is ":port", "host:port", "[::1]:port" or "unix:/path".
	Address Address `toml:"address"`
	// Name is what routes and logs call the listener; default: the service's name.
	Name string `toml:"name"`
	// Default names the certificate for clients without SNI or with an unknown name; nil: as [tls] default says. Without
	// TLS it is an error.
	Default *string `toml:"default"`
	// Realm completes user names without a domain, before any realm that SNI gives.
	Realm string `toml:"realm"`
	// TLS is TLSImplicit or TLSStartTLS, which imaps, pop3s and submissions cannot have; default: as the service is
	// registered. For lmtp it is TLSNone by default, and for no other service can it be.
	TLS TLSMode `toml:"tls"`
	// Mode and Group are set on a unix socket; default: 0660 and the process's group.
	Mode  fs.FileMode `toml:"mode"`
	Group string      `toml:"group"`
	Peers

	Line int // where it stands in the file
}

// TLSMode says when TLS begins on a connection.
type TLSMode string

// The modes. No listener is TLSNone but one for LMTP.
const (
	TLSNone     TLSMode = "none"
	TLSStartTLS TLSMode = "starttls"
	TLSImplicit TLSMode = "implicit"
)

// TLS is the [tls] table.
type TLS struct {
	// Certificates are files or directories, searched deep and watched. They must be given unless no listener needs them:
	// all have TLSNone, or TLSStartTLS and PlaintextFrom, or ACME has names.
	Certificates []string `toml:"certificates"`
	// Default names the certificate for clients without SNI or with an unknown name. nil: Hostname's certificate, if
	// there is one. "": such a client gets the alert unrecognized_name.
	Default *string `toml:"default"`
	Terms
	// ClientUser tells where in a client's certificate its user's name stands; default ClientUserEmail. A bare name there is
	// completed by DefaultRealm, whatever SNI name and listener the client has chosen. Where no ClientCA is given it is an error.
	ClientUser ClientUser `toml:"client_user"`
	// TicketKeys is a file with the keys of session tickets, for frontends that share it: lines of 32 bytes in base64, the first
	// encrypts, all decrypt; empty lines and lines that begin with "#" are passed over. It is read again when it changes.
	// Default: "", jackdaw makes keys of its own and changes them daily.
	TicketKeys string `toml:"ticket_keys"`
	// Policies hold for the names that they match, the first that does, in the place of Terms.
	Policies []TLSPolicy `toml:"policy"`
}

// ClientUser is a place in a client's certificate.
type ClientUser string

// The places that a user's name can stand in.
const (
	ClientUserEmail ClientUser = "email" // the only rfc822Name among the subject's alternative names
	ClientUserCN    ClientUser = "cn"    // the only common name of the subject
)

// TLSVersion is a version as package crypto/tls numbers it; in the file "1.2" or "1.3".
type TLSVersion uint16

// Users is the [users] table: how a client's name becomes the canonical user.
type Users struct {
	// Realms maps SNI patterns to the domain that completes a bare user name: "*.a.example" = "a.example",
	// "mail.{domain}" = "{domain}". Exact before pattern, longer before shorter.
	Realms map[string]string `toml:"realms"`
	// DefaultRealm completes a bare name where neither listener nor SNI gives a realm.
	DefaultRealm string `toml:"default_realm"`
	// Unqualified names never get a realm.
	Unqualified []string `toml:"unqualified"`
	// Separators are the characters that part the local part from the domain; default "@%".
	Separators string `toml:"separators"`
	// Lowercase folds names to lower case; default true.
	Lowercase bool `toml:"lowercase"`
	// ImpersonateFrom holds the networks of clients that may act as another user, if the store lets them: by a SASL
	// authorization identity that is not their own name, or by a name of the form user*master. The user acted for decides
	// about the route. Default: none; from elsewhere it is refused here. Who logs in by a certificate is nobody else, from
	// wherever: the store would take jackdaw's word for it.
	ImpersonateFrom Networks `toml:"impersonate_from"`
}

// Route is a [[route]]: the first whose conditions all hold decides. A condition that is not given always holds; "*"
// matches anything within a pattern.
type Route struct {
	User     []string  `toml:"user"` // without @: this local part in any domain and in none
	Domain   []string  `toml:"domain"`
	SNI      []string  `toml:"sni"`
	Listener []string  `toml:"listener"`
	Service  []Service `toml:"service"`
	Client   Networks  `toml:"client"`
	// Lookup names a directory. A user whom it does not know goes on to the next route.
	Lookup string `toml:"lookup"`
	// To names the backend or pool, Refuse says why nobody is let in; exactly one of them is given. With Lookup, To is for users
	// of whom the directory's answer names no backend, and may be "".
	To     string `toml:"to"`
	Refuse string `toml:"refuse"`

	Line int // where it stands in the file
}

// Backend is a [[backend]]: a mail store, with an address for each service.
type Backend struct {
	// Name is the backend's own, or "*.domain" for any such name that a route or directory gives.
	Name string `toml:"name"`
	// Examples are names under a wildcard Name whose capabilities stand for all until one was reached.
	Examples []string `toml:"examples"`
	// MaxSessions is how many users' sessions, over all services but LMTP, the backend takes at once; default 0, no limit. One more
	// is a temporary failure, or goes to another member of a pool, if its user is on none yet.
	MaxSessions int `toml:"max_sessions"`
	// MaxLogins is how many of them may be logging in at once; default 0, no limit. More of them wait for their turn, and where the
	// time for a login is not enough for that, it is a temporary failure.
	MaxLogins int `toml:"max_logins"`
	// Access tells for each protocol (a service for which Protocol is itself) the way there. What stands beside the
	// services in the file is the default for each of them; Load has copied it there already.
	Access map[Service]Access `toml:",services"`

	Line int // where it stands in the file
}

// Access is the way to one service of a backend. In the file it is an address, a list of addresses, or a table; every
// key but address may stand in the backend's own table, too. A key that a service has no use for is an error in its table;
// in the backend's it is one if no service has a use for it.
type Access struct {
	// Addresses are ways to the same store, tried in order; those that have failed a moment ago come last, and those that Health
	// has found to be dead are left out. One that does not answer within a quarter of a second is overtaken by the next. Each
	// address of a host that is named is a way of its own. "{name}" stands for a wildcard backend's name.
	Addresses []Address `toml:"address"`
	// TLS must be given for addresses beyond loopback and unix sockets; default there: TLSNone.
	TLS TLSMode `toml:"tls"`
	// TLSName is verified in the store's certificate; default: the address's host.
	TLSName string `toml:"tls_name"`
	// TLSCA is a PEM file with the authorities that the store's certificate is checked with; default: the system's.
	TLSCA string `toml:"tls_ca"`
	// User is the form of the user's name at this store: {user}, {local}, {domain} and other text; default "{user}".
	User string `toml:"user"`
	// ClientInfo tells how the client's address travels to the store; default ClientInfoAuto. What a service does not know
	// is an error, also where the backend's table says it for all.
	ClientInfo ClientInfo `toml:"client_info"`
	// Login is how a user enters the store who has given a password; default LoginSame. Any other form is for users whom
	// jackdaw has verified itself, and keeps out all others. So far it verifies client certificates alone, so that any other
	// form without [tls] client_ca is an error, and ExternalLogin is what is wanted. LMTP has no login.
	Login LoginForm `toml:"login"`
	// ExternalLogin is how a user enters who has shown a client certificate; default: Login. LoginSame keeps them out, for
	// they have given nothing that could be shown to the store. Without [tls] client_ca it is an error.
	ExternalLogin LoginForm `toml:"external_login"`
	// LoginUser and LoginPassword are jackdaw's own at this store. LoginAuthzid and LoginMaster must have both. For LMTP
	// both or none is given; if both, they are shown to a store that offers AUTH. Elsewhere they are "".
	LoginUser     string `toml:"login_user"` // without "*"
	LoginPassword string `toml:"login_password,secret"`
	// Source holds IP addresses of this host to connect from, taken in turn; default: the system chooses. To a store's
	// address that is no host name leads one of the same family, or it is an error. Unix sockets have no use for it.
	Source []netip.Addr `toml:"source"`
	// Health is the time between two looks at each address of the store, from the connection to the readiness for a login; default
	// 10s, and at least 1s. 0, in the file "off", is for none: then a look every few minutes learns what the store can do, and what
	// becomes of logins tells which of the addresses are tried first.
	Health Interval `toml:"health"`
	// AcceptsAnyPassword says that the operator knows that this store lets anybody in, and wants no self-test.
	AcceptsAnyPassword bool `toml:"accepts_any_password"`
}

// Interval is a time that passes again and again; 0 is never, in the file "off".
type Interval time.Duration

// ClientInfo is a way for the client's address to travel to the store.
type ClientInfo string

// The ways.
const (
	ClientInfoAuto    ClientInfo = "auto"    // by ID or XCLIENT, where the store announces it
	ClientInfoNone    ClientInfo = "none"    // not at all
	ClientInfoID      ClientInfo = "id"      // imap: by ID, as Dovecot takes it from login_trusted_networks
	ClientInfoXCLIENT ClientInfo = "xclient" // pop3, submission, sieve and lmtp: by XCLIENT, as Dovecot and Postfix take it
	ClientInfoProxy   ClientInfo = "proxy"   // by a PROXY header, version 2, before anything else
)

// LoginForm is a way for a user to enter a store.
type LoginForm string

// The forms.
const (
	LoginSame    LoginForm = "same"    // as the client said it
	LoginAuthzid LoginForm = "authzid" // by SASL PLAIN with LoginUser and LoginPassword, on the user's behalf
	LoginMaster  LoginForm = "master"  // as user*LoginUser with LoginPassword
	LoginXCLIENT LoginForm = "xclient" // submission only: by XCLIENT LOGIN=user, and no AUTH
)

// PerService is a value that may differ by service. Load has filled in every service.
type PerService[T any] map[Service]T

// Log is the [log] table.
type Log struct {
	// Level is debug, info, warn or error; default info.
	Level string `toml:"level"`
	// Format is console or json; default: console on a terminal, json elsewhere ("" here). A reload does not change it.
	Format string `toml:"format"`
}

// Address is where a socket listens or connects: Network is "tcp" or "unix", Address what package net takes for it.
type Address struct {
	Network string
	Address string
}

// Networks is a set of networks that a peer may come from. In the file: "192.0.2.0/24", "2001:db8::1" or "local",
// which means 127.0.0.0/8, ::1, their IPv4-mapped forms and unix sockets.
type Networks struct {
	Prefixes []netip.Prefix
	Unix     bool
}

// Contains reports whether a peer with this address is in one of the networks. The zero address is that of a peer on
// a unix socket. A zone is ignored, an IPv4-mapped address is taken for the IPv4 address in it.
func (n Networks) Contains(peer netip.Addr) bool {
	if !peer.IsValid() {
		return n.Unix
	}
	peer = peer.Unmap().WithZone("")
	for _, p := range n.Prefixes {
		if p.Contains(peer) {
			return true
		}
	}
	return false
}

// Empty reports whether no network was given.
func (n Networks) Empty() bool { return len(n.Prefixes) == 0 && !n.Unix }

// String is the address as the configuration writes it.
func (a Address) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Address
	}
	return a.Address
}
