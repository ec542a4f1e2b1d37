package configs

// checkMUPDATE looks at the masters, and at what is said to them.
func (q *Directory) checkMUPDATE(d *decoder, n *node) {
	if q.Kind != DirectoryMUPDATE {
		return
	}
	beyond := false
	for i, address := range q.Servers {
		item := n.get("server").list()[i]
		switch {
		case address.Network == "tcp" && (address.wildcard() || address.port() == "0"):
			d.errorf(item, "%s: %q: the master's host and port must be given", item.path, address)
		case address.Network == "unix" && q.TLS != TLSNone && q.TLS != "":
			d.errorf(item, "%s: TLS over a unix socket has no name that the certificate could be checked for", item.path)
		}
		beyond = beyond || address.Network != "" && !address.local()
	}
	if beyond && n.get("tls") == nil {
		d.errorf(n, `%s leads beyond this machine; say tls = "implicit", "starttls" or "none"`, n.path)
	}
	if value := n.get("tls_ca"); value != nil && (q.TLS == TLSNone || q.TLS == "" && !beyond) {
		d.errorf(value, `%s is of no use without TLS; say tls = "starttls" or "implicit"`, value.path)
	}
	if (q.User != "") != (n.secret("password") != nil) {
		d.errorf(n, "%s: user and password belong together", n.path)
	}
	if q.TLS == "" {
		q.TLS = TLSNone
	}
}
