package directories

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// OpenVerifier makes who decides about passwords; nil where that is the store, or the directory that places the user. A verifier
// whose socket is not there is no error: it is looked for at each Lookup.
//
// A verifier answers a Query that asks for a verification, and places nobody, but for a Dovecot that says where a user's mail
// lives: an Answer with a Backend is no leave to enter another one.
func OpenVerifier(c configs.Auth, log *zap.Logger) (Directory, error) {
	var v Directory
	switch c.Verify {
	case configs.VerifyBackend, configs.VerifyDirectory, "":
		return nil, nil
	case configs.VerifySaslauthd:
		v = newSaslauthd(c)
	case configs.VerifyDovecot:
		v = NewDovecot(c, log)
	default:
		return nil, fmt.Errorf("no verifier %q", c.Verify)
	}
	if c.Cache > 0 {
		return newVerifyCache(v, c.Cache), nil
	}
	return v, nil
}

// Learn asks a verifier for what it has to know before it can verify, and so whether it is there. Not all can be asked.
func Learn(ctx context.Context, verifier Directory) error {
	if v, ok := uncached(verifier).(interface{ Learn(context.Context) error }); ok {
		return v.Learn(ctx)
	}
	return nil
}

// uncached is what stands behind a cache.
func uncached(verifier Directory) Directory {
	if c, ok := verifier.(*verifyCache); ok {
		return c.Directory
	}
	return verifier
}

// maxName bounds a user's name in octets, whoever says it.
const maxName = 512

// serviceNames are what a verifier calls the services that have a login.
type serviceNames map[configs.Service]string

// check tells a question that a verifier can be asked from one that has no answer, and from credentials that cannot be right:
// those are ErrDenied without a question. A NUL would end a name or a password early at the other side, and an empty password
// binds anonymously to some directories (RFC 4513 section 5.1.2), which then say yes.
func (names serviceNames) check(q Query) error {
	switch {
	case !q.Verify:
		return errors.New("a verifier places nobody")
	case names[q.Service.Protocol()] == "":
		return fmt.Errorf("%s has no login that could be verified", q.Service)
	case q.Exchange == nil && q.Mechanism != "PLAIN" && q.Mechanism != "LOGIN":
		return fmt.Errorf("what %s has shown is no password", q.Mechanism)
	case !validName(q.User) || q.Exchange == nil && q.Secret == "" || strings.Contains(q.Secret, "\x00"):
		return ErrDenied
	}
	return nil
}

func validName(name string) bool {
	return name != "" && len(name) <= maxName && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// dialUnix connects to a socket. Where the queue of a busy server is full, the system makes other programs wait in connect, and
// tells us at once: so we wait here.
func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err == nil || !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("the queue is full: %w", context.Cause(ctx))
		}
	}
}

// withTimeout bounds one question; because then knows how it ended.
func withTimeout(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
}

// because returns why a context has ended, if it has: err then is of the connection that was closed for it.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
