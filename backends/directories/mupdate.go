package directories

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
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
	// murderSave is how old a copy may become while the list changes. Who follows it for less than murderSettle is a command
	// that looks something up, and leaves the copy alone, which may be another user's.
	murderSave, murderSettle = 5 * time.Minute, 10 * time.Second
)

// murder is the directory of a Cyrus Murder: the list of all mailboxes, that a MUPDATE master has (RFC 3656). It is fetched
// once, followed from then on, and held in memory; Lookup asks nobody. While no master can be reached the last list holds.
type murder struct {
	config configs.Directory
	tls    *tls.Config
	log    *zap.Logger

	mu      sync.RWMutex // for writing, which only follow does
	list    *mailboxes   // nil before there was a complete one, and after Close
	problem error        // why there is none, or why the last master was lost
	kept    time.Time    // until when the list was true; zero while a master is followed
	down    time.Time    // since when none can be followed; zero while one is, and before the first attempt

	heard func()        // closes asked
	asked chan struct{} // closed when there is a list, or a first attempt to get one has failed

	opened  time.Time
	unsaved bool      // the copy is older than the list
	saved   time.Time // when it was written
	unfit   bool      // it could not be written, and the log knows

	troubles map[configs.Address]string // with the masters, as they were logged last

	cancel context.CancelFunc
	done   sync.WaitGroup
}

var (
	errNotAsked = errors.New("it has not come yet")
	errClosed   = errors.New("closed")
	errUnplaced = errors.New("the mailbox is reserved, or at no server that has a name")
)

func newMurder(c configs.Directory, log *zap.Logger) (Directory, error) {
	m := &murder{
		config: c, log: log, problem: errNotAsked, asked: make(chan struct{}), opened: time.Now(), troubles: make(map[configs.Address]string),
	}
	m.heard = sync.OnceFunc(func() { close(m.asked) })
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

// Lookup finds the server that has a user's inbox, or the shared mailbox that is meant by mail to Cyrus's postuser. It waits for
// the first list, but for nothing else.
func (m *murder) Lookup(ctx context.Context, q Query) (Answer, error) {
	m.await(ctx)
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.list == nil {
		return Answer{}, fmt.Errorf("no complete list of mailboxes: %w", m.problem)
	}
	if q.Local == "" && q.Domain != "" { // nobody is meant: whether there is such a domain
		if m.list.domains[q.Domain] == 0 {
			return Answer{}, ErrNotFound
		}
		return Answer{}, nil
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
	return Answer{Backend: at.Value(), Kept: m.kept, Down: m.down}, nil
}

// await waits until there is a list, or a first attempt to get one has failed.
func (m *murder) await(ctx context.Context) {
	select {
	case <-m.asked:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, m.config.Timeout)
	defer cancel()
	select {
	case <-m.asked:
	case <-ctx.Done():
	}
}

// run follows one master or another until ctx ends. A master that breaks down as soon as it is followed must not be asked for its
// list all the time, so only one that was followed for a while puts an end to the growing of the pauses.
func (m *murder) run(ctx context.Context) {
	defer m.heard()
	for pause := murderFirst; ctx.Err() == nil; pause = min(2*pause, murderMost) {
		if m.tryAll(ctx) > pause {
			pause = murderFirst
		}
		m.heard()
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
		m.report(address, err)
		if !began.IsZero() {
			return time.Since(began)
		}
	}
	return 0
}

// report logs a trouble with a master once, until the master has listed its mailboxes again.
func (m *murder) report(address configs.Address, err error) {
	err = fmt.Errorf("following %s: %w", address, err)
	if m.troubles[address] != err.Error() {
		m.log.Warn("MUPDATE master cannot be followed", zap.Error(err))
	}
	m.troubles[address] = err.Error()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.problem = err; m.down.IsZero() {
		m.down = time.Now()
		if m.kept.IsZero() {
			m.kept = m.down
		}
	}
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
	delete(m.troubles, address)
	m.log.Info("mailboxes are listed, and followed", zap.Stringer("master", address), zap.Int("mailboxes", len(fresh.places)),
		zap.Duration("took", time.Since(start)))
	since = time.Now()
	for {
		if time.Since(m.saved) >= murderSave {
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
	m.list, m.unsaved, m.kept, m.down = fresh, true, time.Time{}, time.Time{}
	m.heard()
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
		if info, err := os.Stat(m.config.Copy); err == nil {
			m.kept = info.ModTime()
		}
		m.heard()
		m.log.Info("mailboxes are known from a copy", zap.String("file", m.config.Copy), zap.Int("mailboxes", len(list.places)))
	}
}

// save brings the copy up to date. It reads the list without a lock: nobody else changes it.
func (m *murder) save() {
	if m.config.Copy == "" || !m.unsaved || time.Since(m.opened) < murderSettle {
		return
	}
	err := m.list.save(m.config.Copy)
	if err != nil && !m.unfit {
		m.log.Error("copy of the mailboxes cannot be written", zap.String("file", m.config.Copy), zap.Error(err))
	}
	m.unfit, m.unsaved, m.saved = err != nil, err != nil, time.Now()
}
