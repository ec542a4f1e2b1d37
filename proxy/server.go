package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/inherit"
	"jackdaw/internal/relay"
)

// Setup is a configuration with the parts that were built from it.
type Setup struct {
	Config *configs.Config
	Router *backends.Router
	// TLS makes the settings of a listener; it is called once for each.
	TLS func(configs.Listener) *tls.Config
	// Match returns a name from SNI in lower case, if a certificate of ours has it. Safe for concurrent use.
	Match func(sni string) (name string, ok bool)
	// Shown returns the name of the certificate, as it stands in there, that a client of the listener is shown who asks for a name,
	// or for none; "" if there is none. Safe for concurrent use.
	Shown func(l configs.Listener, sni string) string
}

// Server listens, and serves sessions by the latest Setup. Its methods are safe for concurrent use.
type Server struct {
	log       *zap.Logger
	inherited *inherit.Sockets
	accepts   sync.WaitGroup
	sessions  sessions
	counts    counts
	blocks    blocks
	traces    traces
	loops     relay.Loops
	decoys    decoys
	limits    *limits

	mu      sync.Mutex
	sockets map[configs.Address]*socket
	left    bool // nothing is listened on any more
}

// socket is listened on for one listener or several.
type socket struct {
	net.Listener
	entrance atomic.Pointer[entrance]
}

// entrance has the settings that the next session of a socket gets. No system binds an address beside the wildcard of the
// same port, so a listener on the wildcard's socket takes the connections for the others.
type entrance struct {
	any   *settings
	local map[netip.Addr]*settings // by the address that the client has connected to
}

func (e *entrance) settings(conn net.Conn) *settings {
	if s := e.local[netAddr(conn.LocalAddr())]; s != nil {
		return s
	}
	return e.any
}

// NewServer makes a server without listeners. Where it is to listen on what was inherited, it does that.
func NewServer(log *zap.Logger, inherited *inherit.Sockets) *Server {
	return &Server{log: log, inherited: inherited, blocks: blocks{log: log}, limits: newLimits(log),
		sockets: make(map[configs.Address]*socket)}
}

// Apply goes over to a new setup: sockets that are new are opened, those that are gone are closed, the others go on.
// Sessions keep what they began with. On an error nothing has changed.
func (s *Server) Apply(setup Setup) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return errShutdown
	}
	applyLimits, err := s.limits.prepare(setup.Config.Limits)
	if err != nil {
		return err
	}
	entrances := s.entrances(setup)
	next := make(map[configs.Address]*socket)
	var opened []*socket
	for address, e := range entrances {
		l, err := s.sockets[address], error(nil)
		if l != nil {
			err = restrict(e.any.listener) // mode or group may be new
		} else if l, err = s.listen(e.any.listener); err == nil {
			opened = append(opened, l)
		}
		if err != nil {
			for _, l := range opened {
				l.Close()
			}
			for _, l := range s.sockets {
				_ = restrict(l.entrance.Load().any.listener) // as it was
			}
			return fmt.Errorf("listening for %s: %w%s", e.any.listener.Service, err, listeningAdvice(err))
		}
		next[address] = l
	}
	s.blocks.keepIn(setup.Config.State)
	for address, e := range entrances {
		next[address].entrance.Store(e)
	}
	for address, l := range s.sockets {
		if next[address] != l {
			l.Close()
		}
	}
	s.sockets = next
	applyLimits()
	for _, l := range opened {
		s.accepts.Go(func() { s.accept(l) })
	}
	return nil
}

// entrances makes the settings of all listeners, by the address to bind.
func (s *Server) entrances(setup Setup) map[configs.Address]*entrance {
	names := backends.NewNames(setup.Config.Users)
	all := make(map[configs.Address]*entrance)
	beside := make(map[netip.AddrPort]*settings) // what a wildcard's socket may have to take
	for _, listener := range setup.Config.Listen.Listeners {
		one := &settings{
			listener: listener,
			hostname: setup.Config.Hostname,
			tls:      inTurn(setup.TLS(listener)),
			match:    setup.Match,
			shown:    setup.Shown,
			names:    names,

			impersonateFrom: setup.Config.Users.ImpersonateFrom,
			clientUser:      setup.Config.TLS.ClientUser,

			router: setup.Router,
			limits: setup.Config.Limits,
			log:    s.log,
			server: s,
		}
		all[listener.Address] = &entrance{any: one, local: make(map[netip.Addr]*settings)}
		if addr, err := netip.ParseAddrPort(listener.Address.Address); err == nil && !addr.Addr().IsUnspecified() {
			beside[addr] = one
		}
	}
	for addr, one := range beside {
		if wildcard := all[wildcardOf(all, addr)]; wildcard != nil {
			wildcard.local[addr.Addr().Unmap()] = one
			delete(all, one.listener.Address)
		}
	}
	return all
}

// wildcardOf returns the address among all that is bound for every address of the family and port.
func wildcardOf(all map[configs.Address]*entrance, addr netip.AddrPort) configs.Address {
	port := ":" + strconv.Itoa(int(addr.Port()))
	hosts := []string{"", "[::]"}
	if addr.Addr().Unmap().Is4() {
		hosts = append(hosts, "0.0.0.0")
	}
	for _, host := range hosts {
		if wildcard := (configs.Address{Network: "tcp", Address: host + port}); all[wildcard] != nil {
			return wildcard
		}
	}
	return configs.Address{}
}

// Listening is a socket that is listened on.
type Listening struct {
	Service configs.Service
	Address net.Addr // as the system knows it
}

