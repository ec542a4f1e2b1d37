package configs

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// ACME is the [acme] table: certificates that jackdaw gets by itself (RFC 8555). Without Names there are none. Whoever names
// an authority in Directory, or leaves the default, has agreed to its terms of service.
type ACME struct {
	// Names are exact DNS names, or patterns with one {domain}. A certificate is ordered for an exact name at start; for one
	// that fits a pattern when a client asks for it, if {domain} stands for one of Domains.
	Names []string `toml:"names"`
	// Lookup names a directory that knows more of them: it is asked with :domain and :sni, and no user, before an order.
	Lookup string `toml:"lookup"`
	// Directory is the URL where the authority begins; default LetsEncrypt.
	Directory string `toml:"directory"`
	// CA is a PEM file with the authorities that the ACME server's own certificate is checked with; default: the system's.
	CA string `toml:"ca"`
	// Email is told to the authority when the account is made; default: none.
	Email string `toml:"email"`
	// EABKid and EABKey bind the account to one that the authority knows already (RFC 8555 section 7.3.4). Both or none are
	// given; the key in base64url, as authorities hand it out.
	EABKid string `toml:"eab_kid"`
	EABKey string `toml:"eab_key,secret"`
	// Cache is a directory with the account's key, the certificates and what has failed; default /var/lib/jackdaw/acme.
	// Frontends may share it: one of them orders, and any answers the challenge.
	Cache string `toml:"cache"`
	// HTTP and TLSALPN are where the authority's challenges are answered: http-01 (RFC 8555 section 8.3), which comes to port
	// 80 of the name, and tls-alpn-01 (RFC 8737), which comes to port 443. At least one of them is given, for TCP.
	HTTP    Address `toml:"http"`
	TLSALPN Address `toml:"tls_alpn"`
}

// LetsEncrypt is the directory of the authority that is asked where no other is named.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// MaxACMEName is the length of a name, in octets, that fits into the name of a file with its ending.
const MaxACMEName = 250

// MAC is EABKey as bytes.
func (a *ACME) MAC() ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(a.EABKey, "="))
}

// Domains lists the domains that routes, realms and listeners know by name, sorted. One that is only described, by "*" or
// {domain}, is not among them: a stranger could make up as many as he likes.
func (c *Config) Domains() []string {
	named := []string{c.Users.DefaultRealm}
	for _, realm := range c.Users.Realms {
		named = append(named, realm)
	}
	for _, l := range c.Listen.Listeners {
		named = append(named, l.Realm)
	}
	for _, r := range c.Routes {
		if r.To == "" {
			continue
		}
		named = append(named, r.Domain...)
		for _, user := range r.User {
			if i := strings.LastIndex(user, "@"); i >= 0 {
				named = append(named, user[i+1:])
			}
		}
	}
	named = slices.DeleteFunc(named, func(domain string) bool { return domain == "" || strings.ContainsAny(domain, "*{") })
	slices.Sort(named)
	return slices.Compact(named)
}

func (a *ACME) check(d *decoder, n *node) {
	if len(n.keys) == 0 {
		return // there is no such table
	}
	if len(n.get("names").list()) == 0 {
		d.errorf(n, "acme needs names to order certificates for")
	}
	d.canonicalList(n.get("names"), a.Names, acmeName)
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		d.errorf(n.at("directory"), "acme.directory: %q is no URL such as %q", a.Directory, LetsEncrypt)
	}
	d.canonical(n.at("ca"), &a.CA, d.relative)
	if a.Email != "" && !mailAddress(a.Email) {
		d.errorf(n.at("email"), `acme.email: %q is no address such as "postmaster@example.net"`, a.Email)
	}
	if a.Cache == "" {
		d.errorf(n.at("cache"), "acme.cache cannot be empty")
	}
	d.canonical(n.at("cache"), &a.Cache, d.relative)
	a.checkBinding(d, n)
	if n.get("http") == nil && n.get("tls_alpn") == nil {
		d.errorf(n, `acme needs an address to answer the authority's challenges on, such as http = ":80" or tls_alpn = ":443"`)
	}
	for key, address := range map[string]Address{"http": a.HTTP, "tls_alpn": a.TLSALPN} {
		if address.Network == "unix" || strings.Contains(address.Address, "{") {
			d.errorf(n.at(key), `acme.%s must be a host and port, such as ":80", not %s`, key, address)
		}
	}
}

// checkBinding looks at the two keys for an external account. No error shows the secret.
func (a *ACME) checkBinding(d *decoder, n *node) {
	key := n.secret("eab_key")
	switch kid := n.get("eab_kid"); {
	case kid != nil && key == nil:
		d.errorf(kid, "eab_kid is of no use without eab_key or eab_key_file")
	case key != nil && a.EABKid == "":
		d.errorf(key, "%s is of no use without eab_kid", key.path)
	case key != nil && a.EABKey != "":
		if _, err := a.MAC(); err != nil {
			d.errorf(key, "%s: the key is not in base64url, as authorities hand it out", key.path)
		}
	}
}

// acmeName returns a name to order, or a pattern for such names, in the form of a DNS name.
func acmeName(name string) (string, error) {
	if strings.Contains(name, "*") {
		return "", fmt.Errorf("%q: no challenge that jackdaw answers proves a wildcard; give each name, or a pattern such as "+
			`"mail.{domain}"`, name)
	}
	if strings.Count(name, "{domain}") > 1 {
		return "", errors.New("only one {domain} can stand in a name")
	}
	canonical, err := realmPattern(name)
	if _, ipErr := netip.ParseAddr(name); err != nil || ipErr == nil {
		return "", fmt.Errorf("%q is no DNS name", name)
	}
	if len(canonical) > MaxACMEName {
		return "", fmt.Errorf("%q is longer than %d octets", name, MaxACMEName)
	}
	return canonical, nil
}

// mailAddress tells whether an address can stand in a mailto URL as it is (RFC 8555 section 7.3 allows one, and no headers).
func mailAddress(s string) bool {
	local, domain, _ := strings.Cut(s, "@")
	_, err := DNSName(domain)
	return local != "" && err == nil && !strings.ContainsAny(s, " ,?&%\"<>")
}

// checkACME looks at what the [acme] table has to do with others.
func (c *Config) checkACME(d *decoder, n *node) {
	n = n.get("acme")
	if n == nil {
		return
	}
	for i, name := range c.ACME.Names {
		if strings.Contains(name, "{domain}") && len(c.Domains()) == 0 && c.ACME.Lookup == "" {
			d.errorf(n.get("names").list()[i], "acme.names: there is no domain for %q; name some in routes or realms, or a directory in acme.lookup", name)
		}
	}
	c.checkLookup(d, n.at("lookup"), c.ACME.Lookup)
	if c.ACME.HTTP == c.ACME.TLSALPN && c.ACME.HTTP != (Address{}) {
		d.errorf(n.at("tls_alpn"), "%s cannot be for http and tls_alpn at once", c.ACME.TLSALPN)
	}
	for key, address := range map[string]Address{"http": c.ACME.HTTP, "tls_alpn": c.ACME.TLSALPN} {
		for _, l := range c.Listen.Listeners {
			if l.Address == address && address != (Address{}) {
				d.errorf(n.at(key), "%s is listened on already, in line %d", address, l.Line)
			}
		}
	}
}
