package proxy

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/internal/relay"
)

// relay hands the session over, from its login to its end.
func (s *session) relay(ctx context.Context, store *backends.Connection) {
	storeConn, fromStore, storeErr := store.Conn.Detach()
	client, fromClient, clientErr := s.conn.Detach()
	relayed := relay.Session{
		Client: client, Store: storeConn, FromClient: fromClient, FromStore: fromStore,
		Idle: s.settings.limits.IdleTimeout[s.settings.listener.Service], Owner: s,
	}
	if guard := s.protocol().guard; guard != nil {
		relayed.Guard = guard(store)
	}
	s.settings.server.limits.release(s, holdsPending)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settings.server.traces.some.Load() { // a trace that begins from now on finds what is relayed
		relayed.Tap = s.relayTap()
	}
	s.arrival, s.cancel = nil, nil // which would hold a context for as long as the session sleeps
	s.relayed = s.settings.server.loops.Start(relayed)
	if err := errors.Join(storeErr, clientErr, context.Cause(ctx)); err != nil {
		s.relayed.End(err)
	}
}

// Bye is what the client hears at the end. It is the relay's to call.
func (s *session) Bye(err error) string {
	if reason, ok := farewell(err); ok {
		return s.protocol().bye(reason)
	}
	return ""
}

// Done logs the end. It is the relay's to call.
func (s *session) Done(err error) {
	s.mu.Lock() // the relay may be faster than we who began it
	sent, received, _ := s.relayed.Moved()
	s.mu.Unlock()
	reason := "closed"
	if err != nil {
		reason = err.Error()
	}
	s.write(zap.InfoLevel, "session", zap.Int64("sent", sent), zap.Int64("received", received),
		zap.Duration("took", time.Since(s.began)), zap.String("reason", reason))
	s.over()
}
