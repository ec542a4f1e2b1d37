package backends

import (
	"cmp"
	"fmt"
	"strings"

	"jackdaw/internal/wire"
)

// Mailbox is a recipient of mail: a user, and a detail that is for the user's own store to understand.
type Mailbox struct {
	User   User
	Detail string // with the "+" in front, as it was written; "" where there is none
}

// Mailbox makes the mailbox of a recipient's address. The user is whom a login with the same name would be; the detail
// begins at the first "+" of the local part.
func (n *Names) Mailbox(address wire.Path, realm string) (Mailbox, error) {
	local, detail := address.Local, ""
	if i := strings.IndexByte(local, '+'); i >= 0 {
		local, detail = local[:i], local[i:]
	}
	// What parts names must not come from within a quoted local part, and the store reads it with the detail.
	if strings.Contains(local, "@") || strings.ContainsAny(detail, "@"+n.users.Separators) {
		return Mailbox{}, fmt.Errorf("%w: local part %q", ErrName, address.Local)
	}
	if err := checkName(address.Local); err != nil {
		return Mailbox{}, err
	}
	if address.Domain == "" {
		user, err := n.Canonical(local, realm)
		return Mailbox{user, detail}, err
	}
	if err := cmp.Or(checkName(local), checkName(address.Domain)); err != nil {
		return Mailbox{}, err
	}
	user, err := n.user(n.fold(local), n.fold(address.Domain))
	return Mailbox{user, detail}, err
}

// Address writes the mailbox as a store wants its users' names, with the detail behind the local part.
func (m Mailbox) Address(form string) (wire.Path, error) {
	name := User{m.User.Local + m.Detail, m.User.Domain}.Form(form)
	address := wire.Path{Local: name}
	if i := strings.LastIndexByte(name, '@'); i >= 0 { // neither local part nor detail has any
		address = wire.Path{Local: name[:i], Domain: name[i+1:]}
	}
	// A form may put what a client chose where a domain is.
	args := wire.NewArgs(address.String())
	if again, ok := args.Path(); !ok || again != address || !args.End() || again == (wire.Path{}) {
		return wire.Path{}, fmt.Errorf("%w: %q makes no address of it", ErrName, form)
	}
	return address, nil
}
