package configs

import (
	"crypto/tls"
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
		State: "/var/lib/jackdaw",
		TLS:   TLS{Terms: Terms{MinVersion: tls.VersionTLS12, KeyType: KeyTypeECDSA}, ClientUser: ClientUserEmail},
		ACME:  ACME{Directory: LetsEncrypt, Cache: "/var/lib/jackdaw/acme"},
		Users: Users{Separators: "@%", Lowercase: true},
		Limits: Limits{
			LoginTimeout: 60 * time.Second,
			IdleTimeout:  idle,
			Attempts:     3,
			FailureDelay: 2 * time.Second,

			SessionsPerClient: 1000,
			SessionsPerUser:   100,
			FailuresPerClient: Rate{20, time.Minute},

			StopTimeout:    15 * time.Second,
			UpgradeTimeout: 24 * time.Hour,
		},
		Log:   Log{Level: "info"},
		Admin: Admin{Socket: AdminSocket},
	}
}

func newListener(s Service) Listener {
	l := Listener{Service: s, Name: string(s), TLS: TLSStartTLS}
	switch {
	case s.ImplicitTLS():
		l.TLS = TLSImplicit
	case s == LMTP:
		l.TLS = TLSNone
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
	case l.TLS == TLSNone && l.Service != LMTP:
		d.errorf(n.at("tls"), "%s always offers TLS; for clients that may log in without it use plaintext_from", l.Service)
	case l.TLS == TLSNone && l.Default != nil:
		d.errorf(n.at("default"), needsTLS, "default")
	case l.Service.ImplicitTLS() && l.TLS == TLSStartTLS:
		d.errorf(n.at("tls"), "%s begins with TLS; for STARTTLS listen for %s", l.Service, l.Service.Protocol())
	}
	d.canonical(n.at("realm"), &l.Realm, DNSName)
	if l.Default != nil {
		d.canonical(n.at("default"), l.Default, DNSName)
	}
	l.checkSocket(d, n)
	if l.Service == LMTP {
		l.checkLMTP(d, n)
	}
}

const needsTLS = `%s is of no use without TLS; say tls = "implicit" or tls = "starttls"`

// checkLMTP asks who may connect: LMTP has no login, and whoever can connect can deliver.
func (l *Listener) checkLMTP(d *decoder, n *node) {
	if value := n.values["plaintext_from"]; value != nil {
		d.errorf(value, "plaintext_from is about logins, and lmtp has none; who may deliver is said in from")
	}
	l.PlaintextFrom = Networks{}
	if (l.Address.wildcard() || !l.Address.local()) && len(n.get("from").list()) == 0 {
		d.errorf(n, "lmtp on %s can be reached from beyond this machine, and has no login; say in from who may deliver", l.Address)
	}
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
	if strings.Contains(l.Address.Address, "{") {
		d.errorf(n.at("address"), "%s: {name} stands for the name of a wildcard backend, which a listener has not", l.Address)
	}
}

func (t *TLS) check(d *decoder, n *node) {
	d.canonicalList(n.get("certificates"), t.Certificates, d.relative)
	if t.Default != nil {
		d.canonical(n.at("default"), t.Default, DNSName)
	}
	d.canonical(n.at("client_ca"), &t.ClientCA, d.relative)
	d.canonical(n.at("ticket_keys"), &t.TicketKeys, d.relative)
	t.checkPolicies(d, n.get("policy").list())
	if value := n.get("client_user"); value != nil && !t.AsksClients() {
		d.errorf(value, "client_user is of no use without client_ca")
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
	switch {
	case r.Lookup != "" && r.Refuse != "":
		d.errorf(n.at("refuse"), "a route that looks users up cannot refuse them all")
	case r.Lookup == "" && (r.To == "") == (r.Refuse == ""):
		d.errorf(n, `a route needs either to = "a backend", lookup = "a directory" or refuse = "the reason"`)
	}
	d.canonicalList(n.get("domain"), r.Domain, dnsPattern)
	d.canonicalList(n.get("sni"), r.SNI, dnsPattern)
}

// unconditional reports whether a route matches everything.
func (r *Route) unconditional(n *node) bool {
	return !slices.ContainsFunc(n.keys, func(key string) bool { return key != "to" && key != "refuse" })
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
