package directories

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
	"go.uber.org/zap"

	"jackdaw/configs"
)

// ldapDirectory finds users in LDAP (RFC 4511): a search for the one entry that a filter describes, and, where a password is to
// be verified, a bind as that entry. Its servers are in ldapserver.go.
type ldapDirectory struct {
	config     configs.Directory
	filter     string
	attributes []string // that are asked for
	servers    []*ldapServer
	busy       chan struct{}   // has an element for each connection that is in use
	open       context.Context // ends with Close
	close      context.CancelCauseFunc
}

// ldapConnections bounds the connections that are in use at once: a server that is slow must not be given ever more to do.
const ldapConnections = 64

func newLDAP(c configs.Directory, _ *zap.Logger) (Directory, error) {
	d := &ldapDirectory{config: c, filter: oneLineFilter(string(c.Filter)), busy: make(chan struct{}, ldapConnections)}
	if _, err := ldap.CompileFilter(fillFilter(d.filter, Query{User: "user", Local: "local", Domain: "domain"})); err != nil {
		return nil, fmt.Errorf("filter %s: %w", d.filter, err)
	}
	d.attributes = append([]string{c.Backend, c.User}, slices.Collect(maps.Values(c.Services))...)
	d.attributes = slices.DeleteFunc(d.attributes, func(name string) bool { return name == "" })
	if len(d.attributes) == 0 {
		d.attributes = []string{"1.1"} // none (RFC 4511 section 4.5.1.8): an empty list would stand for all
	}
	secured, err := clientTLS(c.TLSCA)
	if err != nil {
		return nil, err
	}
	for _, u := range c.URLs {
		s, err := newLDAPServer(u, c, secured)
		if err != nil {
			return nil, err
		}
		d.servers = append(d.servers, s)
	}
	d.open, d.close = context.WithCancelCause(context.Background())
	return d, nil
}

// Close ends the questions that are under way.
func (d *ldapDirectory) Close() {
	d.close(errClosed)
	for _, s := range d.servers {
		s.searching.close()
		s.verifying.close()
	}
}

// Lookup finds the entry of a user, and then binds as it. What an entry refuses is told to those alone who know its password.
func (d *ldapDirectory) Lookup(ctx context.Context, q Query) (Answer, error) {
	if checkText(q.User) != nil {
		return Answer{}, ErrNotFound // a server would pass over NUL, and find somebody else: RFC 4518 section 2.2
	}
	ctx, cancel := bounded(ctx, d.open, d.config.Timeout)
	defer cancel()
	entry, err := d.search(ctx, q)
	if err != nil {
		return Answer{}, err
	}
	answer, err := d.read(entry, q.Service)
	if err != nil {
		return Answer{}, fmt.Errorf("entry %q: %w", entry.DN, err)
	}
	if q.Verify {
		if err := d.verify(ctx, entry.DN, q.Secret); err != nil {
			return Answer{}, err
		}
		answer.Verified = true
	}
	return answer, nil
}

var errAmbiguous = errors.New("the filter matches more than one entry")

// search finds the one entry that the filter describes.
func (d *ldapDirectory) search(ctx context.Context, q Query) (*ldap.Entry, error) {
	request := &ldap.SearchRequest{
		BaseDN: d.config.Base, Scope: ldap.ScopeWholeSubtree, Filter: fillFilter(d.filter, q), Attributes: d.attributes,
		SizeLimit: 2, EnforceSizeLimit: true, TimeLimit: int(d.config.Timeout / time.Second),
	}
	var found []*ldap.Entry
	err := d.ask(ctx, searching, func(c *ldap.Conn) error {
		result, err := c.Search(request)
		switch {
		case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded), errors.Is(err, ldap.ErrSizeLimitExceeded):
			return errAmbiguous
		case err != nil:
			return fmt.Errorf("searching: %w", err)
		}
		found = result.Entries // and no referrals: whoever is sent on with a password must know to whom
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, ErrNotFound
	case len(found) > 1:
		return nil, errAmbiguous
	}
	return found[0], nil
}

// read takes the answer out of an entry.
func (d *ldapDirectory) read(entry *ldap.Entry, service configs.Service) (answer Answer, err error) {
	if answer.Backend, err = onlyValue(entry, d.config.Backend); err != nil {
		return Answer{}, err
	}
	if answer.User, err = onlyValue(entry, d.config.User); err != nil {
		return Answer{}, err
	}
	attribute, asked := d.config.Services[service]
	if !asked {
		attribute, asked = d.config.Services[service.Protocol()]
	}
	if !asked {
		return answer, nil
	}
	value, err := onlyValue(entry, attribute)
	permitted, known := permission(value)
	switch {
	case err != nil:
		return Answer{}, err
	case !known:
		return Answer{}, fmt.Errorf("attribute %s says neither yes nor no", attribute)
	case !permitted:
		answer.Refuse = fmt.Sprintf("attribute %s of %q does not permit %s", attribute, entry.DN, service)
	}
	return answer, nil
}

// onlyValue returns what an attribute says, "" if it is not there. Of several values none is the right one.
func onlyValue(entry *ldap.Entry, attribute string) (string, error) {
	if attribute == "" {
		return "", nil
	}
	values := entry.GetEqualFoldAttributeValues(attribute)
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", fmt.Errorf("attribute %s has %d values", attribute, len(values))
	}
	if err := checkText(values[0]); err != nil {
		return "", fmt.Errorf("attribute %s %w", attribute, err)
	}
	return values[0], nil
}

// verify binds as an entry.
func (d *ldapDirectory) verify(ctx context.Context, dn, password string) error {
	switch {
	case password == "":
		return ErrDenied // RFC 4513 section 5.1.2: a server takes such a bind for an anonymous one, and lets it succeed
	case dn == "":
		return errors.New("the entry found has no name to bind as") // the same is true of an empty name: section 5.1.1
	}
	var denied bool
	err := d.ask(ctx, verifying, func(c *ldap.Conn) error {
		err := c.Bind(dn, password)
		if denied = ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials); denied || err == nil {
			return nil
		}
		return fmt.Errorf("binding as %q: %w", dn, err)
	})
	switch {
	case err != nil:
		return err
	case denied:
		return fmt.Errorf("%w, as is said to a bind as %q", ErrDenied, dn)
	}
	return nil
}

// placeholder is a part of a filter that stands for something of the question.
var placeholder = regexp.MustCompile(`:(user|local|domain|service|sni|client)\b`)

// fillFilter puts the question into a filter. Nothing of it can end the value in which it stands: RFC 4515 section 3.
func fillFilter(filter string, q Query) string {
	return placeholder.ReplaceAllStringFunc(filter, func(name string) string {
		value, _ := sqlParameters[name[1:]](q).(string)
		return ldap.EscapeFilter(value)
	})
}

// oneLineFilter joins the lines of a filter. Blanks between its parts would be no part of the syntax.
func oneLineFilter(filter string) string {
	var b strings.Builder
	for line := range strings.Lines(filter) {
		b.WriteString(strings.TrimSpace(line))
	}
	return b.String()
}
