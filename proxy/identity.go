package proxy

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"

	"jackdaw/backends"
	"jackdaw/configs"
)

var (
	errEmptyPassword = fmt.Errorf("%w: empty password", errPolicy)
	errAuthzid       = fmt.Errorf("%w: authorization as another user", errPolicy)
)

// identify makes the canonical user of an attempt, who is to be placed. actor is who acts as that user with a password of
// his own, which RFC 4616 section 2 calls authorization and Dovecot's user*master a master login: from impersonate_from
// alone, and only if the store lets him. The zero User means that nobody does.
func (s *session) identify(a *Attempt) (user, actor backends.User, err error) {
	names, may := s.settings.names, s.peer.In(s.settings.impersonateFrom)
	realm := names.Realm(s.settings.listener.Realm, s.peer.SNI)
	if i := strings.LastIndexByte(a.User, '*'); i >= 0 && may && a.Authzid == "" && !a.External {
		return s.impersonate(a.User[:i], realm, a.User[i+1:])
	}
	own := realm
	if a.External {
		// A client chooses its SNI name and its listener, but not by them whom its certificate names.
		a.User, own = s.external, names.Realm("", "")
	}
	if user, err = names.Canonical(a.User, own); err != nil {
		return backends.User{}, backends.User{}, err
	}
	s.note(func() { s.user = user.String() })
	if a.Authzid == "" {
		return user, backends.User{}, nil
	}
	other, err := names.Canonical(a.Authzid, realm)
	switch {
	case err == nil && other == user:
		return user, backends.User{}, nil
	case err != nil || !may || a.External: // a store that takes our word for the user could not refuse the actor
		return backends.User{}, backends.User{}, errAuthzid
	}
	return s.impersonate(a.Authzid, realm, a.User)
}

// impersonate makes both users. The actor's name is for the store to know, as it was written: a realm completes the names of
// our users.
func (s *session) impersonate(name, realm, by string) (user, actor backends.User, err error) {
	names := s.settings.names
	if user, err = names.Canonical(name, realm); err == nil {
		actor, err = names.Canonical(by, "")
	}
	if err != nil {
		return backends.User{}, backends.User{}, err
	}
	s.note(func() { s.user, s.actor = user.String(), actor.String() })
	return user, actor, nil
}

// externalName is the user whom a client's certificate names, at the place that the operator has chosen: "" without a
// certificate, and where the place is empty or holds more than one name.
func externalName(state *tls.ConnectionState, place configs.ClientUser) string {
	if len(state.VerifiedChains) == 0 {
		return ""
	}
	leaf := state.VerifiedChains[0][0]
	names := leaf.EmailAddresses // of the subject's alternative names (RFC 5280 section 4.2.1.6)
	if place == configs.ClientUserCN {
		names = commonNames(leaf.Subject)
	}
	if len(names) != 1 {
		return ""
	}
	return names[0]
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// commonNames lists all of a subject's: package pkix keeps the last alone.
func commonNames(subject pkix.Name) []string {
	var names []string
	for _, attribute := range subject.Names {
		if text, ok := attribute.Value.(string); ok && attribute.Type.Equal(oidCommonName) {
			names = append(names, text)
		}
	}
	return names
}

// readExternal reads the authorization identity, which is empty where the certificate says it all (RFC 4422 appendix A).
func readExternal(first []byte, _ Ask) (*Attempt, error) {
	return &Attempt{Authzid: string(first), External: true}, nil
}
