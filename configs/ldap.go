package configs

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// ldapSocket is where OpenLDAP's libraries look for a server by "ldapi:///".
const ldapSocket = "/run/slapd/ldapi"

// LDAPServer tells where the server of an LDAP URL is, and whether it speaks TLS from the first byte. What else such a URL may
// have (RFC 4516 section 2), a base and a filter, has keys of its own.
func LDAPServer(s string) (server Address, implicit bool, err error) {
	scheme, rest, _ := strings.Cut(s, "://")
	ports := map[string]string{"ldap": "389", "ldaps": "636"}
	if scheme == "ldapi" {
		server, err = ldapUnix(rest)
		return server, false, err
	}
	if strings.Contains(rest, "@") {
		return Address{}, false, errNamedURL
	}
	u, err := url.Parse(s)
	if err != nil || ports[scheme] == "" || u.Hostname() == "" {
		return Address{}, false, fmt.Errorf(`%q is no URL such as "ldap://127.0.0.1"`, s)
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return Address{}, false, fmt.Errorf("%q: only a host and a port stand here; the rest has keys of its own", s)
	}
	port := u.Port()
	if port == "" {
		port = ports[scheme]
	}
	address, err := parseAddress(net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return Address{}, false, err
	}
	return address.(Address), scheme == "ldaps", nil
}

// errNamedURL does not show the URL, in which a password may be.
var errNamedURL = errors.New("a name or password cannot stand in a URL; it has keys of its own")

// ldapUnix reads the rest of "ldapi:///path", or of "ldapi://%2Fpath" as OpenLDAP writes it.
func ldapUnix(rest string) (Address, error) {
	path, err := url.PathUnescape(rest)
	switch {
	case err != nil || !strings.HasPrefix(path, "/"):
		return Address{}, errors.New(`the path of a socket must begin with /, as in "ldapi:///run/slapd/ldapi"`)
	case path == "/":
		path = ldapSocket
	}
	return Address{"unix", path}, nil
}

// checkLDAP looks at servers, and at what is said to them.
func (q *Directory) checkLDAP(d *decoder, n *node) {
	plain, wrapped := false, false // servers that STARTTLS is for, and those that speak TLS at once
	for i, item := range n.get("urls").list() {
		if item.kind != unstable.String {
			continue // reported already
		}
		server, implicit, err := LDAPServer(q.URLs[i])
		switch {
		case err != nil:
			d.errorf(item, "%s: %s", item.path, err)
		case implicit:
			wrapped = true
		case server.Network == "tcp":
			plain = true
			if !server.local() && n.get("starttls") == nil {
				d.errorf(item, "%s: %q hears passwords; say starttls = true, or false if they may travel in the clear",
					item.path, q.URLs[i])
			}
		}
	}
	if q.StartTLS && !plain {
		d.errorf(n.at("starttls"), `%s.starttls is of no use without a server at "ldap://"`, n.path)
	}
	if q.Kind == DirectoryLDAP && q.TLSCA != "" && !q.StartTLS && !wrapped {
		d.errorf(n.at("tls_ca"), `%s.tls_ca is of no use without TLS; say starttls = true, or "ldaps://"`, n.path)
	}
	if (q.BindDN == "") != (q.BindPassword == "") {
		d.errorf(n.at("bind_dn"), "%s: bind_dn and bind_password belong together", n.path)
	}
}
