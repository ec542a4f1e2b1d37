package backends

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// proxyTTL bounds how many proxies may stand one behind the other: each that knows the number counts it down, and the one
// that would make it 0 refuses. It is what Dovecot's own proxy begins with.
const proxyTTL = "4"

// pair is one thing that a store may be told of a client.
type pair struct{ name, value string }

// idParameters are what Dovecot takes from the first ID of a peer that it trusts. A server that does not know them ignores
// them (RFC 2971 section 3.3).
func idParameters(client *Peer) []pair {
	if !client.Client.IsValid() {
		return nil
	}
	pairs := []pair{
		{"x-originating-ip", client.Client.WithZone("").String()},
		{"x-originating-port", strconv.Itoa(int(client.Port))},
		{"x-connected-ip", client.Local.Addr().WithZone("").String()},
		{"x-connected-port", strconv.Itoa(int(client.Local.Port()))},
		{"x-session-id", client.Session},
		{"x-proxy-ttl", proxyTTL},
	}
	if client.SNI != "" {
		pairs = append(pairs, pair{"x-connected-name", client.SNI})
	}
	return append(pairs, pair{"x-client-transport", transport(client)})
}

// transport is how Dovecot calls the client's TLS, or its absence.
func transport(client *Peer) string {
	if client.TLS != 0 {
		return "TLS"
	}
	return "insecure"
}

// wantsXCLIENT tells whether Dovecot's XCLIENT is to be sent to a store that has announced it, or has not.
func (o Opening) wantsXCLIENT(announced bool) bool {
	return o.Info == configs.ClientInfoXCLIENT || o.Info == configs.ClientInfoAuto && announced
}

// xclientLine is the XCLIENT command that Dovecot's POP3 and ManageSieve take before login, or "" where nothing is known
// of the client. Values are bare: all of them are of our own making.
func xclientLine(client *Peer) string {
	if client == nil || !client.Client.IsValid() {
		return ""
	}
	pairs := []pair{
		{"ADDR", client.Client.WithZone("").String()},
		{"PORT", strconv.Itoa(int(client.Port))},
		{"SESSION", client.Session},
		{"TTL", proxyTTL},
		{"CLIENT-TRANSPORT", transport(client)},
		{"DESTADDR", client.Local.Addr().WithZone("").String()},
		{"DESTPORT", strconv.Itoa(int(client.Local.Port()))},
	}
	if client.SNI != "" {
		pairs = append(pairs, pair{"DESTNAME", client.SNI})
	}
	var line strings.Builder
	line.WriteString("XCLIENT")
	for _, p := range pairs {
		fmt.Fprintf(&line, " %s=%s", p.name, p.value)
	}
	return line.String()
}

// unavailable is Postfix's word for what nobody knows.
const unavailable = "[UNAVAILABLE]"

// xclientSMTP are the attributes for an SMTP or LMTP store, of those that it lists (Postfix's XCLIENT_README). What is not
// known is said to be: else the store would go on with what it has from our own connection.
func xclientSMTP(o Opening, proto, listed string) []pair {
	client := *o.Client
	if o.Info == configs.ClientInfoNone {
		client = Peer{Hello: client.Hello}
	}
	pairs := []pair{
		{"NAME", unavailable},
		{"REVERSE_NAME", unavailable},
		{"ADDR", smtpAddress(client)},
		{"PORT", smtpPort(client)},
		{"PROTO", proto},
		{"HELO", o.hello()},
		{"LOGIN", o.User},
		{"DESTADDR", smtpLiteral(client.Local.Addr().String(), client.Local.Addr().Is6())},
		{"DESTPORT", strconv.Itoa(int(client.Local.Port()))},
		{"DESTNAME", client.SNI},
		{"SESSION", client.Session},
		{"TTL", proxyTTL},
		{"CLIENT-TRANSPORT", transport(&client)},
	}
	names := strings.Fields(listed)
	return slices.DeleteFunc(pairs, func(p pair) bool {
		return p.value == "" || !slices.Contains(names, p.name) ||
			!client.Client.IsValid() && strings.HasPrefix(p.name, "DEST") || p.name == "DESTADDR" && !client.Local.IsValid()
	})
}

func smtpAddress(client Peer) string {
	if !client.Client.IsValid() {
		return unavailable
	}
	return smtpLiteral(client.Client.WithZone("").String(), client.Client.Is6())
}

func smtpPort(client Peer) string {
	if !client.Client.IsValid() {
		return unavailable
	}
	return strconv.Itoa(int(client.Port))
}

// smtpLiteral writes an address as SMTP does within brackets (RFC 5321 section 4.1.3).
func smtpLiteral(address string, v6 bool) string {
	if v6 {
		return "IPV6:" + address
	}
	return address
}

// xclientCommand encodes attributes (RFC 3461 section 4: xtext).
func xclientCommand(pairs []pair) string {
	var line strings.Builder
	line.WriteString("XCLIENT")
	for _, p := range pairs {
		fmt.Fprintf(&line, " %s=%s", p.name, wire.XText(p.value))
	}
	return line.String()
}
