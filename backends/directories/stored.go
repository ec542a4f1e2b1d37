package directories

import (
	"context"
	"strings"
	"sync/atomic"

	"jackdaw/backends/directories/passwords"
)

// storedPasswords are those of a directory, in the forms of package passwords. Whom the directory does not know, or without a
// password, is refused no sooner than somebody with a wrong one. Safe for concurrent use.
type storedPasswords struct {
	like atomic.Pointer[string] // one of them, as others are
}

// verify compares a password with the stored one, which is nobody's if it is empty.
func (s *storedPasswords) verify(ctx context.Context, stored, password string) error {
	if stored == "" {
		s.waste(ctx)
		return ErrDenied
	}
	like := strings.Clone(stored) // it may be part of a long text
	s.like.Store(&like)
	switch right, err := passwords.Verify(ctx, stored, password); {
	case err != nil:
		return err
	case !right:
		return ErrDenied
	}
	return nil
}

// waste takes as long as somebody's wrong password.
func (s *storedPasswords) waste(ctx context.Context) {
	if like := s.like.Load(); like != nil {
		passwords.Waste(ctx, *like)
	}
}
