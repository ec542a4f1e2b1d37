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
	"sync/atomic"
	"time"

	"github.com/emersion/go-sasl"
	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// How often a service is looked at. Variables, so that tests need not wait.
var (
	learnEvery   = 5 * time.Minute // where there are no checks of its health
	testEvery    = 24 * time.Hour
	retryFirst   = time.Second
	retryMost    = 30 * time.Second
	inspectLimit = 30 * time.Second // for one look: greeting, TLS, and a refusal that the store may delay
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
	hello  string // what we call ourselves
	member bool   // of a pool, whose users wait to hear that it is dead
	// leading says that the backend is away when this is: it is its IMAP, or first service.
	leading bool
	door    *door                           // of the backend
	tls     map[configs.Address]*tls.Config // for the addresses under TLS
	log     *zap.Logger
	ctx     context.Context
	cancel  context.CancelCauseFunc
	tasks   sync.WaitGroup
	gate    chan struct{}    // holds one token: who has it may inspect
	turns   [2]atomic.Uint32 // count connections by family, for the source addresses

	mu         sync.Mutex
	timer      *time.Timer   // for the next look
	watched    bool          // it runs
	retry      time.Duration // until the next look, if this one fails
	hosts      map[configs.Address]hostAnswer
	paths      map[path]*condition
	caps       Capabilities
	reached    bool          // caps is true
	recalled   bool          // caps is from an earlier run
	memory     memory        // for caps
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

var errClosed = errors.New("backend is no longer configured")

// newService prepares the way. Errors are of the configuration: an unusable tls_ca.
func newService(backend string, protocol configs.Service, access configs.Access, hello string, log *zap.Logger) (*Service, error) {
	s := &Service{
		Backend: backend, Protocol: protocol, Access: access,
		store: stores[protocol], hello: hello,
		log:   log.With(zap.String("backend", backend), zap.String("protocol", string(protocol))),
		gate:  make(chan struct{}, 1),
		door:  newDoor(),
		retry: retryFirst,
		hosts: make(map[configs.Address]hostAnswer),
		paths: make(map[path]*condition),
	}
	var err error
	if s.tls, err = clientTLS(access); err != nil {
		return nil, fmt.Errorf("backend %s: %w", backend, err)
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s, nil
}

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
	return s.hello == other.hello && s.member == other.member && s.leading == other.leading && reflect.DeepEqual(s.Access, other.Access) &&
		maps.EqualFunc(s.tls, other.tls, func(a, b *tls.Config) bool { return a.RootCAs.Equal(b.RootCAs) })
}

// close ends what runs in the background. Connections that were handed out go on.
func (s *Service) close() {
	s.mu.Lock() // no task begins after this
	s.cancel(errClosed)
	if s.watched {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.tasks.Wait()
}

// Visit is a client's wish to enter a store.
type Visit struct {
	Peer Peer
	User string // the name in the store's form
	// Client proves who the user is, or says so on the proxy's word: see OnBehalf.
	Client sasl.Client
	// Promised is what the client was told that stores can do, where it is not going to hear it from the store: it goes
	// nowhere where less would be true.
	Promised []Capability
	Tap      Tap // is told what is said until the user is in; nil: nobody is
}

// Login brings a user to the store and logs in. It asks no further address once something was said that is a secret.
func (s *Service) Login(ctx context.Context, v Visit) (*Connection, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, loginLimit, errSlow)
	defer cancel()
	onBehalf := isOnBehalf(v.Client)
	if !onBehalf {
		if err := s.admit(ctx); err != nil {
			return nil, &Unreached{s, time.Now(), err}
		}
	}
	o := Opening{Client: &v.Peer, Tap: v.Tap}
	if _, ok := v.Client.(*XCLIENT); ok {
		o.User = v.User
	}
	conn, caps, p, err := s.open(ctx, o)
	if err != nil {
		return nil, &Unreached{s, time.Now(), err}
	}
	s.learn(caps)
	if err := caps.keeps(v.Promised); err != nil {
		conn.Close()
		s.log.Warn("store can do less than clients were promised; what it can do is learned now", zap.Error(err))
		return nil, fmt.Errorf("store at %s: %w", p.address, err)
	}
	began := time.Now()
	var welcome Welcome
	err = within(ctx, loginLimit, conn, "logging in at "+p.address.String(), func(context.Context) (err error) {
		welcome, err = s.store.Login(conn, caps, v.Client)
		return err
	})
	s.door.steps.Login.Since(began)
	_, plain := v.Client.(*Plain)
	if _, refused := errors.AsType[*Refusal](err); err == nil || refused || plain && (ctx.Err() == nil || errors.Is(context.Cause(ctx), errSlow)) {
		s.heard(p, v.User, err) // what else ends an exchange may be the client's doing
	}
	if err != nil {
		if plain && !onBehalf && Denied(err) { // others may take as long as the client likes
			s.noteRefusal(time.Since(began))
		}
		conn.Close()
		if onBehalf { // the client has proved who it is
			err = fmt.Errorf("on the proxy's word: %w", undenied(err))
		}
		return nil, err
	}
	if !onBehalf {
		s.testRealUser(v.User)
	}
	return &Connection{Welcome: welcome, Conn: conn, Address: p.address}, nil
}

// Unreached means that a store could not be reached, and has heard nothing of a user's secret.
type Unreached struct {
	service *Service
	at      time.Time
	err     error
}

func (u *Unreached) Error() string { return u.err.Error() }

// Unwrap returns why.
func (u *Unreached) Unwrap() error { return u.err }

// Ask learns what the store says of itself before login, without logging in.
func (s *Service) Ask(ctx context.Context) error {
	conn, caps, _, err := s.open(ctx, Opening{})
	if err != nil {
		return err
	}
	defer conn.Close()
	s.learn(caps)
	s.store.Leave(conn)
	return nil
}

// Capabilities returns what the store can do, and whether it was ever reached to say so, in this run or an earlier one.
func (s *Service) Capabilities() (Capabilities, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.caps, s.reached
}

// Problem says why nobody can log in at the moment, or nil.
func (s *Service) Problem() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem()
}

// problem is Problem where s.mu is held.
func (s *Service) problem() error {
	switch {
	case s.distrust != nil:
		return s.distrust
	case s.allDown():
		return s.troubles()
	case !s.trust():
		return s.failure
	}
	return nil
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
	changed := !s.reached || s.recalled || !s.caps.Equal(caps)
	s.caps, s.reached, s.recalled = caps, true, false
	memory := s.memory
	s.mu.Unlock()
	if changed {
		memory.capabilities.Later()
		s.log.Info("learned capabilities", zap.Stringers("capabilities", caps.List), zap.Strings("mechanisms", caps.Mechanisms))
	}
}

// invented is a password that nobody has.
func invented() string { return "invented-" + rand.Text() }

// KeepAlive finds out that a peer has vanished: after 2 minutes of silence, and 4 unanswered questions.
var KeepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 30 * time.Second, Count: 4}
