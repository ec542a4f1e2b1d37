package configs

import "slices"

// Terms are what holds for the TLS handshakes of a name. They stand in [tls] for all names, and in a [[tls.policy]] for
// some, where each key replaces what [tls] says.
type Terms struct {
	// MinVersion is a version of package crypto/tls; in the file "1.2" (the default) or "1.3".
	MinVersion TLSVersion `toml:"min_version"`
	// ClientCA is a PEM file with the authorities of client certificates, read anew at each reload; "" (the default): no
	// client is asked for one. Nobody has to show one, but who does may log in by SASL EXTERNAL, to stores that have an
	// external_login. One that no authority in the file vouches for ends the handshake. For LMTP nobody is asked.
	ClientCA string `toml:"client_ca"`
	// KeyType is preferred among the certificates of a name that the client supports; default KeyTypeECDSA.
	KeyType KeyType `toml:"key_type"`
}

// TLSPolicy is a [[tls.policy]]: the terms of some names. The name is that whose certificate the client is shown, so for a
// client without SNI, or with a name of which there is no certificate, it is the default.
type TLSPolicy struct {
	// SNI holds patterns for names; "*" matches anything within one. It must be given.
	SNI []string `toml:"sni"`
	Terms
	// Services are those for which the names are served; for others the handshake is refused. Default: nil, all.
	Services []Service `toml:"services"`
}

// KeyType is what a certificate's key is made for.
type KeyType string

// The types that can be preferred.
const (
	KeyTypeECDSA KeyType = "ecdsa"
	KeyTypeRSA   KeyType = "rsa"
)

func parseKeyType(s string) (any, error) {
	return KeyType(s), oneOf("type of key", s, []string{string(KeyTypeECDSA), string(KeyTypeRSA)})
}

// Policy returns the first policy for a name in the form of DNSName, or nil: then the Terms of [tls] hold.
func (t *TLS) Policy(name string) *TLSPolicy {
	for i := range t.Policies {
		if t.Policies[i].covers(name) {
			return &t.Policies[i]
		}
	}
	return nil
}

// Or returns the policy's terms, or where there is no policy those of [tls], which the caller gives.
func (p *TLSPolicy) Or(general Terms) Terms {
	if p == nil {
		return general
	}
	return p.Terms
}

// covers reports whether one of the policy's patterns matches s. If s is a pattern, they then match whatever s does: no
// text in a pattern of names is a "*", so only another "*" can have taken in that of s.
func (p *TLSPolicy) covers(s string) bool {
	return slices.ContainsFunc(p.SNI, func(pattern string) bool { return Match(pattern, s) })
}

// Serves reports whether the policy's names are served for a service; "" stands for some service. No policy, which is nil,
// forbids none.
func (p *TLSPolicy) Serves(s Service) bool {
	return p == nil || p.Services == nil || s == "" || slices.Contains(p.Services, s)
}

// AsksClients reports whether some client is asked for a certificate.
func (t *TLS) AsksClients() bool {
	return t.ClientCA != "" || slices.ContainsFunc(t.Policies, func(p TLSPolicy) bool { return p.ClientCA != "" })
}

func (p *TLSPolicy) check(d *decoder, n *node) {
	if len(n.get("sni").list()) == 0 {
		d.errorf(n.at("sni"), `a policy needs the names that it is for, such as sni = ["mail.example.net", "*.example.org"]`)
	}
	if value := n.get("services"); value != nil && len(value.list()) == 0 {
		d.errorf(value, "services is empty; to serve these names for all services leave it out")
	}
	d.canonicalList(n.get("sni"), p.SNI, dnsPattern)
	d.canonical(n.at("client_ca"), &p.ClientCA, d.relative)
}

// checkPolicies fills in what policies leave to [tls], and refuses what no name gets as far as to.
func (t *TLS) checkPolicies(d *decoder, list []*node) {
	for i := range t.Policies {
		p, n := &t.Policies[i], list[i]
		p.inherit(t.Terms, n)
		for at, item := range n.get("sni").list() {
			pattern := p.SNI[at]
			covered := slices.IndexFunc(t.Policies[:i], func(earlier TLSPolicy) bool { return earlier.covers(pattern) })
			if covered >= 0 && pattern != "" {
				d.errorf(item, "%s: %q is never reached: the policy in line %d matches it already", item.path, pattern,
					list[covered].line)
			}
		}
	}
}

func (p *TLSPolicy) inherit(terms Terms, n *node) {
	if n.get("min_version") == nil {
		p.MinVersion = terms.MinVersion
	}
	if n.get("client_ca") == nil {
		p.ClientCA = terms.ClientCA
	}
	if n.get("key_type") == nil {
		p.KeyType = terms.KeyType
	}
}

// checkPolicyServices refuses a policy that leaves its names no service.
func (c *Config) checkPolicyServices(d *decoder, n *node) {
	for i, p := range c.TLS.Policies {
		served := func(l Listener) bool { return l.TLS != TLSNone && p.Serves(l.Service) }
		unreadable := slices.Contains(p.Services, "") || len(c.Listen.Listeners) == 0
		if len(p.Services) > 0 && !unreadable && !slices.ContainsFunc(c.Listen.Listeners, served) {
			value := n.get("tls").get("policy").list()[i].get("services")
			d.errorf(value, "%s: no listener offers one of them with TLS, so that these names would be served nowhere", value.path)
		}
	}
}
