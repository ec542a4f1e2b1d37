package backends

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-sasl"

	"jackdaw/backends/directories"
	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// Query is what is known when a user must be placed.
type Query struct {
	User      User
	Detail    string // of a recipient, as Mailbox has it
	Service   configs.Service
	Peer      Peer
	Mechanism string // SASL's name in upper case; "" where there is no login
	Secret    string // the password or token that the client has given; "" where it gave none
	// Exchange is what a verifier needs for a mechanism that gives no password; nil for others, and where stores verify.
	Exchange *Exchange
	// Proof is that of an earlier placement of the same login; nil at first.
	Proof   *Proof
	Attempt int // the how-many-th of the connection, from 1
	// Evict ends the session or delivery, when its user has to leave the member of a pool. nil where the user only passes by.
	Evict context.CancelCauseFunc
	// Asks says that nobody comes: where the user would go is told, and nothing is held, counted or ended for it.
	Asks bool

	process int    // in which the user logs in; 0 is this one
	claimed string // the member that the process has said that has taken over; "" if it was not asked
}

// Exchange is a proof that takes several messages.
type Exchange = directories.Exchange

// proves reports whether the client has shown something that can be verified.
func (q Query) proves() bool { return q.Secret != "" || q.Exchange != nil }

// Proof is what a verifier has said of a user whom it has verified, so that nobody has to show the same twice.
type Proof struct{ answer directories.Answer }

// Placement is where a user's login goes. Release must be called when the user is there no longer.
type Placement struct {
	Service *Service
	Name    string // the user's name in the form that the store wants
	// Renamed says that the name is the directory's own, and not made by the store's form.
	Renamed bool
	// Password is the one to log in with; "" is the client's.
	Password string
	// Verified says that the proxy knows the password to be right, and Proof how; nil where it does not.
	Verified bool
	Proof    *Proof
	// Refuse says why the user may not use the service; "" where he may. He is told after the right password only.
	Refuse string

	release func()
	logins  int // that may be in progress at once at the backend; 0 is no limit
}

// Login waits until the backend takes one more login, brings the user to the store and logs in there, as Service.Login does.
func (p *Placement) Login(ctx context.Context, v Visit) (conn *Connection, err error) {
	door, protocol := p.Service.door, p.Service.Protocol
	if err := door.enter(ctx, p.logins); err != nil {
		door.count(protocol, err)
		return nil, err
	}
	defer func() { door.leave(protocol, err) }()
	return p.Service.Login(ctx, v)
}

// Release ends what the placement holds. It may be called more than once.
func (p *Placement) Release() {
	if p.release != nil {
		p.release()
		p.release = nil
	}
}

// Address writes the mailbox of a user who is placed as the store wants it.
func (p *Placement) Address(m Mailbox) (wire.Path, error) {
	if !p.Renamed {
		return m.Address(p.Service.Access.User)
	}
	m.User = User{Local: p.Name}
	if i := strings.LastIndexByte(p.Name, '@'); i >= 0 {
		m.User = User{p.Name[:i], p.Name[i+1:]}
	}
	return m.Address("{user}")
}

// What keeps a user from being placed. The client hears of neither.
var (
	// ErrNotFound means that no route leads anywhere for the user.
	ErrNotFound = errors.New("no route for the user")
	// ErrRefused means that a route refuses the user; its text is for the log.
	ErrRefused = errors.New("refused by a route")
	// ErrNoService means that the user's backend has no address for the service.
	ErrNoService = errors.New("backend has no such service")
	// ErrDenied means that a verifier or directory has found the password to be wrong.
	ErrDenied = directories.ErrDenied
)

// Late is a failure of which the client is to hear only after a while.
type Late struct {
	Wait time.Duration
	err  error
}

func (l *Late) Error() string { return l.err.Error() }

// Unwrap returns the failure.
func (l *Late) Unwrap() error { return l.err }

// Step is one route on the way of a placement.
type Step struct {
	Route    configs.Route
	Mismatch string // the first condition that does not hold; "" if the route decides, or asks its directory
	Answer   *directories.Answer
	Err      error // the directory's
	Took     time.Duration
}

