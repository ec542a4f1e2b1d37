package configs

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/idna"
)

// Match reports whether s matches a pattern in which "*" stands for anything, also for nothing and across dots. It takes
// the first place where each part fits, which is as good as any later one, and so never goes back.
func Match(pattern, s string) bool {
	part, rest, star := strings.Cut(pattern, "*")
	if !star {
		return s == pattern
	}
	s, ok := strings.CutPrefix(s, part)
	for ok {
		part, rest, star = strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(s, part)
		}
		_, s, ok = strings.Cut(s, part)
	}
	return false
}

// DNSName returns a DNS name as A-labels in lower case (RFC 5890), as names are compared everywhere here. It refuses empty
// labels, so also a dot at the end, and what is longer than DNS allows (RFC 1035 section 2.3.4).
func DNSName(name string) (string, error) {
	ascii, err := idna.Lookup.ToASCII(name)
	if err != nil || len(ascii) > 253 {
		return "", fmt.Errorf("%q is no DNS name", name)
	}
	for label := range strings.SplitSeq(ascii, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("%q is no DNS name", name)
		}
	}
	return ascii, nil
}

// dnsPattern returns a DNS name with "*" in it as A-labels in lower case. Only labels without "*" can be converted.
func dnsPattern(pattern string) (string, error) {
	labels := strings.Split(pattern, ".")
	for i, label := range labels {
		plain := strings.ToLower(strings.ReplaceAll(label, "*", "x"))
		ascii, err := DNSName(plain)
		switch {
		case err != nil:
			return "", fmt.Errorf("%q is no DNS name, even with * in it", pattern)
		case !strings.Contains(label, "*"):
			labels[i] = ascii
		case ascii != plain:
			return "", fmt.Errorf("%q: write the label with * in it in its ASCII form", pattern)
		default:
			labels[i] = strings.ToLower(label)
		}
	}
	return strings.Join(labels, "."), nil
}

// realmPattern returns a pattern for [users] realms in the form of a DNS name. It has at most one place that varies: "*",
// or "{domain}", which the realm may repeat.
func realmPattern(pattern string) (string, error) {
	if strings.Count(pattern, "*")+strings.Count(pattern, "{domain}") > 1 {
		return "", errors.New("only one * or {domain} can stand in a pattern")
	}
	if !strings.Contains(pattern, "{domain}") {
		return dnsPattern(pattern)
	}
	ascii, err := dnsPattern(strings.Replace(pattern, "{domain}", "*", 1))
	if err != nil {
		return "", fmt.Errorf("%q is no DNS name, even with {domain} in it", pattern)
	}
	return strings.Replace(ascii, "*", "{domain}", 1), nil
}

// wildcardOf returns the wildcard that covers a name: "*" is exactly one label.
func wildcardOf(name string) string {
	label, parent, _ := strings.Cut(name, ".")
	if label == "" || parent == "" {
		return ""
	}
	return "*." + parent
}
