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
}

// maxSocket is the longest path in bytes that every system takes for a unix socket.
const maxSocket = 103

func (a *Admin) check(d *decoder, n *node) {
	d.canonical(n.at("socket"), &a.Socket, d.relative)
	if len(a.Socket) > maxSocket {
		d.errorf(n.at("socket"), "the path of a socket has at most %d bytes, and %s has %d", maxSocket, a.Socket, len(a.Socket))
	}
}

// checkAdmin refuses the socket of a listener for the daemon's own.
func (c *Config) checkAdmin(d *decoder, n *node) {
	admin := Address{"unix", filepath.Clean(c.Admin.Socket)}
	for _, l := range c.Listen.Listeners {
		if l.Address == admin {
			d.errorf(n.at("admin").at("socket"), "%s is listened on already, in line %d", l.Address, l.Line)
		}
	}
}
