package backends

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"reflect"
	"sync"
	"time"

	"github.com/emersion/go-sasl"
	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// How often a service is looked at. Variables, so that tests need not wait.
var (
	learnEvery   = 5 * time.Minute
	testEvery    = 24 * time.Hour
	retryFirst   = time.Second
	retryMost    = 30 * time.Second
	inspectLimit = 30 * time.Second // for one look: greeting, TLS, and a refusal that the store may delay
	dialLimit    = 5 * time.Second  // for one address to take a connection
	openLimit    = 10 * time.Second // for one address to be ready for a login: the next one may be in better health
	loginLimit   = 30 * time.Second // for a login: a store that is slow must not use up the client's own time
)

// TestUser is the name that stores are asked with whether they refuse an invented password. It is in their logs.
const TestUser = "jackdaw-self-test"

// Service is one protocol of one backend, as long as its configuration stays: it knows the way there, what the store
// can do, and whether the store may be trusted to refuse. Safe for concurrent use.
type Service struct {
	Backend  string
	Protocol configs.Service
	Access   configs.Access

	store  Store
	tls    map[configs.Address]*tls.Config // for the addresses under TLS
	log    *zap.Logger
	ctx    context.Context
	cancel context.CancelCauseFunc
	tasks  sync.WaitGroup
	gate   chan struct{} // holds one token: who has it may inspect

	mu         sync.Mutex
	caps       Capabilities
	reached    bool          // caps is true
	inspected  time.Time     // when the last inspection ended
	failure    error         // of the last inspection; nil if the store was reached
	passed     time.Time     // when the self-test last succeeded
	distrust   error         // why nobody is let in: the store did not refuse as it should
	told       string        // the problem that the log knows; "" if none
	userTested bool          // the name of a real user was tried, too
	refusal    time.Duration // how long the last refusal took
}

// Connection is a store's connection that is logged in.
type Connection struct {
	Welcome
	Conn    *wire.Conn
	Address configs.Address // where it leads
}

var (
	errClosed = errors.New("backend is no longer configured")
	errSlow   = errors.New("store is too slow")
)

// newService prepares the way. Errors are of the configuration: an unusable tls_ca.
func newService(backend string, protocol configs.Service, access configs.Access, log *zap.Logger) (*Service, error) {
	s := &Service{
		Backend: backend, Protocol: protocol, Access: access,
		store: stores[protocol],
		log:   log.With(zap.String("backend", backend), zap.String("protocol", string(protocol))),
		gate:  make(chan struct{}, 1),
	}
	var err error
	if s.tls, err = clientTLS(access); err != nil {
		return nil, fmt.Errorf("backend %s: %w", backend, err)
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s, nil
}

// start begins to look at the store now and then.
func (s *Service) start() { s.tasks.Go(s.watch) }

// background runs a task, unless the service is closed.
func (s *Service) background(task func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.tasks.Go(task)
	return true
}

// same reports whether another service has the same way to the same store.
func (s *Service) same(other *Service) bool {
	return reflect.DeepEqual(s.Access, other.Access) &&
		maps.EqualFunc(s.tls, other.tls, func(a, b *tls.Config) bool { return a.RootCAs.Equal(b.RootCAs) })
}

// close ends what runs in the background. Connections that were handed out go on.
func (s *Service) close() {
	s.mu.Lock() // no task begins after this
	s.cancel(errClosed)
	s.mu.Unlock()
	s.tasks.Wait()
}

// watch keeps what is known of the store fresh.
func (s *Service) watch() {
	retry := retryFirst
	for {
		wait := learnEvery
		if err := s.inspect(s.ctx); err != nil {
			wait = retry
			retry = min(2*retry, retryMost)
		} else {
			retry = retryFirst
		}
		select {
		case <-time.After(wait):
		case <-s.ctx.Done():
			return
		}
	}
}

// Login brings a user to the store and logs in. It asks no further address once something was said that is a secret.
func (s *Service) Login(ctx context.Context, m sasl.Client, user string) (*Connection, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, loginLimit, errSlow)
	defer cancel()
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	conn, caps, address, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	s.learn(caps)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	began := time.Now()
	welcome, err := s.store.Login(conn, caps, m)
	if !stop() || err != nil {
		if _, plain := m.(*Plain); plain && Denied(err) { // others may take as long as the client likes
			s.noteRefusal(time.Since(began))
		}
		conn.Close()
		return nil, fmt.Errorf("logging in at %s: %w", address, because(ctx, err))
	}
	s.testRealUser(user)
	return &Connection{Welcome: welcome, Conn: conn, Address: address}, nil
}