// Place verifies a user, where that is ours to do, and finds his store. Errors that are none of this file's are failures of
// the world.
func (r *Router) Place(ctx context.Context, q Query) (Placement, error) {
	p, _, err := r.Trace(ctx, q)
	return p, err
}

// Trace is Place, and tells how each route was passed, up to the one that decided.
func (r *Router) Trace(ctx context.Context, q Query) (Placement, []Step, error) {
	known, err := r.verify(ctx, q)
	if err != nil {
		return Placement{}, nil, err
	}
	var steps []Step
	for _, route := range r.routes {
		step := Step{Route: route, Mismatch: mismatch(route, q)}
		answer := known
		if step.Mismatch == "" && route.Lookup != "" && known.Backend == "" {
			began := time.Now()
			answer, step.Err = r.ask(ctx, route.Lookup, q, !known.Verified)
			answer = answer.Or(known)
			step.Answer, step.Took = &answer, time.Since(began)
		}
		steps = append(steps, step)
		switch {
		case step.Mismatch != "" || errors.Is(step.Err, directories.ErrNotFound):
			continue
		case step.Err != nil:
			err := fmt.Errorf("directory %s: %w", route.Lookup, step.Err)
			if answer.Wait > 0 {
				err = &Late{answer.Wait, err}
			}
			return Placement{}, steps, err
		case route.Refuse != "":
			return Placement{}, steps, fmt.Errorf("%w: %s", ErrRefused, route.Refuse)
		}
		p, err := r.enter(ctx, q, answer, cmp.Or(answer.Backend, route.To))
		if known.Verified = answer.Verified; known.Verified {
			p.Proof = &Proof{known}
		}
		return p, steps, err
	}
	return Placement{}, steps, ErrNotFound
}

// ask asks a directory, and has it verify the user where that is for directories to do.
func (r *Router) ask(ctx context.Context, name string, q Query, verify bool) (directories.Answer, error) {
	d := r.directories[name]
	if d == nil {
		return directories.Answer{}, errors.New("is not asked here")
	}
	if r.tokens != nil && q.isToken() {
		q.Secret, q.Exchange = "", nil // a token is for nobody else to see
	}
	return d.answers.lookup(ctx, d, q.toDirectory(verify && r.config.Auth.Verify == configs.VerifyDirectory), &r.doors.steps.Directory)
}

