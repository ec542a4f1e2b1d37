package directories

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// Variables, so that tests need not wait.
var (
	// murderAsk is how often a master is asked whether anything has changed. Cyrus's own says it unasked only every 5 seconds.
	murderAsk = 500 * time.Millisecond
	// murderFirst and murderMost are the pauses between attempts to reach a master, the first and the longest.
	murderFirst, murderMost = time.Second, time.Minute
	// murderSave is how old a copy may become while the list changes.
	murderSave = 5 * time.Minute
)

// murder is the directory of a Cyrus Murder: the list of all mailboxes, that a MUPDATE master has (RFC 3656). It is fetched
// once, followed from then on, and held in memory; Lookup asks nobody. While no master can be reached the last list holds.
type murder struct {
	config configs.Directory
	tls    *tls.Config
	log    *zap.Logger

	mu      sync.RWMutex // for writing, which only follow does
	list    *mailboxes   // nil before there was a complete one, and after Close
	problem error        // why no master is followed at the moment; nil while one is

	unsaved bool      // the copy is older than the list
	saved   time.Time // when it was written
	unfit   string    // why it could not be, as it was logged last

	cancel context.CancelFunc
	done   sync.WaitGroup
}

var (
	errNotAsked = errors.New("no master was asked yet")
	errClosed   = errors.New("closed")
	errUnplaced = errors.New("the mailbox is reserved, or at no server that has a name")
)

func newMurder(c configs.Directory, log *zap.Logger) (Directory, error) {
	m := &murder{config: c, log: log, problem: errNotAsked}
	var err error
	if m.tls, err = clientTLS(c.TLSCA); err != nil {
		return nil, err
	}
	m.load()
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.done.Go(func() { m.run(ctx) })
	return m, nil
}

// Close ends the following, and brings the copy up to date.
func (m *murder) Close() {
	m.cancel()
	m.done.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list, m.problem = nil, errClosed
}

// Lookup finds the server that has a user's inbox, or the shared mailbox that is meant by mail to Cyrus's postuser.
func (m *murder) Lookup(_ context.Context, q Query) (Answer, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.list == nil {
		return Answer{}, fmt.Errorf("no complete list of mailboxes: %w", m.problem)
	}
	at, ok := m.list.find(q)
	switch {
	case !ok:
		return Answer{}, ErrNotFound
	case at == place{}:
		return Answer{}, errUnplaced
	case q.Verify:
		return Answer{}, errors.New("a directory of kind \"mupdate\" has no passwords")
	}
	return Answer{Backend: at.Value()}, nil
}

// run follows one master or another until ctx ends. A master that breaks down as soon as it is followed must not be asked for its
// list all the time, so only one that was followed for a while puts an end to the growing of the pauses.
func (m *murder) run(ctx context.Context) {
	for pause := murderFirst; ctx.Err() == nil; pause = min(2*pause, murderMost) {
		if m.tryAll(ctx) > pause {
			pause = murderFirst
		}
		m.save()
		sleep(ctx, pause/2+rand.N(pause/2+1))
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// tryAll goes through the masters until one was followed, and says for how long that was.
func (m *murder) tryAll(ctx context.Context) time.Duration {
	for _, address := range m.config.Servers {
		began, err := m.follow(ctx, address)
		if ctx.Err() != nil {
			return 0
		}
		m.report(fmt.Errorf("following %s: %w", address, err))
		if !began.IsZero() {
			return time.Since(began)
		}
	}
	return 0
}

// report logs a trouble once.
func (m *murder) report(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.problem == nil || m.problem.Error() != err.Error() {
		m.log.Warn("no MUPDATE master is followed; what was listed last holds", zap.Bool("listed", m.list != nil), zap.Error(err))
	}
	m.problem = err
}

// follow follows one master until something fails, and says since when its list was complete; zero if it never was.
func (m *murder) follow(ctx context.Context, address configs.Address) (since time.Time, err error) {
	dialer := net.Dialer{Timeout: m.config.Timeout}
	raw, err := dialer.DialContext(ctx, address.Network, address.Address)
	if err != nil {
		return since, err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	start := time.Now()
	s, err := m.enter(ctx, raw, address)
	if err != nil {
		return since, err
	}
	fresh, err := s.list()
	if err != nil {
		return since, fmt.Errorf("reading the list: %w", err)
	}
	m.replace(fresh)
	m.log.Info("mailboxes are listed, and followed", zap.Stringer("master", address), zap.Int("mailboxes", len(fresh.places)),
		zap.Duration("took", time.Since(start)))
	since = time.Now()
	for {
		if m.unsaved && time.Since(m.saved) >= murderSave {
			m.save()
		}
		sleep(ctx, murderAsk)
		if err := s.changes(m.apply); err != nil {
			return since, err
		}
	}
}

// replace puts a new list in the place of the one before, with all that it lacks.
func (m *murder) replace(fresh *mailboxes) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list, m.problem, m.unsaved = fresh, nil, true
}

func (m *murder) apply(r mupdateResponse) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unsaved = true
	return m.list.apply(r)
}

// load begins with the copy of an earlier run.
func (m *murder) load() {
	if m.config.Copy == "" {
		return
	}
	list, err := loadMailboxes(m.config.Copy)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		m.log.Error("copy of the mailboxes cannot be used", zap.Error(err))
	default:
		m.list = list
		m.log.Info("mailboxes are known from a copy", zap.String("file", m.config.Copy), zap.Int("mailboxes", len(list.places)))
	}
}

// save brings the copy up to date. It reads the list without a lock: nobody else changes it.
func (m *murder) save() {
	if m.config.Copy == "" || !m.unsaved {
		return
	}
	err := m.list.save(m.config.Copy)
	m.unsaved, m.saved = err != nil, time.Now()
	if err == nil {
		m.unfit = ""
	} else if m.unfit != reason(err) {
		m.unfit = reason(err)
		m.log.Error("copy of the mailboxes cannot be written", zap.String("file", m.config.Copy), zap.Error(err))
	}
}

// reason leaves out the name of the file, which is another one each time.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return err.Error()
}