// Addresses lists what is listened on, by service and address.
func (s *Server) Addresses() []Listening {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Listening
	for _, l := range s.sockets {
		e := l.entrance.Load()
		all = append(all, Listening{e.any.listener.Service, l.Addr()})
		for _, one := range e.local {
			all = append(all, Listening{one.listener.Service, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(one.listener.Address.Address))})
		}
	}
	slices.SortFunc(all, func(a, b Listening) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Address.String(), b.Address.String()))
	})
	return all
}

// listen opens one socket.
func (s *Server) listen(config configs.Listener) (*socket, error) {
	l, err := s.inherited.Listen(net.ListenConfig{KeepAliveConfig: backends.KeepAlive}, config.Address)
	if err != nil {
		return nil, err
	}
	if err := restrict(config); err != nil {
		l.Close()
		return nil, err
	}
	return &socket{Listener: l}, nil
}

// listeningAdvice says what to do about a TCP address that cannot be listened on.
func listeningAdvice(err error) string {
	op, ok := errors.AsType[*net.OpError](err)
	switch {
	case !ok || op.Net != "tcp":
	case errors.Is(err, syscall.EADDRINUSE):
		return "; another program has the port, such as a mail store: one of the two has to go elsewhere"
	case errors.Is(err, syscall.EACCES):
		return "; for ports below 1024 the capability CAP_NET_BIND_SERVICE is needed"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; this machine has no such address"
	}
	return ""
}

// restrict sets who may connect to a unix socket.
func restrict(config configs.Listener) error {
	if config.Address.Network != "unix" {
		return nil
	}
	path := config.Address.Address
	if config.Group != "" {
		group, err := user.LookupGroup(config.Group)
		if err != nil {
			return err
		}
		gid, err := strconv.Atoi(group.Gid)
		if err != nil {
			return err
		}
		if err := os.Chown(path, -1, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, config.Mode)
}

// accept takes connections until the listener is closed. Errors such as too many open files pass; it waits and goes on.
func (s *Server) accept(l *socket) {
	const longest = time.Second
	pause := 5 * time.Millisecond
	for {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.log.Error("accepting failed", zap.Stringer("address", l.Addr()), zap.Error(err))
			time.Sleep(pause)
			pause = min(2*pause, longest)
			continue
		}
		pause = 5 * time.Millisecond
		settings := l.entrance.Load().settings(conn)
		if !welcome(settings, conn.RemoteAddr()) {
			conn.Close()
			continue
		}
		session := newSession(context.Background(), settings, conn)
		if err := s.limits.enter(session); err != nil {
			session.turnAway(conn, err)
			continue
		}
		s.sessions.enter(session)
		s.counts.began(settings.listener.Service)
		s.limits.turns.accepted()
		go session.serve(conn)
		if settings.listener.TLS == configs.TLSImplicit {
			s.limits.turns.settle()
		}
	}
}

// welcome tells whether a peer may connect at all.
func welcome(s *settings, peer net.Addr) bool {
	return s.listener.From.Empty() || s.listener.From.Contains(netAddr(peer))
}

// Leave closes all listeners, and returns when no more sessions begin. Those that there are go on.
func (s *Server) Leave() {
	s.mu.Lock()
	for _, l := range s.sockets {
		l.Close()
	}
	s.sockets = nil
	s.left = true // before anybody can apply a setup to a server that is going
	s.mu.Unlock()
	s.limits.turns.close() // a crowd may take a minute
	s.accepts.Wait()
	s.blocks.close()
}

// Count is how many sessions there are.
func (s *Server) Count() int { return s.sessions.count() }

// Sessions yields those that are chosen, from accept to end, the oldest first. What it says of each was so at one moment.
func (s *Server) Sessions(which Selection) iter.Seq[SessionInfo] {
	return func(yield func(SessionInfo) bool) {
		all := s.sessions.list()
		slices.SortFunc(all, func(a, b *session) int { return a.began.Compare(b.began) })
		for _, one := range all {
			if info := one.info(); which.Has(info) && !yield(info) {
				return
			}
		}
	}
}

// Kick has the chosen sessions end, for a reason that clients may hear, and returns how many they are. Each ends within some seconds:
// where its client expects a line, or when it is not quiet for too long.
func (s *Server) Kick(which Selection, cause error) (kicked int) {
	for _, one := range s.sessions.list() {
		if which.Has(one.info()) {
			one.end(cause)
			kicked++
		}
	}
	return kicked
}

// Settled reports whether all sessions have come to their relay, where none needs a store or directory any more. Leave must have been
// called.
func (s *Server) Settled() bool {
	return !slices.ContainsFunc(s.sessions.list(), func(one *session) bool {
		state, _ := one.progress()
		return state != StateRelay
	})
}

// Await returns when the last session has ended, or with ctx. Leave must have been called. One may wait, at a time.
func (s *Server) Await(ctx context.Context) error {
	empty := s.sessions.empty()
	select {
	case <-empty:
	case <-ctx.Done():
		select {
		case <-empty: // nobody was waited for
		default:
			return ctx.Err()
		}
	}
	s.loops.Close()
	return nil
}

// End ends all sessions, each at a place where its client expects it, within some seconds after its turn: that all come back
// elsewhere at once would be hard on whoever is there, so their turns are spread evenly over a time. It returns when the last one
// has ended, or with ctx. Leave must have been called.
func (s *Server) End(ctx context.Context, over time.Duration) error {
	s.sessions.end(ctx, over, errShutdown)
	return s.Await(ctx)
}

// Shutdown closes all listeners and ends all sessions at once, as Leave and End do.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Leave()
	return s.End(ctx, 0)
}
