package proxy

import (
	"context"
	"fmt"

	"github.com/emersion/go-sasl"

	"jackdaw/backends"
	"jackdaw/configs"
)

// connect places the user and logs in at the store. A member of a pool that cannot be reached is left for another one, as long as
// nothing was said that is a secret.
func (s *session) connect(ctx context.Context, a *Attempt) (*backends.Connection, error) {
	s.note(func() { s.user, s.actor, s.backend, s.mechanism = "", "", "", a.Mechanism })
	store, err := s.visit(ctx, a)
	if s.settings.router.Lost(ctx, err) {
		store, err = s.visit(ctx, a)
	}
	if err == nil {
		return store, nil
	}
	if !a.asked && denied(err) {
		if broken := s.settings.server.decoys.play(a, s.settings.router.Verifies()); broken != nil {
			return nil, broken
		}
	}
	return nil, err
}

// visit places the user and logs in there. The user keeps the place until the session ends.
func (s *session) visit(ctx context.Context, a *Attempt) (*backends.Connection, error) {
	place, client, err := s.place(ctx, a)
	if err != nil {
		place.Release()
		return nil, err
	}
	s.note(func() { s.backend = place.Service.Backend })
	store, err := s.logIn(ctx, &place, client)
	if err != nil {
		s.settings.server.limits.release(s, holdsUser)
		place.Release()
		return nil, err
	}
	s.leave = place.Release
	return store, nil
}

// logIn logs in at the user's store. What may be refused to the user alone is not refused before the password is verified.
func (s *session) logIn(ctx context.Context, place *backends.Placement, client sasl.Client) (*backends.Connection, error) {
	if place.Verified {
		if err := s.permit(place); err != nil {
			return nil, err
		}
	}
	store, err := place.Login(ctx, backends.Visit{Peer: s.peer, User: place.Name, Client: client, Promised: s.promised,
		Tap: s.scribe.toStore(place.Service.Protocol)})
	if err != nil {
		return nil, err
	}
	if err := s.permit(place); err != nil { // if the store has verified the password
		store.Conn.Close()
		return nil, err
	}
	return store, nil
}

// permit judges whether a user who has proved who he is may have a session.
func (s *session) permit(place *backends.Placement) error {
	if place.Refuse != "" {
		return fmt.Errorf("%w: %s", errNotPermitted, place.Refuse)
	}
	return s.settings.server.limits.user(s)
}

// place makes the canonical user, finds the store, and decides how to enter it. What it refuses must sound like a wrong
// password.
func (s *session) place(ctx context.Context, a *Attempt) (backends.Placement, sasl.Client, error) {
	user, actor, err := s.identify(a)
	if err != nil {
		return backends.Placement{}, nil, err
	}
	s.scribe.identified(s)
	if blocks := &s.settings.server.blocks; blocks.user(user.String()) || blocks.user(actor.String()) {
		return backends.Placement{}, nil, errBlocked
	}
	if a.Secret == "" && !a.relayed() && !a.External {
		return backends.Placement{}, nil, errEmptyPassword
	}
	if actor.Local != "" && s.settings.router.Verifies() {
		return backends.Placement{}, nil, errAuthzid // whose password it is, and whose mail, only a store can tell
	}
	s.attempts++
	query := backends.Query{
		User: user, Service: s.settings.listener.Service, Peer: s.peer, Mechanism: a.Mechanism, Secret: a.Secret, Proof: a.proof,
		Attempt: s.attempts, Evict: s.end,
	}
	if s.settings.router.Verifies() {
		if query.Exchange, err = a.exchange(user.String(), s.observe(a)); err != nil {
			return backends.Placement{}, nil, err
		}
	}
	place, err := s.settings.router.Place(ctx, query)
	if err != nil {
		return place, nil, err
	}
	a.proof = place.Proof
	client, err := s.credentials(a, place, actor)
	return place, client, err
}

// observe shows the decoys what an exchange looks like.
func (s *session) observe(a *Attempt) func(challenge []byte) {
	return func(challenge []byte) { s.settings.server.decoys.learn(a, challenge) }
}

// credentials decides what the store is told. Only where the proxy has seen a proof itself may it use its own.
func (s *session) credentials(a *Attempt, place backends.Placement, actor backends.User) (sasl.Client, error) {
	access := place.Service.Access
	switch {
	case a.External:
		return backends.OnBehalf(access, access.ExternalLogin, place.Name)
	case access.Login != configs.LoginSame && place.Verified:
		return backends.OnBehalf(access, access.Login, place.Name)
	case access.Login != configs.LoginSame:
		return nil, backends.ErrUnverified
	case place.Password != "":
		return &backends.Plain{User: place.Name, Password: place.Password}, nil
	case !a.givesPassword() && s.settings.router.Verifies():
		return nil, backends.ErrNoPassword
	}
	by := ""
	if actor.Local != "" {
		by = actor.Form(access.User)
	}
	return a.client(place.Name, by, s.observe(a))
}
