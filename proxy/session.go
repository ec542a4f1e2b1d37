package proxy

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/relay"
	"jackdaw/internal/wire"
)

// settings are what a configuration means for the sessions of one listener. A session keeps those that it began with.
type settings struct {
	listener configs.Listener
	hostname string
	tls      *tls.Config
	match    func(sni string) (string, bool)
	shown    func(configs.Listener, string) string
	names    *backends.Names
	// impersonateFrom and clientUser are [users] impersonate_from and [tls] client_user.
	impersonateFrom configs.Networks
	clientUser      configs.ClientUser
	router          *backends.Router
	limits          configs.Limits
	log             *zap.Logger
	server          *Server
}

// session is one client connection, from accept to its log line.
type session struct {
	settings *settings
	began    time.Time

	// What follows is listed: the session's own goroutine writes it under mu, and reads it without.
	peer      backends.Peer
	proxy     string // who has spoken for the client in a PROXY header; "" where nobody has
	user      string
	actor     string // who acts as the user, by the store's leave; "" where it is the user
	backend   string
	mechanism string // of the latest attempt

	leave func() // gives up the user's place at the store
	holds holds  // the limits that it counts for; limits.mu guards it

	*arrival // nil from the login on

	mu      sync.Mutex
	cancel  context.CancelCauseFunc // ends the session until it is relayed
	relayed relay.Relay             // from the login on
}

// arrival is what is known of a session until its login.
type arrival struct {
	ctx      context.Context // ends with the session, or with the time for its login
	conn     *wire.Conn
	stage    SessionState // is listed
	scribe   *scribe      // nil where nobody wants to know what is said
	mute     bool         // nothing can be said: a TLS handshake is under way, or a PROXY header was malformed
	external string       // the name in the client's certificate; "" where there is none that we trust
	attempts int          // logins so far
	received atomic.Int64 // octets of messages, by LMTP
	// promised is what the client was last told that stores can do, where it is not told again after its login.
	promised []backends.Capability
}

// newSession begins a session that ends with ctx.
func newSession(ctx context.Context, settings *settings, raw net.Conn) *session {
	s := &session{
		settings: settings,
		began:    time.Now(),
		arrival:  &arrival{conn: wire.New(raw), stage: StateHandshake},
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.peer = backends.Peer{Client: netAddr(raw.RemoteAddr()), Session: rand.Text()[:16], Listener: settings.listener.Name}
	if tcp, ok := raw.RemoteAddr().(*net.TCPAddr); ok {
		s.peer.Port = tcp.AddrPort().Port()
	}
	if tcp, ok := raw.LocalAddr().(*net.TCPAddr); ok {
		s.peer.Local = unmapped(tcp)
	}
	return s
}

// netAddr returns the address of one end of a connection, or the zero address on a unix socket.
func netAddr(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// serve takes the session from its first byte to its login, from where on it is relayed, or to its end.
func (s *session) serve(raw net.Conn) {
	s.settings.server.limits.turns.runs()
	defer s.cancel(nil)
	ctx, relayed := s.ctx, false
	defer func() {
		if r := recover(); r != nil {
			s.line(zap.ErrorLevel, "session crashed", zap.Any("panic", r), zap.ByteString("stack", debug.Stack()))
		}
		if !relayed {
			raw.Close()
			s.over()
		}
	}()
	if s.settings.listener.Service == configs.LMTP {
		s.deliver(ctx, raw)
		return
	}
	dialogue := s.protocol().dialogue(s)
	store, err := s.enter(ctx, raw, dialogue)
	if err != nil {
		s.part(raw, dialogue, err)
		s.write(s.levelOf(err), "session", zap.Duration("took", time.Since(s.began)), zap.String("reason", endOf(err)))
		return
	}
	relayed = true
	s.relay(ctx, store)
}

func (s *session) protocol() protocol { return protocols[s.settings.listener.Service.Protocol()] }

// over gives up what the session has held.
func (s *session) over() {
	if s.leave != nil {
		s.leave()
	}
	s.settings.server.limits.release(s, holdsAll)
	s.settings.server.sessions.leave(s)
}

// end ends the session from elsewhere, for a reason that the client may hear: at once before the login, else as soon as its
// client expects a line and nothing moves.
func (s *session) end(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relayed != nil {
		s.relayed.End(cause)
	} else {
		s.cancel(cause)
	}
}

var (
	errTimeout  = errors.New("login took too long")
	errShutdown = errors.New("shutting down")
	errTooMany  = errors.New("too many failed logins")
)

// enter brings the client to its login, within the time that it has for that.
func (s *session) enter(ctx context.Context, raw net.Conn, d Dialogue) (*backends.Connection, error) {
	ctx, cancel := context.WithDeadlineCause(ctx, s.began.Add(s.settings.limits.LoginTimeout), errTimeout)
	defer cancel()
	s.ctx = ctx
	// The end of ctx ends whatever read or write is under way, were it one byte a second.
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)); close(over) })
	defer func() {
		if !stop() {
			<-over // it must not come after the deadline for the last words
		}
	}()
	var store *backends.Connection
	err := s.arrive(raw)
	if err == nil {
		store, err = s.login(ctx, d)
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return store, err
}

