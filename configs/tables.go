package configs

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/pelletier/go-toml/v2/unstable"
	"golang.org/x/text/unicode/norm"
)

// defaults is what a file need not say. Defaults that depend on other values are filled in by the checks.
func defaults() *Config {
	idle := make(PerService[time.Duration])
	for _, s := range Services() {
		idle[s] = 35 * time.Minute
	}
	return &Config{
		TLS:   TLS{MinVersion: tls.VersionTLS12, ClientUser: ClientUserEmail},
		Users: Users{Separators: "@%", Lowercase: true},
		Limits: Limits{
			LoginTimeout: 60 * time.Second,
			IdleTimeout:  idle,
			Attempts:     3,
			FailureDelay: 2 * time.Second,
		},
		Log: Log{Level: "info"},
	}
}

func newListener(s Service) Listener {
	l := Listener{Service: s, Name: string(s), TLS: TLSStartTLS}
	if s.ImplicitTLS() {
		l.TLS = TLSImplicit
	}
	return l
}

// canonical puts a string into the form in which it is compared. An empty one is left: nothing was given.
func (d *decoder) canonical(n *node, s *string, form func(string) (string, error)) {
	if *s == "" {
		return
	}
	canonical, err := form(*s)
	if err != nil {
		d.errorf(n, "%s: %s", n.path, err)
	}
	*s = canonical
}

// canonicalList does the same to the elements of a list, none of which may be empty. Those that are no strings were
// reported when they were read.
func (d *decoder) canonicalList(n *node, list []string, form func(string) (string, error)) {
	for i, item := range n.list() {
		if item.kind == unstable.String && item.text == "" {
			d.errorf(item, "%s: an empty string", n.path)
		}
		d.canonical(item, &list[i], form)
	}
}

func (l *Listener) check(d *decoder, n *node) {
	if n.get("address") == nil {
		d.errorf(n, "%s needs an address", n.path)
	}
	if l.Name == "" {
		d.errorf(n.at("name"), "a listener's name cannot be empty")
	}
	switch {
	case l.TLS == TLSNone:
		d.errorf(n.at("tls"), "a listener always offers TLS; for clients that may log in without it use plaintext_from")
	case l.Service.ImplicitTLS() && l.TLS == TLSStartTLS:
		d.errorf(n.at("tls"), "%s begins with TLS; for STARTTLS listen for %s", l.Service, l.Service.Protocol())
	}
	d.canonical(n.at("realm"), &l.Realm, DNSName)
	if l.Default != nil {
		d.canonical(n.at("default"), l.Default, DNSName)
	}
	l.checkSocket(d, n)
}

// checkSocket looks at what only a unix socket has.
func (l *Listener) checkSocket(d *decoder, n *node) {
	switch l.Address.Network {
	case "unix":
		if n.get("mode") == nil {
			l.Mode = 0o660
		}
	case "tcp":
		for _, key := range []string{"mode", "group"} {
			if value := n.get(key); value != nil {
				d.errorf(value, "%s is for unix sockets, and %s is none", key, l.Address)
			}
		}
	}
	if strings.Contains(l.Address.Address, "{name}") {
		d.errorf(n.at("address"), "%s: {name} stands for the name of a wildcard backend, which a listener has not", l.Address)
	}
}

func (t *TLS) check(d *decoder, n *node) {
	d.canonicalList(n.get("certificates"), t.Certificates, d.relative)
	if t.Default != nil {
		d.canonical(n.at("default"), t.Default, DNSName)
	}
}

func (u *Users) check(d *decoder, n *node) {
	if u.Separators == "" || strings.ContainsFunc(u.Separators, unfitSeparator) {
		d.errorf(n.at("separators"), "separators must be ASCII characters that are no letters, digits or blanks, not %q",
			u.Separators)
	}
	d.canonical(n.at("default_realm"), &u.DefaultRealm, DNSName)
	d.canonicalList(n.get("unqualified"), u.Unqualified, u.pattern)
	u.checkRealms(d, n.get("realms"))
}

