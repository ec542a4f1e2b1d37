package configs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// ParseAddress reads an address to connect to as a configuration has it: "host:port", "[::1]:port", ":port" for this machine,
// or "unix:/path".
func ParseAddress(s string) (Address, error) {
	if strings.ContainsAny(s, "{}") {
		return Address{}, fmt.Errorf("%q: {name} stands for the name of a backend, and here is none", s)
	}
	address, err := parseAddress(s)
	if err != nil {
		return Address{}, err
	}
	return address.(Address), nil
}

// parseAddress reads ":port", "host:port", "[::1]:port" or "unix:/path". "{name}" may stand in a host or a path, and "{port}"
// for a port; that they are filled in only for a wildcard backend is checked there.
func parseAddress(s string) (any, error) {
	if strings.ContainsAny(strings.NewReplacer("{name}", "", "{port}", "").Replace(s), "{}") {
		return nil, fmt.Errorf("%q: only {name} and {port} can stand in braces", s)
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("%q: the path of a socket must begin with /", s)
		}
		return Address{"unix", filepath.Clean(path)}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return nil, addressHint(s)
	}
	if host, err = parseHost(host); err != nil {
		return nil, fmt.Errorf("%q: %w", s, err)
	}
	if port == "{port}" {
		return Address{"tcp", net.JoinHostPort(host, port)}, nil
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%q: the port must be a number from 0 to 65535", s)
	}
	return Address{"tcp", net.JoinHostPort(host, strconv.FormatUint(number, 10))}, nil
}

// addressHint says what is missing in an address without host and port.
func addressHint(s string) error {
	_, err := strconv.Atoi(s)
	switch {
	case err == nil:
		return fmt.Errorf(`%q has no host; for a port of this machine write ":%s"`, s, s)
	case strings.HasPrefix(s, "/"):
		return fmt.Errorf(`%q has no port; for a socket write "unix:%s"`, s, s)
	case strings.Count(s, ":") > 1:
		return fmt.Errorf(`%q: write an IPv6 address in brackets, and a port: "[::1]:143"`, s)
	}
	return fmt.Errorf(`%q has no port; write host and port, such as "127.0.0.1:143"`, s)
}

// parseHost returns a host of an address in the form in which it can be compared.
func parseHost(host string) (string, error) {
	switch {
	case host == "":
		return "", nil
	case host == "*":
		return "", errors.New("for all addresses of this machine leave out the host")
	case strings.Contains(host, "{name}"):
		if _, err := DNSName(strings.ReplaceAll(host, "{name}", "name")); err != nil {
			return "", fmt.Errorf("%q is no DNS name", host)
		}
		return host, nil
	}
	return hostName(host)
}

// hostName returns an IP address or a DNS name in the form in which it can be compared.
func hostName(host string) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String(), nil
	}
	return DNSName(host)
}

// host is the host of a TCP address; "" for all addresses and for unix sockets.
func (a Address) host() string {
	host, _, _ := net.SplitHostPort(a.Address)
	return host
}

func (a Address) port() string {
	_, port, _ := net.SplitHostPort(a.Address)
	return port
}

// local reports whether an address to connect to leads to this machine for certain. Who controls DNS could have any
// host name but localhost lead elsewhere.
func (a Address) local() bool {
	if a.Network != "tcp" || a.host() == "" || a.host() == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(a.host())
	return err == nil && ip.IsLoopback()
}

// leadsTo reports whether a connection to a is accepted by a listener.
func (a Address) leadsTo(listener Address) bool {
	switch {
	case a.Network != listener.Network:
		return false
	case a == listener:
		return true
	case a.Network != "tcp" || a.port() != listener.port():
		return false
	case listener.wildcard():
		return a.local()
	}
	return a.host() == "localhost" && listener.local() || a.local() && listener.host() == "localhost"
}

// wildcard reports whether a listener on this address accepts connections to all addresses of the machine.
func (a Address) wildcard() bool {
	ip, err := netip.ParseAddr(a.host())
	return a.Network == "tcp" && (a.host() == "" || err == nil && ip.IsUnspecified())
}

// parseNetwork reads "192.0.2.0/24", "2001:db8::1" or "local".
func parseNetwork(s string) (any, error) {
	if s == "local" {
		return Networks{Prefixes: localPrefixes(), Unix: true}, nil
	}
	prefix, err := netip.ParsePrefix(s)
	if ip, ipErr := netip.ParseAddr(s); ipErr == nil && ip.Zone() == "" {
		prefix, err = netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf(`%q is no network such as "192.0.2.0/24" or "2001:db8::/32", no IP address, and not "local"`, s)
	case prefix.Addr().Is4In6():
		return nil, fmt.Errorf("%q: write it as an IPv4 network, which holds for IPv4-mapped addresses, too", s)
	case prefix != prefix.Masked():
		return nil, fmt.Errorf("%q has bits beyond its length; write %q", s, prefix.Masked())
	}
	return Networks{Prefixes: []netip.Prefix{prefix}}, nil
}

func localPrefixes() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
}
