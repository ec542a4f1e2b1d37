package tlsstore

import (
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"

	"jackdaw/configs"
)

// dnsName returns name in lower case, as names are compared (RFC 6066 section 3), and whether it is a DNS name at all.
// IP addresses look like one but are not allowed in SNI. An underscore is let through as package x509 does.
func dnsName(name string) (lower string, ok bool) {
	if len(name) > 253 || strings.IndexFunc(name, foreign) >= 0 {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' {
			return "", false
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", false
	}
	return strings.ToLower(name), true
}

// foreign reports whether r has no place in a DNS name.
func foreign(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_', r == '.':
		return false
	}
	return true
}

// certificateNames lists the names in a certificate that a client can ask for, in lower case. A wildcard stands for the
// whole first label (RFC 9525 section 6.3); package x509 matches no other.
func certificateNames(cert *x509.Certificate) []string {
	var names []string
	for _, name := range cert.DNSNames {
		parent, wildcard := strings.CutPrefix(name, "*.")
		lower, ok := dnsName(parent)
		if wildcard {
			lower = "*." + lower
		}
		if ok && !slices.Contains(names, lower) {
			names = append(names, lower)
		}
	}
	return names
}

// indexed returns a name that an operator wrote as the index has it: in lower case, with A-labels (RFC 5890).
func indexed(name string) string {
	if ascii, err := configs.DNSName(name); err == nil {
		return ascii
	}
	return strings.ToLower(name)
}
