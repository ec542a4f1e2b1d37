package configs

import "path/filepath"

// AdminSocket is where jackdaw's own commands ask a running daemon, if nobody says otherwise.
const AdminSocket = "/run/jackdaw/admin.sock"

// Admin is the [admin] table.
type Admin struct {
	// Socket is the path of a unix socket on which the daemon answers jackdaw's own commands; default AdminSocket, and "" for
	// none. Whoever may open it may ask everything: it is the owner's and the group's of the process (mode 0660). If it cannot
	// be made, the daemon warns and runs without.
	Socket string `toml:"socket"`
	// Listen is ":port", "host:port" or "[::1]:port", where the daemon serves the status page, /metrics, /healthz and /readyz by HTTP;
	// default: nowhere. Beyond loopback it must have Token. If it cannot be listened on, the daemon warns and runs without.
	Listen Address `toml:"listen"`
	// Token is asked for, if it is given, for the page and /metrics: as a bearer token, or as the password of anybody.
	Token string `toml:"token,secret"`
}

// maxSocket is the longest path in bytes that every system takes for a unix socket.
const maxSocket = 103

// minToken is the least length of a token in octets: it has to withstand whoever can try as often as he likes.
const minToken = 16

func (a *Admin) check(d *decoder, n *node) {
	d.canonical(n.at("socket"), &a.Socket, d.relative)
	if len(a.Socket) > maxSocket {
		d.errorf(n.at("socket"), "the path of a socket has at most %d bytes, and %s has %d", maxSocket, a.Socket, len(a.Socket))
	}
	switch {
	case a.Listen.Network == "unix":
		d.errorf(n.at("listen"), "listen is for HTTP on TCP, and %s is a unix socket; curl can ask on [admin] socket", a.Listen)
	case a.Token != "" && len(a.Token) < minToken:
		d.errorf(n.at("token"), "a token has at least %d octets", minToken)
	case (a.Listen.wildcard() || !a.Listen.local()) && n.secret("token") == nil:
		d.errorf(n.at("listen"), "%s can be reached from beyond this machine; say in token_file who may ask", a.Listen)
	}
}

// checkAdmin refuses the socket or address of a listener for the daemon's own.
func (c *Config) checkAdmin(d *decoder, n *node) {
	admin := Address{"unix", filepath.Clean(c.Admin.Socket)}
	for _, l := range c.Listen.Listeners {
		if l.Address == admin {
			d.errorf(n.at("admin").at("socket"), "%s is listened on already, in line %d", l.Address, l.Line)
		}
		if l.Address == c.Admin.Listen && l.Address.Network != "" {
			d.errorf(n.at("admin").at("listen"), "%s is listened on already, in line %d", l.Address, l.Line)
		}
	}
}
