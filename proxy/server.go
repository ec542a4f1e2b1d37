package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/configs"
)

// Setup is a configuration with the parts that were built from it.
type Setup struct {
	Config *configs.Config
	Router *backends.Router
	// TLS makes the settings of a listener; it is called once for each.
	TLS func(configs.Listener) *tls.Config
	// Match returns a name from SNI in lower case, if a certificate of ours has it. Safe for concurrent use.
	Match func(sni string) (name string, ok bool)
}

// Server listens, and serves sessions by the latest Setup. Its methods are safe for concurrent use.
type Server struct {
	log      *zap.Logger
	ctx      context.Context
	end      context.CancelCauseFunc
	accepts  sync.WaitGroup
	sessions sync.WaitGroup

	mu        sync.Mutex
	listeners map[configs.Address]*listener
}

// listener is a socket with the settings that its next session gets.
type listener struct {
	net.Listener
	settings atomic.Pointer[settings]
}

// NewServer makes a server without listeners.
func NewServer(log *zap.Logger) *Server {
	s := &Server{log: log, listeners: make(map[configs.Address]*listener)}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	return s
}

// Apply goes over to a new setup: listeners that are new are opened, those that are gone are closed, the others keep their
// sockets. Sessions keep what they began with. On an error nothing has changed.
func (s *Server) Apply(setup Setup) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return errShutdown
	}
	next := make(map[configs.Address]*listener)
	var opened []*listener
	for _, config := range setup.Config.Listen.Listeners {
		if kept := s.listeners[config.Address]; kept != nil {
			next[config.Address] = kept
			continue
		}
		l, err := listen(config)
		if err != nil {
			for _, l := range opened {
				l.Close()
			}
			return err
		}
		next[config.Address] = l
		opened = append(opened, l)
	}
	names := backends.NewNames(setup.Config.Users)
	for _, config := range setup.Config.Listen.Listeners {
		next[config.Address].settings.Store(&settings{
			listener: config,
			hostname: setup.Config.Hostname,
			tls:      setup.TLS(config),
			match:    setup.Match,
			names:    names,
			router:   setup.Router,
			limits:   setup.Config.Limits,
			log:      s.log,
		})
	}
	for address, l := range s.listeners {
		if next[address] != l {
			l.Close()
		}
	}
	s.listeners = next
	for _, l := range opened {
		s.accepts.Go(func() { s.accept(l) })
	}
	return nil
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
	for _, l := range s.listeners {
		all = append(all, Listening{l.settings.Load().listener.Service, l.Addr()})
	}
	slices.SortFunc(all, func(a, b Listening) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Address.String(), b.Address.String()))
	})
	return all
}

// listen opens one socket.
func listen(config configs.Listener) (*listener, error) {
	if config.Address.Network == "unix" {
		removeStale(config.Address.Address)
	}
	lc := net.ListenConfig{KeepAliveConfig: backends.KeepAlive}
	socket, err := lc.Listen(context.Background(), config.Address.Network, config.Address.Address)
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", config.Service, err)
	}
	if config.Address.Network == "unix" {
		if err := restrict(config); err != nil {
			socket.Close()
			return nil, fmt.Errorf("listening for %s: %w", config.Service, err)
		}
	}
	return &listener{Listener: socket}, nil
}

// removeStale removes the socket of a process that is gone.
func removeStale(path string) {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return
	}
	_ = os.Remove(path) // if that fails, listening tells
}

// restrict sets who may connect to a unix socket.
func restrict(config configs.Listener) error {
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
func (s *Server) accept(l *listener) {
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
		settings := l.settings.Load()
		if !welcome(settings, conn.RemoteAddr()) {
			conn.Close()
			continue
		}
		s.sessions.Go(func() { newSession(settings, conn).serve(s.ctx, conn) })
	}
}

// welcome tells whether a peer may connect at all.
func welcome(s *settings, peer net.Addr) bool {
	return s.listener.From.Empty() || s.listener.From.Contains(clientAddr(peer))
}

// Shutdown closes all listeners and ends all sessions, each at a place where its client expects it, within some seconds. It
// returns when the last one has ended, or with ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	for _, l := range s.listeners {
		l.Close()
	}
	s.listeners = nil
	s.mu.Unlock()
	s.accepts.Wait()
	s.end(errShutdown)
	done := make(chan struct{})
	go func() {
		s.sessions.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
