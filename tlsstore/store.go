// Package tlsstore serves certificates by name. It reads PEM files, pairs chains with private keys, indexes the pairs
// by the names in the certificates, and watches the files, so that a renewed certificate is served without a reload.
//
// From file to handshake there are five steps, one file each: scan finds and reads files, parse turns one into chains
// and keys, pair brings chains and keys together (and keeps an old pair until the new one is complete), index sorts
// pairs by name, choose picks one for a client. The first four run at start and after every change; their result
// replaces the former index at once, and a handshake reads only that. Beside them, watch tells when to begin again,
// tickets keeps sessions to their names, clients reads who vouches for clients, and report tells operators what is there.
package tlsstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"jackdaw/configs"
)

// Store holds the certificates of one configuration.
type Store struct {
	cfg      configs.TLS
	hostname string
	tickets  *Tickets
	log      *zap.Logger
	tuning   tuning

	watcher *watcher
	scanner *scanner
	index   atomic.Pointer[index]

	cancel context.CancelFunc
	done   chan struct{}
}

// tuning holds what tests change.
type tuning struct {
	notifier func() (*fsnotify.Watcher, error)

	quiet    time.Duration // without a change before files are read, because a certificate and its key change in steps
	patience time.Duration // after the first change, even if there was no quiet
	poll     time.Duration // between scans where watching is impossible
	rescan   time.Duration // between scans where it is possible: a network file system tells nothing of other hosts
	grace    time.Duration // that a certificate serves after all of its files are gone
}

var usual = tuning{
	notifier: fsnotify.NewWatcher,
	quiet:    100 * time.Millisecond,
	patience: time.Second,
	poll:     10 * time.Second,
	rescan:   5 * time.Minute,
	grace:    time.Minute,
}

// Open reads the certificates and begins to watch them. What cannot be read is logged, stands in Problems, and keeps
// nothing else from being served. Close must be called.
func Open(cfg configs.TLS, hostname string, tickets *Tickets, log *zap.Logger) *Store {
	return open(cfg, hostname, tickets, log, usual)
}

func open(cfg configs.TLS, hostname string, tickets *Tickets, log *zap.Logger, t tuning) *Store {
	ctx, cancel := context.WithCancel(context.Background())
	w := newWatcher(t, log)
	s := &Store{
		cfg: cfg, hostname: hostname, tickets: tickets, log: log, tuning: t,
		watcher: w,
		scanner: &scanner{roots: cfg.Certificates, watcher: w},
		cancel:  cancel,
		done:    make(chan struct{}),
	}
	s.index.Store(newIndex(nil, nil, time.Now()))
	s.rescan()
	s.log.Info("certificates loaded", zap.Int("certificates", len(s.index.Load().pairs)))
	go s.follow(ctx)
	return s
}

// Close ends the watching. Configurations that the store gave out keep serving what they serve now.
func (s *Store) Close() {
	s.cancel()
	<-s.done
}

// follow reads the files again whenever they may have changed.
func (s *Store) follow(ctx context.Context) {
	defer close(s.done)
	defer s.watcher.close()
	for s.watcher.wait(ctx, s.untilRescan()) {
		before := s.index.Load()
		s.rescan()
		logPairs(s.log, before, s.index.Load())
	}
}

// untilRescan is how long the index may stand if no change is noticed.
func (s *Store) untilRescan() time.Duration {
	until := s.watcher.interval()
	for _, p := range s.index.Load().pairs {
		if !p.gone.IsZero() {
			until = min(until, time.Until(p.gone.Add(s.tuning.grace)))
		}
	}
	return max(until, 0)
}

// rescan replaces the index by one made of the files as they are now.
func (s *Store) rescan() {
	before, now := s.index.Load(), time.Now()
	fresh := pairUp(s.scanner.scan())
	fresh.keep(before.pairs, now, s.tuning.grace)
	idx := newIndex(fresh.list(), fresh.problems, now)
	if d := s.cfg.Default; d != nil && *d != "" && len(idx.lookup(indexed(*d)).pairs) == 0 {
		idx.problems = append(idx.problems, Problem{Text: "no certificate for the default name " + *d})
	}
	logProblems(s.log, before, idx)
	s.index.Store(idx)
}