// KnowsDomain asks a directory whether it knows a domain; sni is the name because of which it is asked.
func (r *Router) KnowsDomain(ctx context.Context, directory, domain, sni string) (bool, error) {
	q := Query{User: User{Domain: domain}, Peer: Peer{SNI: sni}}.toDirectory(false)
	q.User = "" // nobody is meant
	d := r.directories[directory]
	if d == nil {
		return false, fmt.Errorf("no directory %q", directory)
	}
	_, err := d.Lookup(ctx, q)
	if errors.Is(err, directories.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Look asks a directory of that name where a user belongs, and has nobody verified.
func (r *Router) Look(ctx context.Context, directory string, user User) (directories.Answer, error) {
	return r.ask(ctx, directory, Query{User: user, Service: configs.IMAP}, false)
}

// verify asks the verifier, where there is one and something to verify.
func (r *Router) verify(ctx context.Context, q Query) (directories.Answer, error) {
	switch {
	case q.Proof != nil:
		return q.Proof.answer, nil
	case r.tokens != nil && q.isToken():
		return r.verifyToken(ctx, q)
	case r.verifier == nil || !q.proves():
		return directories.Answer{}, nil
	}
	answer, err := r.verifier.answers.lookup(ctx, r.verifier, q.toDirectory(true), &r.doors.steps.Verifier)
	if err != nil {
		return directories.Answer{}, fmt.Errorf("%s: %w", r.config.Auth.Verify, err)
	}
	return answer, nil
}

// isToken tells that the secret is no password, but what a provider has given the client for us.
func (q Query) isToken() bool { return q.Mechanism == sasl.OAuthBearer || q.Mechanism == "XOAUTH2" }

// verifyToken asks whose token it is. What a client chooses by its SNI name and its listener does not complete that name.
func (r *Router) verifyToken(ctx context.Context, q Query) (directories.Answer, error) {
	answer, err := r.tokens.answers.lookup(ctx, r.tokens, q.toDirectory(true), &r.doors.steps.Verifier)
	if err != nil {
		return directories.Answer{}, fmt.Errorf("token: %w", err)
	}
	if owner, err := r.names.Canonical(answer.User, r.names.Realm("", "")); err != nil || owner != q.User {
		return directories.Answer{}, fmt.Errorf("token: %w: it is for %q", ErrDenied, answer.User)
	}
	return directories.Answer{Verified: true}, nil
}

// Verifies reports whether passwords are verified here and not by the stores. Then nothing is relayed to a store: an exchange is
// with the verifier.
func (r *Router) Verifies() bool {
	return r.config.Auth.Verify == configs.VerifyDirectory || r.verifier != nil
}

// AskVerifier has who verifies passwords and who verifies tokens say what they offer, as far as they can be asked.
func (r *Router) AskVerifier(ctx context.Context) error {
	var err error
	if r.verifier != nil {
		err = directories.Learn(ctx, r.verifier.Directory)
	}
	if r.tokens != nil {
		err = errors.Join(err, directories.Learn(ctx, r.tokens.Directory))
	}
	return err
}

func (r *Router) dovecot() (*directories.Dovecot, bool) {
	if r.verifier == nil {
		return nil, false
	}
	return directories.AsDovecot(r.verifier.Directory)
}

// verifiable lists the mechanisms beside those that give a password by which a user can be verified here, to enter one of these
// stores. A store that wants to hear a password itself would let nobody in.
func (r *Router) verifiable(stores []*Service) []string {
	if slices.ContainsFunc(stores, func(s *Service) bool { return s.Access.Login == configs.LoginSame }) {
		return nil
	}
	mechanisms := slices.Clone(r.config.Auth.Scram)
	if d, ok := r.dovecot(); ok {
		mechanisms = relayable(d.Offers())
	}
	if r.tokens != nil {
		mechanisms = append(mechanisms, sasl.OAuthBearer, "XOAUTH2")
	}
	return mechanisms
}

func (q Query) toDirectory(verify bool) directories.Query {
	return directories.Query{
		User: q.User.String(), Local: q.User.Local, Domain: q.User.Domain, Detail: q.Detail,
		Service: q.Service, Mechanism: q.Mechanism, Secret: q.Secret, Exchange: q.Exchange, Verify: verify && q.proves(),
		Client: q.Peer.Client, Port: q.Peer.Port, Address: q.Peer.Local, Listener: q.Peer.Listener, SNI: q.Peer.SNI,
		Hello: q.Peer.Hello, Session: q.Peer.Session, TLS: q.Peer.TLS, Cipher: q.Peer.Cipher, Attempt: q.Attempt,
	}
}

// enter makes the placement at a backend, a pool's member, or the backend of a host.
func (r *Router) enter(ctx context.Context, q Query, answer directories.Answer, to string) (Placement, error) {
	if r.Verifies() && q.proves() && !answer.Verified {
		return Placement{}, ErrUnverified
	}
	p := Placement{Renamed: answer.User != "", Password: answer.Password, Verified: answer.Verified, Refuse: answer.Refuse}
	if p.Password != "" && !p.Verified {
		return Placement{}, errors.New("directory gives a password for a user whom nobody has verified")
	}
	if to == "" {
		return Placement{}, errors.New("directory names no backend, and the route has no to")
	}
	name, port := to, ""
	if pool, ok := r.config.Pool(to); ok {
		var err error
		if name, p.release, err = r.seat(ctx, pool, q); err != nil {
			return Placement{}, err
		}
	} else if host, number, ok := hostPort(to); ok {
		name, port = host, number
	}
	s, err := r.service(name, port, q.Service.Protocol())
	if err != nil {
		p.Release()
		return Placement{}, err
	}
	if p.release == nil {
		if p.release, err = r.arrive(s.Backend, q, false); err != nil {
			return Placement{}, fmt.Errorf("%s: %w", s.Backend, err)
		}
	}
	p.Service, p.logins = s, r.limits(s.Backend).logins
	p.Name = cmp.Or(answer.User, q.User.Form(s.Access.User))
	if err := checkName(p.Name); err != nil {
		p.Release()
		return Placement{}, fmt.Errorf("directory's name for the user: %v", err)
	}
	return p, nil
}