// arrive begins the connection as its listener wants it to begin.
func (s *session) arrive(raw net.Conn) error {
	if err := s.meet(raw); err != nil {
		return err
	}
	if s.isBlocked() {
		s.mute = true
		return errBlocked
	}
	s.scribe = s.newScribe()
	if err := s.settings.server.limits.welcome(s); err != nil {
		s.mute = s.settings.listener.TLS == configs.TLSImplicit
		return err
	}
	if s.settings.listener.TLS == configs.TLSImplicit {
		return s.handshake()
	}
	return nil
}

// login is the whole dialogue with the client.
func (s *session) login(ctx context.Context, d Dialogue) (*backends.Connection, error) {
	s.note(func() { s.stage = StateLogin })
	if err := d.Greet(); err != nil {
		return nil, err
	}
	for failures := 1; failures <= s.settings.limits.Attempts; failures++ {
		began := time.Now()
		attempt, err := next(d)
		if err != nil {
			return nil, err
		}
		s.settings.server.counts.dialogue.Since(began)
		// What was answered before the attempt must not wait for the store.
		if err := s.conn.Flush(); err != nil {
			return nil, err
		}
		if s.barred() {
			return nil, errBarred
		}
		store, err := s.connect(ctx, attempt)
		if err == nil {
			return store, s.accept(d, store, attempt)
		}
		if err := s.refuse(ctx, d, attempt, failures, err); err != nil {
			return nil, err
		}
	}
	return nil, errTooMany
}

// next lets the dialogue go on until the client wants to log in.
func next(d Dialogue) (*Attempt, error) {
	for {
		attempt, err := d.Next()
		if isSyntax(err) {
			err = d.Refuse(err)
		}
		if attempt != nil || err != nil {
			return attempt, err
		}
	}
}

// refuse answers an attempt that has failed. An exchange that the client breaks off is one, too: it may have seen already
// that the store refuses its token.
func (s *session) refuse(ctx context.Context, d Dialogue, a *Attempt, failures int, err error) error {
	if broken, ok := errors.AsType[*clientError](err); ok && !isSyntax(err) {
		return broken // the client went away in the middle of an exchange
	}
	s.logFailure(a, err)
	recent, tooMany := s.failed(a, err)
	s.delay(ctx, a.heard, max(failures, recent), err)
	if err := d.Refuse(err); err != nil {
		return err
	}
	if tooMany {
		return errTooMany
	}
	return context.Cause(ctx) // before a read or write meets the deadline: the answer can be sent yet
}

// accept tells the client, and the log, that it is in.
func (s *session) accept(d Dialogue, store *backends.Connection, a *Attempt) error {
	s.settings.server.counts.tried(s.settings.listener.Service, a.Mechanism, nil)
	s.write(zap.InfoLevel, "login", zap.Stringer("address", store.Address), zap.String("mechanism", a.Mechanism))
	if err := d.Accept(store.Welcome); err != nil {
		store.Conn.Close()
		return err
	}
	return nil
}

// delay makes refusals come a while after the client's last word, longer with repetition. Whom no store has refused waits
// as long as if one had.
func (s *session) delay(ctx context.Context, heard time.Time, failures int, err error) {
	wait := s.settings.limits.FailureDelay * time.Duration(failures)
	if byUs(err) {
		wait = max(wait, s.settings.router.RefusalTime(s.settings.listener.Service, s.peer))
	}
	if late, ok := errors.AsType[*backends.Late](err); ok {
		wait = max(wait, late.Wait)
	}
	timer := time.NewTimer(time.Until(heard.Add(wait)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// handshakeLimit bounds one TLS handshake.
const handshakeLimit = 30 * time.Second

// handshake begins TLS with the client. What was learned before it is forgotten: the SNI name is all that there is.
func (s *session) handshake() error {
	ctx, cancel := context.WithTimeout(s.ctx, handshakeLimit)
	defer cancel()
	s.mute = true
	gate := s.gate(ctx)
	defer gate.leave()
	began := time.Now()
	err := s.conn.ServeTLS(ctx, s.settings.tls, gate.around)
	s.settings.server.counts.shook(s.conn.TLS(), err, time.Since(began))
	if err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	s.mute = false
	state := s.conn.TLS()
	s.external = externalName(state, s.settings.clientUser)
	name, ok := s.settings.match(state.ServerName)
	if !ok {
		name = ""
	}
	s.note(func() { s.peer.TLS, s.peer.Cipher, s.peer.SNI = state.Version, state.CipherSuite, name })
	return nil
}

// hostname is what greetings call this server: the name that the client asked for, if a certificate of ours has it.
func (s *session) hostname() string {
	if s.peer.SNI != "" {
		return s.peer.SNI
	}
	return s.settings.hostname
}

// announced is what can be promised to the client before it has logged in: nothing, if no store was reached.
func (s *session) announced() backends.Capabilities {
	caps, _ := s.settings.router.Announced(s.settings.listener.Service, s.peer)
	return caps
}

// part says goodbye to a client that did not log in.
func (s *session) part(raw net.Conn, d interface{ Bye(Reason) }, err error) {
	_ = raw.SetDeadline(time.Now().Add(lastWords)) // the one that ended the dialogue has passed
	if reason, ok := farewell(err); ok && !s.mute {
		d.Bye(reason)
	}
	_ = s.conn.Flush()
	_ = s.conn.Close()
}