// open dials the addresses in order until one is ready for a login.
func (s *Service) open(ctx context.Context) (*wire.Conn, Capabilities, configs.Address, error) {
	var errs []error
	for _, address := range s.Access.Addresses {
		conn, caps, err := s.openAddress(ctx, address)
		if err == nil {
			return conn, caps, address, nil
		}
		errs = append(errs, fmt.Errorf("connecting to %s: %w", address, err))
	}
	return nil, Capabilities{}, configs.Address{}, errors.Join(errs...)
}

func (s *Service) openAddress(ctx context.Context, address configs.Address) (*wire.Conn, Capabilities, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openLimit, errSlow)
	defer cancel()
	dialer := net.Dialer{Timeout: dialLimit, KeepAliveConfig: KeepAlive}
	raw, err := dialer.DialContext(ctx, address.Network, address.Address)
	if err != nil {
		return nil, Capabilities{}, because(ctx, err)
	}
	// The end of ctx ends whatever read or write is under way, and leaves the connection unfit for any other.
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	conn := wire.New(raw)
	caps, err := s.prepare(ctx, conn, address)
	if !stop() || err != nil {
		raw.Close()
		return nil, Capabilities{}, because(ctx, err)
	}
	caps.Mechanisms = relayable(caps.Mechanisms)
	return conn, caps, nil
}

// because says that an error came from the end of ctx, and why that ended. Without an error it is the end itself.
func because(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == nil:
		return err
	case err == nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}

// prepare takes a fresh connection through TLS and what the protocol says before login.
func (s *Service) prepare(ctx context.Context, conn *wire.Conn, address configs.Address) (Capabilities, error) {
	begin := func() error {
		if err := conn.DialTLS(ctx, s.tls[address]); err != nil {
			return fmt.Errorf("TLS: %w", err)
		}
		return nil
	}
	switch s.Access.TLS {
	case configs.TLSImplicit:
		if err := begin(); err != nil {
			return Capabilities{}, err
		}
		return s.store.Open(conn, nil)
	case configs.TLSStartTLS:
		return s.store.Open(conn, begin)
	default:
		return s.store.Open(conn, nil)
	}
}

// Ask learns what the store says of itself before login, without logging in.
func (s *Service) Ask(ctx context.Context) error {
	conn, caps, _, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	s.learn(caps)
	s.store.Leave(conn)
	return nil
}

// Capabilities returns what the store can do, and whether it was ever reached to say so.
func (s *Service) Capabilities() (Capabilities, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.caps, s.reached
}

// Problem says why nobody can log in at the moment, or nil.
func (s *Service) Problem() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.distrust != nil {
		return s.distrust
	}
	return s.failure
}

// RefusalTime is how long the store's last refusal of credentials took.
func (s *Service) RefusalTime() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal
}

func (s *Service) noteRefusal(took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = took
}

// learn keeps what a store said of itself.
func (s *Service) learn(caps Capabilities) {
	s.mu.Lock()
	changed := !s.reached || !s.caps.Equal(caps)
	s.caps, s.reached = caps, true
	s.mu.Unlock()
	if changed {
		s.log.Info("learned capabilities", zap.Any("capabilities", caps.List), zap.Strings("mechanisms", caps.Mechanisms))
	}
}

// invented is a password that nobody has.
func invented() string { return "invented-" + rand.Text() }

// KeepAlive finds out that a peer has vanished: after 2 minutes of silence, and 4 unanswered questions.
var KeepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 30 * time.Second, Count: 4}