// pattern returns a user's name, or a pattern for names, in the form that the canonical user has.
func (u *Users) pattern(pattern string) (string, error) {
	if u.Lowercase {
		pattern = strings.ToLower(pattern)
	}
	pattern = norm.NFC.String(pattern)
	i := strings.LastIndex(pattern, "@")
	domain, err := pattern[i+1:], error(nil)
	if i >= 0 {
		domain, err = dnsPattern(domain)
	}
	return pattern[:i+1] + domain, err
}

func unfitSeparator(r rune) bool {
	return r <= ' ' || r > '~' || unicode.IsLetter(r) || unicode.IsDigit(r)
}

// checkRealms brings the patterns, which are keys, and the realms into the form in which names are compared.
func (u *Users) checkRealms(d *decoder, n *node) {
	if n == nil || len(u.Realms) == 0 {
		return
	}
	lines := make(map[string]int)
	realms := make(map[string]string)
	for _, key := range n.keys {
		pattern, err := realmPattern(key)
		if err != nil {
			d.errorf(n.values[key], "%s: %s", n.path, err)
			continue
		}
		if line, ok := lines[pattern]; ok {
			d.errorf(n.values[key], "%s: %q is the same name as in line %d", n.path, key, line)
		}
		lines[pattern] = n.values[key].line
		realms[pattern] = u.realm(d, n.values[key], key)
	}
	u.Realms = realms
}

// realm returns the realm that belongs to a pattern.
func (u *Users) realm(d *decoder, n *node, pattern string) string {
	realm := u.Realms[pattern]
	if strings.Contains(realm, "{domain}") && !strings.Contains(pattern, "{domain}") {
		d.errorf(n, "%s: {domain} must stand in the pattern, too", n.path)
		return ""
	}
	if strings.Contains(realm, "*") {
		d.errorf(n, "%s: a realm is one domain; to repeat a part of the name write {domain} in both", n.path)
		return ""
	}
	d.canonical(n, &realm, realmPattern)
	return realm
}

func (r *Route) check(d *decoder, n *node) {
	for _, key := range n.keys {
		if value := n.values[key]; value.kind == unstable.Array && len(value.items) == 0 {
			d.errorf(value, "%s is empty; to match everybody leave it out", key)
		}
	}
	if (r.To == "") == (r.Refuse == "") {
		d.errorf(n, `a route needs either to = "a backend" or refuse = "the reason"`)
	}
	d.canonicalList(n.get("domain"), r.Domain, dnsPattern)
	d.canonicalList(n.get("sni"), r.SNI, dnsPattern)
}

// unconditional reports whether a route matches everything.
func (r *Route) unconditional(n *node) bool {
	return !slices.ContainsFunc(n.keys, func(key string) bool { return key != "to" && key != "refuse" })
}

func (b *Backend) check(d *decoder, n *node) {
	b.checkName(d, n)
	if !slices.ContainsFunc(n.keys, func(key string) bool { return Service(key).Known() }) {
		d.errorf(n, `backend %q offers no service; give it an address, such as imap = "127.0.0.1:143"`, b.Name)
	}
	wildcard := strings.HasPrefix(b.Name, "*")
	b.checkTLS(d, n)
	b.checkAddresses(d, n, wildcard)
	b.checkExamples(d, n.get("examples"), wildcard)
}

func (b *Backend) checkName(d *decoder, n *node) {
	parent, wildcard := strings.CutPrefix(b.Name, "*.")
	switch {
	case n.get("name") == nil:
		d.errorf(n, "a backend needs a name")
	case wildcard:
		ascii, err := DNSName(parent)
		if err != nil {
			d.errorf(n.at("name"), "%s: %s", n.at("name").path, err)
		}
		b.Name = "*." + ascii
	case b.Name == "" || strings.ContainsFunc(b.Name, unfitName):
		d.errorf(n.at("name"), `the name of a backend is of letters, digits, ".", "-" and "_", or begins with "*."; not %q`,
			b.Name)
	}
}

func unfitName(r rune) bool { return !isBare(r) && r != '.' }

// checkTLS refuses settings for TLS where no service of the backend uses it.
func (b *Backend) checkTLS(d *decoder, n *node) {
	for _, a := range b.Access {
		if a.TLS != TLSNone {
			return
		}
	}
	for _, key := range []string{"tls_name", "tls_ca"} {
		if value := n.get(key); value != nil {
			d.errorf(value, useless, key)
		}
	}
}

