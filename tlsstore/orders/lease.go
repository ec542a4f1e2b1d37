package orders

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// lease is the right to order, of which all frontends that share a cache have one between them. It is a file that says who
// owns it, and a number that the owner counts up while he lives.
//
// It must work on a network file system, where locks of flock's kind may hold on one host only, or outlive their owner.
// What works everywhere is that of several who create a file exclusively one succeeds (NFS has that since version 3), and
// that who opens a file sees what another had written and closed or synced before. Clocks of hosts differ, and times of
// files are as coarse as the file system likes, so neither is compared: a lease is stale if its contents have not changed
// for as long as one has watched it by one's own clock.
//
// Two may find a lease stale at once, and the slower remove what the faster has just created. The faster finds that out
// when he counts up next, and stops. Until then two are ordering, which is a waste and no harm: what they write is complete
// in itself, and either's certificate is as good as the other's. The lease is there for the authority's sake, not for
// safety.
type lease struct {
	path  string
	owner string
	n     int // what is counted up; it never comes again, so that no two leases look alike

	seen  []byte // another's lease as it was when it was found changed
	since time.Time
}

const (
	leaseBeat  = 10 * time.Second // between two counts of the owner
	leaseStale = time.Minute      // without a count
)

var errLeaseLost = errors.New("another frontend has taken over the lease")

func newLease(path string) *lease {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	// In containers hosts and processes may all have the same name and number.
	return &lease{path: path, owner: fmt.Sprintf("%s %d %s", host, os.Getpid(), rand.Text())}
}

// hold calls do if nobody else has the lease, and tells whether it did. The context that do gets ends when the lease is
// lost, with errLeaseLost for a cause, or with why it cannot be counted up.
func (l *lease) hold(ctx context.Context, do func(context.Context)) (held bool, err error) {
	f, err := l.create()
	if f == nil {
		return false, err
	}
	defer f.Close()
	ctx, lose := context.WithCancelCause(ctx)
	var beating sync.WaitGroup
	beating.Go(func() { l.beat(ctx, f, lose) })
	do(ctx)
	lose(nil)
	beating.Wait()
	if l.mine() {
		_ = os.Remove(l.path) // else it will be found stale
	}
	return true, nil
}

// create makes the file, unless another has it.
func (l *lease) create() (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, l.watch()
	}
	if err != nil {
		return nil, err
	}
	if err := l.count(f); err != nil {
		_ = os.Remove(l.path) // nobody can write here, or else it will be found stale
		f.Close()
		return nil, err
	}
	return f, nil
}

// watch looks at another's lease, and removes it if it is stale.
func (l *lease) watch() error {
	now, err := os.ReadFile(l.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // released meanwhile
	case err != nil:
		return err
	case l.since.IsZero() || !bytes.Equal(now, l.seen):
		l.seen, l.since = now, time.Now()
		return nil
	case time.Since(l.since) < leaseStale:
		return nil
	}
	l.since = time.Time{}
	return os.Remove(l.path)
}

// beat counts up until ctx ends or the lease is lost.
func (l *lease) beat(ctx context.Context, f *os.File, lose context.CancelCauseFunc) {
	ticker := time.NewTicker(leaseBeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := errLeaseLost
		if l.mine() {
			err = l.count(f)
		}
		if err != nil {
			lose(err)
			return
		}
	}
}

// count writes to the file that was created, which may have another's in its place by now; that one is left alone.
func (l *lease) count(f *os.File) error {
	l.n++
	if _, err := f.WriteAt(fmt.Appendf(nil, "%s\n%d\n", l.owner, l.n), 0); err != nil {
		return err
	}
	return f.Sync()
}

func (l *lease) mine() bool {
	data, err := os.ReadFile(l.path)
	return err == nil && bytes.HasPrefix(data, []byte(l.owner+"\n"))
}
