package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"os"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"jackdaw/backends"
)

// logFailure writes the one line of a failed login. The name is the canonical one, or none; the secret is never there.
func (s *session) logFailure(a *Attempt, err error) {
	s.settings.server.counts.tried(s.settings.listener.Service, a.Mechanism, err)
	level := zap.InfoLevel
	if reason := reasonFor(err); !isSyntax(err) && (reason == ReasonUnavailable || reason == ReasonBroken) {
		level = zap.WarnLevel
	}
	s.write(level, "login failed", zap.String("mechanism", a.Mechanism), zap.Error(err))
}

// line logs what concerns the session.
func (s *session) line(level zapcore.Level, message string, more ...zap.Field) {
	entry := s.settings.log.Check(level, message)
	if entry == nil {
		return
	}
	fields := make([]zap.Field, 0, 24)
	fields = append(fields, zap.String("session", s.peer.Session), zap.String("service", string(s.settings.listener.Service)),
		zap.String("listener", s.settings.listener.Name), zap.String("client", clientName(&s.peer)))
	if s.proxy != "" {
		fields = append(fields, zap.String("proxy", s.proxy))
	}
	entry.Write(append(fields, more...)...)
}

// write logs what is known of the session by now, and more.
func (s *session) write(level zapcore.Level, message string, more ...zap.Field) {
	fields := make([]zap.Field, 0, 16)
	fields = append(fields, zap.String("sni", s.peer.SNI), zap.String("user", s.user), zap.String("backend", s.backend))
	if s.actor != "" {
		fields = append(fields, zap.String("actor", s.actor))
	}
	if s.peer.TLS != 0 {
		fields = append(fields, zap.String("tls", tls.VersionName(s.peer.TLS)))
	}
	s.line(level, message, append(fields, more...)...)
}

// clientName is for the log, whose readers may lock out whom it names: that must not be a proxy in front of us.
func clientName(peer *backends.Peer) string {
	switch {
	case peer.Unproven:
		return "unknown"
	case !peer.Client.IsValid():
		return "unix"
	}
	return peer.Client.String()
}

// levelOf keeps out of a log that people read who only looks whether we are there: health checks leave without a word, or a
// proxy in front of us makes them in its own name. Nor is a blocked client new to anybody. Each login that was tried has its own line.
func (s *session) levelOf(err error) zapcore.Level {
	if hasLeft(err) && !s.conn.Heard() || s.peer.Unproven || errors.Is(err, errBlocked) || isLimit(err) {
		return zap.DebugLevel
	}
	return zap.InfoLevel
}

// hasLeft tells that the client has gone.
func hasLeft(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// endOf says why a session ended, for the log.
func endOf(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "client left before login"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errTimeout.Error()
	default:
		return err.Error()
	}
}
