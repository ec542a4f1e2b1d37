package backends

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"jackdaw/configs"
)

// User is a canonical user: the one form of a name that routing, limits and logs use. Domain is "" for a bare name.
type User struct {
	Local  string
	Domain string // as A-labels, in lower case
}

func (u User) String() string {
	if u.Domain == "" {
		return u.Local
	}
	return u.Local + "@" + u.Domain
}

// Form writes the user as a store wants the name: {user}, {local} and {domain} are replaced. A bare name has no domain
// to stand beside it, so a form with {domain} leaves it bare.
func (u User) Form(form string) string {
	if u.Domain == "" && strings.Contains(form, "{domain}") {
		return u.Local
	}
	// One pass over the form: what a client chose is never expanded (CVE-2017-2669).
	if form == "{user}" {
		return u.String()
	}
	return strings.NewReplacer("{user}", u.String(), "{local}", u.Local, "{domain}", u.Domain).Replace(form)
}

// maxName bounds user names, in octets: a local part of 64 and a domain of 255 (RFC 5321 section 4.5.3.1) fit amply.
const maxName = 512

// ErrName means that a user name is one that no store may be given.
var ErrName = errors.New("unusable user name")

// Names makes canonical users, by the [users] table.
type Names struct {
	users  configs.Users
	realms []realm
}

// realm is a pattern for SNI names with at most one placeholder, between before and after.
type realm struct {
	before, after string
	placeholder   bool
	domain        string
}

// NewNames prepares a [users] table.
func NewNames(users configs.Users) *Names {
	n := &Names{users: users}
	for pattern, domain := range users.Realms {
		n.realms = append(n.realms, newRealm(pattern, domain))
	}
	// Longer before shorter, and the same order every time. An exact name is longer than any pattern that matches it.
	slices.SortFunc(n.realms, func(a, b realm) int {
		return cmp.Or(cmp.Compare(len(b.before+b.after), len(a.before+a.after)),
			cmp.Compare(a.before, b.before), cmp.Compare(a.domain, b.domain))
	})
	return n
}

func newRealm(pattern, domain string) realm {
	for _, placeholder := range []string{"*", "{domain}"} {
		if before, after, found := strings.Cut(pattern, placeholder); found {
			return realm{before, after, true, domain}
		}
	}
	return realm{before: pattern, domain: domain}
}

func (r realm) match(sni string) (string, bool) {
	if !r.placeholder {
		return r.domain, sni == r.before
	}
	rest, ok := strings.CutPrefix(sni, r.before)
	if !ok {
		return "", false
	}
	rest, ok = strings.CutSuffix(rest, r.after)
	if !ok || rest == "" {
		return "", false
	}
	return strings.ReplaceAll(r.domain, "{domain}", rest), true
}

// Realm is the domain that completes bare names: the listener's own, else what the SNI name leads to, else the default.
func (n *Names) Realm(listener, sni string) string {
	if listener != "" {
		return listener
	}
	for _, r := range n.realms {
		if domain, ok := r.match(sni); sni != "" && ok {
			return domain
		}
	}
	return n.users.DefaultRealm
}

// Canonical makes the canonical user of a name as a client wrote it; a bare name gets the realm. Names that a store could
// read otherwise than we do are refused: with control or invisible characters, with "*" (which parts user and master at
// Dovecot), with a second separator.
func (n *Names) Canonical(name, realm string) (User, error) {
	if err := checkName(name); err != nil {
		return User{}, err
	}
	name = n.fold(name)
	local, domain := name, realm
	if i := strings.LastIndexAny(name, n.users.Separators); i >= 0 {
		local, domain = name[:i], name[i+1:]
		if domain == "" {
			return User{}, fmt.Errorf("%w: empty domain", ErrName)
		}
	} else if slices.Contains(n.users.Unqualified, name) {
		domain = ""
	}
	return n.user(local, domain)
}

// user makes a canonical user of the parts of a name.
func (n *Names) user(local, domain string) (User, error) {
	// What is left of a separator must not become one at a store that is given the local part alone.
	if local == "" || strings.ContainsAny(local, "@"+n.users.Separators) {
		return User{}, fmt.Errorf("%w: local part %q", ErrName, local)
	}
	user := User{Local: local}
	if domain != "" {
		var err error
		if user.Domain, err = configs.DNSName(domain); err != nil {
			return User{}, fmt.Errorf("%w: domain: %w", ErrName, err)
		}
	}
	// The conversions may have made it longer, and a local part may end with a blank of its own.
	if err := cmp.Or(checkName(user.Local), checkName(user.String())); err != nil {
		return User{}, err
	}
	return user, nil
}

// fold gives a name the form in which names are compared.
func (n *Names) fold(name string) string {
	if n.users.Lowercase {
		name = strings.ToLower(name)
	}
	return norm.NFC.String(name)
}

// checkName refuses what must not travel. RFC 4616 section 2 wants UTF-8.
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: empty", ErrName)
	case len(name) > maxName:
		return fmt.Errorf("%w: longer than %d octets", ErrName, maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: not UTF-8", ErrName)
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("%w: blanks around it", ErrName)
	case strings.ContainsFunc(name, unfit):
		return fmt.Errorf("%w: a character that no name may have", ErrName)
	}
	return nil
}

func unfit(r rune) bool {
	return r == '*' || r != ' ' && unicode.IsSpace(r) || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
