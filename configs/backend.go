package configs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

func (b *Backend) check(d *decoder, n *node) {
	b.checkName(d, n)
	if !slices.ContainsFunc(n.keys, func(key string) bool { return Service(key).Known() }) {
		d.errorf(n, `backend %q offers no service; give it an address, such as imap = "127.0.0.1:143"`, b.Name)
	}
	wildcard := strings.HasPrefix(b.Name, "*")
	for service, a := range b.Access {
		a.checkService(d, n.values[string(service)], service)
		b.Access[service] = a
	}
	for key, limit := range map[string]int{"max_sessions": b.MaxSessions, "max_logins": b.MaxLogins} {
		if limit < 0 {
			d.errorf(n.at(key), "%s cannot be less than 0, which is no limit", key)
		}
	}
	b.checkUses(d, n)
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

// uses tells which ways to a store have a use for some keys, and what errors say where none has.
var uses = []struct {
	by        func(Service, Access) bool
	complaint string
	keys      []string
}{
	{func(_ Service, a Access) bool { return a.TLS != TLSNone }, needsTLS, []string{"tls_name", "tls_ca"}},
	{func(_ Service, a Access) bool { return !a.onlyUnix() }, "%s is of no use for unix sockets", []string{"source"}},
	{func(s Service, _ Access) bool { return s != LMTP }, "%s is of no use for lmtp, which has no login",
		[]string{"login", "external_login", "accepts_any_password", "max_sessions", "max_logins"}},
	{func(s Service, a Access) bool { return a.needsCredentials(s) },
		`%s is of no use here; it is for lmtp, and for login or external_login = "authzid" or "master"`,
		[]string{"login_user", "login_password", "login_password_file"}},
}

// checkUses refuses a key in the table of a service that has no use for it, and in the backend's own if no service has.
func (b *Backend) checkUses(d *decoder, n *node) {
	for _, use := range uses {
		used := false
		for service, a := range b.Access {
			if use.by(service, a) {
				used = true
			} else {
				d.useless(n.values[string(service)], use.keys, use.complaint)
			}
		}
		if !used {
			d.useless(n, use.keys, use.complaint)
		}
	}
}

func (d *decoder) useless(n *node, keys []string, complaint string) {
	for _, key := range keys {
		if value := n.values[key]; value != nil {
			d.errorf(value, complaint, key)
		}
	}
}

func (b *Backend) checkAddresses(d *decoder, n *node, wildcard bool) {
	for service, access := range b.Access {
		for _, a := range access.Addresses {
			if strings.Contains(a.Address, "{") && !wildcard {
				d.errorf(n.at(string(service)), `%s: {name} and {port} are for a backend whose name begins with "*."`, a)
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
		if address.Network == "tcp" && (address.wildcard() || address.port() == "0") {
			d.errorf(n.at("address").list()[i], "%s: %q: the store's host and port must be given", n.path, address)
		}
	}
	if err := checkForm(a.User); err != nil {
		d.errorf(n.at("user"), "user: %s", err)
	}
	d.canonical(n.at("tls_name"), &a.TLSName, hostName)
	d.canonical(n.at("tls_ca"), &a.TLSCA, d.relative)
	a.checkTLS(d, n)
	a.checkSource(d, n)
	if user := n.get("login_user"); user != nil && user.kind == unstable.String && (user.text == "" || strings.Contains(user.text, "*")) {
		d.errorf(user, "login_user must be a name without *, not %q", user.text)
	}
}

// checkSource: both ends of a connection have addresses of the same family.
func (a *Access) checkSource(d *decoder, n *node) {
	for _, address := range a.Addresses {
		ip, err := netip.ParseAddr(address.host())
		fits := func(source netip.Addr) bool { return !source.IsValid() || source.Is4() == ip.Is4() }
		if err == nil && len(a.Source) > 0 && !slices.ContainsFunc(a.Source, fits) {
			d.errorf(n.at("source"), "%s: no connection leads from %s to %s; give a source of the same family, too", n.path,
				a.Source[0], address)
		}
	}
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
	case a.TLS != "" && unix && a.TLSName == "":
		d.errorf(n, "%s: TLS over a unix socket needs tls_name, the name that the certificate is checked for", n.path)
	}
}

// onlyUnix reports whether nothing leads to the store but unix sockets.
func (a *Access) onlyUnix() bool {
	return len(a.Addresses) > 0 && !slices.ContainsFunc(a.Addresses, func(a Address) bool { return a.Network != "unix" })
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
