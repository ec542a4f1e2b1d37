package configs

import (
	"maps"
	"os"
	"slices"
	"strings"
)

// Backend returns the backend of a name, or else the wildcard backend that covers it: "*" is exactly one label.
func (c *Config) Backend(name string) (*Backend, bool) {
	for _, wanted := range []string{name, wildcardOf(name)} {
		for i := range c.Backends {
			if c.Backends[i].Name == wanted {
				return &c.Backends[i], true
			}
		}
	}
	return nil, false
}

// check looks at what depends on several tables.
func (c *Config) check(d *decoder, n *node) {
	c.checkHostname(d, n)
	d.canonical(n.at("state"), &c.State, d.relative)
	c.checkListeners(d, n)
	c.checkAdmin(d, n)
	c.checkCertificates(d, n)
	c.checkACME(d, n)
	c.checkPolicyServices(d, n)
	c.checkBackends(d, n)
	c.checkLogins(d, n)
	c.checkServices(d)
	c.checkLoops(d, n)
	c.checkRoutes(d, n)
	c.checkPools(d, n)
	c.checkVerifier(d, n)
}

func (c *Config) checkHostname(d *decoder, n *node) {
	d.canonical(n.at("hostname"), &c.Hostname, DNSName)
	if c.Hostname != "" {
		return
	}
	// A system may be called anything; that is not the file's mistake.
	name, err := os.Hostname()
	if err == nil {
		c.Hostname, err = DNSName(name)
	}
	if err != nil {
		c.Hostname = "localhost"
	}
}

func (c *Config) checkListeners(d *decoder, n *node) {
	if len(c.Listen.Listeners) == 0 {
		d.errorf(n.at("listen"), `nothing to listen on; give a service an address, such as imaps = ":993" in [listen]`)
	}
	lines := make(map[Address]int)
	for _, l := range c.Listen.Listeners {
		if l.Address.Network == "" {
			continue // unreadable
		}
		if line, ok := lines[l.Address]; ok {
			d.errorf(&node{line: l.Line}, "%s is listened on already, in line %d", l.Address, line)
		}
		lines[l.Address] = l.Line
	}
}

// checkCertificates asks for certificates unless all listeners can do without TLS.
func (c *Config) checkCertificates(d *decoder, n *node) {
	needed := slices.ContainsFunc(c.Listen.Listeners, func(l Listener) bool {
		return l.TLS == TLSImplicit || l.TLS == TLSStartTLS && l.PlaintextFrom.Empty()
	})
	if needed && len(c.TLS.Certificates) == 0 && len(c.ACME.Names) == 0 {
		d.errorf(n.at("tls"), `no certificates; name files or directories in [tls], such as `+
			`certificates = ["/etc/letsencrypt/live"]`)
	}
}

func (c *Config) checkBackends(d *decoder, n *node) {
	if len(n.get("backend").list()) == 0 {
		d.errorf(n.at("backend"), "no store to lead users to; describe it in [[backend]]")
	}
	lines := make(map[string]int)
	for _, b := range c.Backends {
		if line, ok := lines[b.Name]; ok && b.Name != "" {
			d.errorf(&node{line: b.Line}, "backend %q is already given in line %d", b.Name, line)
		}
		lines[b.Name] = b.Line
	}
}

// checkLogins refuses to enter a store on the proxy's word where the proxy verifies nobody.
func (c *Config) checkLogins(d *decoder, n *node) {
	for i, b := range c.Backends {
		for service, a := range b.Access {
			n := n.get("backend").list()[i].values[string(service)]
			if service == LMTP {
				continue
			}
			if value := n.get("external_login"); value != nil && !c.TLS.AsksClients() {
				d.errorf(value, "external_login is for users with a client certificate, and [tls] client_ca does not ask for any")
			}
			if a.Login != LoginSame && a.Login != "" && !c.TLS.AsksClients() && c.Auth.Verify == VerifyBackend {
				d.errorf(n.at("login"), "login = %q is for users whom jackdaw has verified itself; say in [auth] who verifies, or "+
					"external_login with [tls] client_ca", a.Login)
			}
		}
	}
}

// checkVerifier refuses to have directories verify that nobody asks.
func (c *Config) checkVerifier(d *decoder, n *node) {
	asked := slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Lookup != "" })
	if c.Auth.Verify == VerifyDirectory && !asked {
		d.errorf(n.get("auth").at("verify"), `verify = "directory" needs a route with lookup: the directory that places a user verifies him`)
	}
	if len(c.Auth.Scram) > 0 && c.Auth.Verify == VerifyDirectory {
		c.checkScram(d, n.get("auth").at("scram"))
	}
	if c.Auth.Tokens.Given() && c.Auth.Verify != VerifyBackend && len(c.Backends) > 0 && !c.takesOurWord() {
		d.errorf(n.get("auth").at("tokens"), `auth.tokens: every backend wants to hear the password; say login = "authzid" or "master" where one need not`)
	}
}

