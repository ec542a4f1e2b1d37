package backends

import (
	"net/netip"

	"jackdaw/configs"
)

// Peer is what is known of the client's connection.
type Peer struct {
	Client   netip.Addr     // the zero address on a unix socket
	Port     uint16         // the client's
	Local    netip.AddrPort // where the client has connected to; zero on a unix socket
	Unproven bool           // a proxy in front of us says that it does not speak for a client: Client is the proxy itself
	Listener string         // its name
	SNI      string         // only if a certificate of ours has the name
	Session  string         // the session's id, which stores may log
	Hello    string         // what a client of SMTP or LMTP calls itself
	UTF8     bool           // a client of POP3 wants messages as they are (RFC 6856 section 2)
	TLS      uint16         // the version; 0 without TLS
	Cipher   uint16         // the cipher suite; 0 without TLS
}

// In reports whether the client is in one of the networks. Whom a proxy did not speak for is in none: that the proxy is
// local or trusted says nothing of who stands behind it.
func (p Peer) In(networks configs.Networks) bool { return !p.Unproven && networks.Contains(p.Client) }