const useless = `%s is of no use without TLS; say tls = "implicit" or tls = "starttls"`

func (b *Backend) checkAddresses(d *decoder, n *node, wildcard bool) {
	for service, access := range b.Access {
		for _, a := range access.Addresses {
			if strings.Contains(a.Address, "{name}") && !wildcard {
				d.errorf(n.at(string(service)), `%s: {name} is for a backend whose name begins with "*."`, a)
			}
		}
	}
}

func (b *Backend) checkExamples(d *decoder, n *node, wildcard bool) {
	d.canonicalList(n, b.Examples, DNSName)
	switch {
	case n == nil:
	case !wildcard:
		d.errorf(n, `examples are for a backend whose name begins with "*."`)
	default:
		for i, example := range b.Examples {
			if example != "" && wildcardOf(example) != b.Name {
				d.errorf(n.list()[i], "example %q is not covered by %q, where * is exactly one label", example, b.Name)
			}
		}
	}
}

func (a *Access) check(d *decoder, n *node) {
	if len(a.Addresses) == 0 {
		d.errorf(n.at("address"), "%s needs an address", n.path)
	}
	for i, address := range a.Addresses {
		if address.Network == "tcp" && (address.host() == "" || address.port() == "0") {
			d.errorf(n.at("address").list()[i], "%s: %q: the store's host and port must be given", n.path, address)
		}
	}
	if err := checkForm(a.User); err != nil {
		d.errorf(n.at("user"), "user: %s", err)
	}
	d.canonical(n.at("tls_name"), &a.TLSName, hostName)
	d.canonical(n.at("tls_ca"), &a.TLSCA, d.relative)
	a.checkTLS(d, n)
}

func (a *Access) checkTLS(d *decoder, n *node) {
	local := !slices.ContainsFunc(a.Addresses, func(a Address) bool { return !a.local() })
	switch {
	case n.get("tls") == nil && !local:
		d.errorf(n, `%s leads beyond this machine; say tls = "implicit", "starttls" or "none"`, n.path)
		return
	case n.get("tls") == nil:
		a.TLS = TLSNone
	}
	unix := slices.ContainsFunc(a.Addresses, func(a Address) bool { return a.Network == "unix" })
	switch {
	case a.TLS == TLSNone:
		a.TLSName, a.TLSCA = "", ""
		for _, key := range []string{"tls_name", "tls_ca"} {
			if value := n.values[key]; value != nil {
				d.errorf(value, useless, key)
			}
		}
	case a.TLS != "" && unix && a.TLSName == "":
		d.errorf(n, "%s: TLS over a unix socket needs tls_name, the name that the certificate is checked for", n.path)
	}
}

// checkForm looks at the form in which a store gets a user's name.
func checkForm(form string) error {
	rest := strings.NewReplacer("{user}", "", "{local}", "", "{domain}", "").Replace(form)
	switch {
	case strings.ContainsAny(rest, "{}"):
		return fmt.Errorf("%q: only {user}, {local} and {domain} can stand in braces", form)
	case !strings.Contains(form, "{user}") && !strings.Contains(form, "{local}"):
		return fmt.Errorf("%q is the same name for everybody; write {user} or {local} into it", form)
	}
	return nil
}

func (l *Limits) check(d *decoder, n *node) {
	for key, limit := range map[string]time.Duration{"login_timeout": l.LoginTimeout, "failure_delay": l.FailureDelay} {
		if limit <= 0 {
			d.errorf(n.at(key), "%s must be longer than 0", key)
		}
	}
	for service, limit := range l.IdleTimeout {
		if limit <= 0 {
			d.errorf(n.at("idle_timeout").at(string(service)), "idle_timeout must be longer than 0")
		}
	}
	if l.Attempts < 1 {
		d.errorf(n.at("attempts"), "attempts must be at least 1")
	}
}

func (l *Log) check(d *decoder, n *node) {
	if err := oneOf("level", l.Level, []string{"debug", "info", "warn", "error"}); err != nil {
		d.errorf(n.at("level"), "%s", err)
	}
	if n.get("format") != nil {
		if err := oneOf("format", l.Format, []string{"console", "json"}); err != nil {
			d.errorf(n.at("format"), "%s", err)
		}
	}
}
