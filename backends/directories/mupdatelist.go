package directories

import (
	"bytes"
	"fmt"
	"strings"
	"unique"

	"jackdaw/configs"
)

// maxMailboxes bounds the mailboxes that are kept of a list. A variable, so that tests need not send as many.
var maxMailboxes = 10_000_000

// mailboxes say where mail is, by the names that mailboxes have inside of Cyrus, which are the same in every Murder, whatever
// its clients see (unixhierarchysep, altnamespace):
//
//	user.anna                   the inbox of anna
//	user.anna.Sent              a folder of hers
//	user.john^doe               the inbox of john.doe: a dot within a name is ^
//	b.example!user.bob          the inbox of bob@b.example, with virtdomains, unless b.example is Cyrus's defaultdomain
//	info.sales                  a shared mailbox
//	b.example!DELETED.user.bob.66F0A1B2  a mailbox that is only kept until it expires
//
// Inboxes and shared mailboxes are kept, nothing else: all of a user's mail is where the inbox is.
type mailboxes struct {
	places  map[string]place
	domains map[string]int // how many mailboxes of a domain there are
}

// place is the name of a server. The zero place is of a mailbox that nobody can be led to: it is reserved, for it is being
// made or moved, or the master names no server that could be meant.
type place = unique.Handle[string]

func newMailboxes() *mailboxes {
	return &mailboxes{places: make(map[string]place), domains: make(map[string]int)}
}

// apply takes what a master says of a mailbox (RFC 3656 sections 3.5 to 3.7). It is not safe for concurrent use.
func (m *mailboxes) apply(r mupdateResponse) error {
	if !r.wellFormed() {
		return fmt.Errorf("%w: %s with %d strings", errMupdate, r.what, r.count)
	}
	name, domain, ok := keptName(r.strings[0])
	if !ok {
		return nil
	}
	switch string(r.what) {
	case "MAILBOX":
		return m.set(name, domain, placeOf(r.strings[1]))
	case "RESERVE":
		return m.set(name, domain, place{})
	}
	m.remove(name, domain)
	return nil
}

func (r mupdateResponse) wellFormed() bool {
	switch string(r.what) {
	case "MAILBOX":
		return r.count == 3 // name, location, access control list
	case "RESERVE":
		return r.count == 2 // name, location
	}
	return string(r.what) == "DELETE" && r.count == 1
}

func (m *mailboxes) set(name, domain []byte, at place) error {
	if _, known := m.places[string(name)]; !known {
		if len(m.places) >= maxMailboxes {
			return fmt.Errorf("the master lists more than %d mailboxes", maxMailboxes)
		}
		if len(domain) > 0 {
			m.domains[string(domain)]++
		}
	}
	m.places[string(name)] = at
	return nil
}

func (m *mailboxes) remove(name, domain []byte) {
	if _, known := m.places[string(name)]; !known {
		return // masters delete what they never had
	}
	delete(m.places, string(name))
	if len(domain) == 0 {
		return
	}
	if m.domains[string(domain)]--; m.domains[string(domain)] == 0 {
		delete(m.domains, string(domain))
	}
}

// keptName reads the name of a mailbox: whether it is one to keep, and its domain. A master that shows users' mailboxes as
// user/anna has dots for dots, and is understood, too.
func keptName(name []byte) (kept, domain []byte, ok bool) {
	if len(name) == 0 || bytes.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, nil, false
	}
	local := name
	if i := bytes.IndexByte(name, '!'); i > 0 {
		domain, local = name[:i], name[i+1:]
	}
	if bytes.HasPrefix(local, []byte("user/")) {
		for i, c := range local {
			switch c {
			case '/':
				local[i] = '.'
			case '.':
				local[i] = '^'
			}
		}
	}
	if user, isUser := bytes.CutPrefix(local, []byte("user.")); isUser {
		return name, domain, len(user) > 0 && bytes.IndexByte(user, '.') < 0
	}
	return name, domain, len(local) > 0 && !bytes.HasPrefix(local, []byte("DELETED."))
}

// placeOf reads a location, `server!partition`.
func placeOf(location []byte) place {
	server, _, _ := bytes.Cut(location, []byte("!"))
	if len(server) == 0 || bytes.ContainsFunc(server, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return place{}
	}
	return unique.Make(string(server))
}

// find finds the mailbox that decides about a user or a recipient. Users of Cyrus's defaultdomain stand in the list without
// it, so a domain of which nothing is listed is taken for that one.
func (m *mailboxes) find(q Query) (at place, ok bool) {
	domain := ""
	if m.domains[q.Domain] > 0 {
		domain = q.Domain + "!"
	}
	if at, ok = m.places[domain+"user."+internalName(q.Local)]; ok || q.Service != configs.LMTP {
		return at, ok
	}
	// Mail for Cyrus's postuser, who has no inbox, is for the shared mailbox that its detail names: in the one way of writing
	// with dots, in the other with slashes.
	box, ok := strings.CutPrefix(q.Detail, "+")
	if !ok {
		return at, false
	}
	if at, ok = m.places[domain+box]; ok {
		return at, true
	}
	at, ok = m.places[domain+strings.ReplaceAll(internalName(box), "/", ".")]
	return at, ok
}

func internalName(s string) string { return strings.ReplaceAll(s, ".", "^") }
