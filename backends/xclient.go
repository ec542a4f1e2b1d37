package backends

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"jackdaw/configs"
)

// proxyTTL bounds how many proxies may stand one behind the other: each that knows the number counts it down, and the last
// one refuses. Dovecot's own proxy begins with 4 in version 2.3, and with 6 in 2.4.
const proxyTTL = "4"

// pair is one thing that a store may be told of a client.
type pair struct{ name, value string }

// known leaves out what is not.
func known(pairs []pair) []pair {
	return slices.DeleteFunc(pairs, func(p pair) bool { return p.value == "" })
}

// ends are the client's address, and the one that it has connected to, as stores are told of them. Nobody knows them on a unix
// socket; nor where a proxy in front of us does not speak for a client: whom a store trusts for that proxy's address must not
// come in its name.
func (p Peer) ends() (client, local netip.AddrPort, ok bool) {
	if p.Unproven || !p.Client.IsValid() || !p.Local.IsValid() {
		return netip.AddrPort{}, netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(p.Client.WithZone(""), p.Port), netip.AddrPortFrom(p.Local.Addr().WithZone(""), p.Local.Port()), true
}

// idParameters are what Dovecot takes from the first ID of a peer that it trusts: version 2.3 does not know the last two. A
// server that does not know them ignores them (RFC 2971 section 3.3).
func idParameters(client Peer) []pair {
	var pairs []pair
	if from, to, ok := client.ends(); ok {
		pairs = []pair{
			{"x-originating-ip", from.Addr().String()},
			{"x-originating-port", portText(from)},
			{"x-connected-ip", to.Addr().String()},
			{"x-connected-port", portText(to)},
		}
	}
	return known(append(pairs,
		pair{"x-session-id", client.Session}, // of 64 octets at most
		pair{"x-proxy-ttl", proxyTTL},
		pair{"x-client-transport", transport(client)},
		pair{"x-connected-name", client.SNI},
	))
}

func portText(a netip.AddrPort) string { return strconv.Itoa(int(a.Port())) }

// transport is how Dovecot calls the client's TLS, or its absence.
func transport(client Peer) string {
	if client.TLS != 0 {
		return "TLS"
	}
	return "insecure"
}

// wantsXCLIENT tells whether Dovecot's XCLIENT is to be sent to a store that has announced it, or has not.
func (o Opening) wantsXCLIENT(announced bool) bool {
	return o.Info == configs.ClientInfoXCLIENT || o.Info == configs.ClientInfoAuto && announced
}

// xclientLine is the XCLIENT command that Dovecot's POP3 and ManageSieve take before login, or "" where there is no client.
// Values are bare: all of them are of our own making.
func xclientLine(client *Peer) string {
	if client == nil {
		return ""
	}
	var pairs []pair
	if from, to, ok := client.ends(); ok {
		pairs = []pair{{"ADDR", from.Addr().String()}, {"PORT", portText(from)}, {"DESTADDR", to.Addr().String()}, {"DESTPORT", portText(to)}}
	}
	return xclientCommand(known(append(pairs, xclientSession(*client)...)), func(value string) string { return value })
}

// xclientSession are the attributes that are Dovecot's alone.
func xclientSession(client Peer) []pair {
	return []pair{{"SESSION", client.Session}, {"TTL", proxyTTL}, {"CLIENT-TRANSPORT", transport(client)}, {"DESTNAME", client.SNI}}
}

// unavailable is Postfix's word for what nobody knows.
const unavailable = "[UNAVAILABLE]"

// xclientSMTP are the attributes for an SMTP or LMTP store, of those that it lists (Postfix's XCLIENT_README). An address that
// it is not to know is said to be unknown: else the store would go on with ours, and trust it.
func xclientSMTP(o Opening, proto, listed string) []pair {
	from, to, ok := o.Client.ends()
	address, port := unavailable, unavailable
	if ok = ok && o.Info != configs.ClientInfoNone; ok {
		address, port = smtpLiteral(from.Addr()), portText(from)
	}
	pairs := []pair{{"NAME", unavailable}, {"REVERSE_NAME", unavailable}, {"ADDR", address}, {"PORT", port},
		{"PROTO", proto}, {"HELO", o.hello()}, {"LOGIN", o.User}}
	if ok {
		pairs = append(pairs, pair{"DESTADDR", smtpLiteral(to.Addr())}, pair{"DESTPORT", portText(to)})
	}
	if o.Info != configs.ClientInfoNone {
		pairs = append(pairs, xclientSession(*o.Client)...)
	}
	names := strings.Fields(strings.ToUpper(listed))
	return slices.DeleteFunc(known(pairs), func(p pair) bool { return !slices.Contains(names, p.name) })
}

// xclientCommand writes the command; encode makes a word of a value.
func xclientCommand(pairs []pair, encode func(string) string) string {
	var line strings.Builder
	line.WriteString("XCLIENT")
	for _, p := range pairs {
		fmt.Fprintf(&line, " %s=%s", p.name, encode(p.value))
	}
	return line.String()
}

// smtpLiteral writes an address as SMTP does within brackets (RFC 5321 section 4.1.3).
func smtpLiteral(address netip.Addr) string {
	if address.Is6() {
		return "IPv6:" + address.String()
	}
	return address.String()
}