// checkScram refuses SCRAM with directories that have no keys, and for stores that all want to hear the password.
func (c *Config) checkScram(d *decoder, n *node) {
	for _, name := range c.lookups() {
		if kind := c.Directories[name].Kind; kind != "" && !kind.StoresPasswords() {
			d.errorf(n, "auth.scram: directory %q is of kind %q, which has no keys", name, kind)
		}
	}
	if len(c.Backends) > 0 && !c.takesOurWord() {
		d.errorf(n, `auth.scram: every backend wants to hear the password; say login = "authzid" or "master" where one need not`)
	}
}

// lookups lists the directories that routes ask, sorted.
func (c *Config) lookups() []string {
	var names []string
	for _, r := range c.Routes {
		if r.Lookup != "" {
			names = append(names, r.Lookup)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// takesOurWord reports whether some store can be entered without the client's password.
func (c *Config) takesOurWord() bool {
	for _, b := range c.Backends {
		for service, access := range b.Access {
			if service != LMTP && access.Login != LoginSame {
				return true
			}
		}
	}
	return false
}

// checkServices refuses to listen for what no backend offers. Which backends a client can be led to depends on too much
// to ask for more.
func (c *Config) checkServices(d *decoder) {
	for _, l := range c.Listen.Listeners {
		offered := slices.ContainsFunc(c.Backends, func(b Backend) bool {
			_, ok := b.Access[l.Service.Protocol()]
			return ok
		})
		if !offered && len(c.Backends) > 0 {
			d.errorf(&node{line: l.Line}, "no backend offers %s, which clients would need here", l.Service.Protocol())
		}
	}
}

// checkLoops refuses a store's address that leads back to a listener.
func (c *Config) checkLoops(d *decoder, n *node) {
	for i, b := range c.Backends {
		for service, access := range b.Access {
			for _, a := range access.Addresses {
				if l := slices.IndexFunc(c.Listen.Listeners, func(l Listener) bool { return a.leadsTo(l.Address) }); l >= 0 {
					where := n.get("backend").list()[i].at(string(service))
					d.errorf(where, "%s leads back to the listener in line %d; let the store listen elsewhere",
						a, c.Listen.Listeners[l].Line)
				}
			}
		}
	}
}

func (c *Config) checkRoutes(d *decoder, n *node) {
	if len(c.Routes) == 0 {
		c.checkNoRoute(d, n)
		return
	}
	last := 0 // the line of a route after which no other is reached
	for i, r := range c.Routes {
		n := n.get("route").list()[i]
		if last > 0 {
			d.errorf(n, "route is never reached: the one in line %d matches everything", last)
		} else if r.unconditional(n) {
			last = r.Line
		}
		d.canonicalList(n.get("user"), r.User, c.Users.pattern)
		c.checkTo(d, n.at("to"), r.To)
		c.checkLookup(d, n.at("lookup"), r.Lookup)
		c.checkListenerNames(d, n.get("listener"), r.Listener)
	}
}

// checkNoRoute: without routes there must be no doubt about where everybody's mail is.
func (c *Config) checkNoRoute(d *decoder, n *node) {
	switch {
	case len(n.get("route").list()) > 0:
		// They are there, but unreadable.
	case len(c.Backends) > 1:
		d.errorf(&node{line: c.Backends[1].Line}, `several backends and no [[route]]: nobody would be let in; `+
			`say who goes where, or to = %q for all`, c.Backends[0].Name)
	case len(c.Backends) == 1 && strings.HasPrefix(c.Backends[0].Name, "*"):
		d.errorf(&node{line: c.Backends[0].Line}, "backend %q stands for many stores and no [[route]] names one",
			c.Backends[0].Name)
	}
}

// checkTo looks for the backend that a route names.
func (c *Config) checkTo(d *decoder, n *node, to string) {
	if _, isPool := c.Pool(to); isPool || to == "" || len(c.Backends) == 0 {
		return // or reported already
	}
	backend, ok := c.Backend(to)
	switch {
	case !ok:
		names := c.backendNames()
		for _, p := range c.Pools {
			names = append(names, p.Name)
		}
		d.errorf(n, "no backend %q%s", to, Suggest(to, names))
	case strings.HasPrefix(to, "*"):
		d.errorf(n, "%q stands for many stores; name one of them", to)
	case backend.Name != to:
		if name, err := DNSName(to); name != to || err != nil {
			d.errorf(n, "%q cannot stand for {name}: it is no DNS name in lower case", to)
		}
	}
}

// checkLookup looks for the directory that a route names.
func (c *Config) checkLookup(d *decoder, n *node, lookup string) {
	if _, ok := c.Directories[lookup]; !ok && lookup != "" && !slices.Contains(d.broken, "directory."+lookup) {
		d.errorf(n, "no directory %q%s", lookup, Suggest(lookup, slices.Sorted(maps.Keys(c.Directories))))
	}
}

func (c *Config) checkListenerNames(d *decoder, n *node, patterns []string) {
	var names []string
	for _, l := range c.Listen.Listeners {
		names = append(names, l.Name)
	}
	for i, pattern := range patterns {
		if !slices.ContainsFunc(names, func(name string) bool { return Match(pattern, name) }) {
			d.errorf(n.list()[i], "no listener %q%s", pattern, Suggest(pattern, names))
		}
	}
}
