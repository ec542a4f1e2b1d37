// Package tlsstore serves certificates by name. It finds PEM files, brings chains and private keys together, indexes the
// pairs by the names in the certificates, and watches the files, so that a renewed certificate is served without a reload.
//
// What is known is kept in three layers, each of which learns only what has changed in the one below. The tree (tree, resolve,
// watch) knows which files there are. The registry (registry, match, settle, problems) knows what is in them, which a scanner
// (scan, file, parse, authority) reads on all cores, and which chain and key make a pair. The index has the pairs by name. One
// goroutine keeps all of them; a handshake looks into the index (choose), and the pair that it is shown is read from its files
// at the first time, and then held in a cache.
//
// Beside them, listener makes configurations for crypto/tls, tickets keeps sessions to their names, clients reads who vouches
// for clients, and report tells operators what is there.
package tlsstore

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/thrift"
)

// Store holds the certificates of one configuration.
type Store struct {
	cfg      configs.TLS
	hostname string
	tickets  *Tickets
	log      *zap.Logger
	tuning   tuning

	index *index
	cache cache
	// suspects are pairs that a handshake could not read. One that finds no room will be asked for again.
	suspects chan *pair
	woken    chan struct{}

	mu       sync.Mutex // guards what follows, all of which is for one goroutine at a time
	scanner  *scanner
	watcher  *watcher
	tree     *tree
	registry *registry
	sealed   []*file // whose private keys are to be verified yet
	relax    func()  // when they are

	cancel context.CancelFunc
	done   chan struct{}
}

// Options say what to open.
type Options struct {
	TLS      configs.TLS
	Hostname string
	// ACME is a directory of certificates that serve only names for which TLS.Certificates have none; "" is none.
	ACME string
	// Tickets outlive the store.
	Tickets *Tickets
	Log     *zap.Logger
	// Thorough has every private key verified before Open returns. Otherwise that is done while the store serves already.
	Thorough bool
}

// tuning holds what tests change.
type tuning struct {
	notifier func() (*fsnotify.Watcher, error)

	quiet    time.Duration // without a change before files are read, because a certificate and its key change in steps
	patience time.Duration // after the first change, even if there was no quiet
	poll     time.Duration // between searches where watching is impossible
	rescan   time.Duration // between searches where it is possible: a network file system tells nothing of other hosts
	grace    time.Duration // that a certificate serves after all of its files are gone
	cache    int           // pairs
	verify   int           // private keys at a time, some milliseconds' worth
}

var usual = tuning{
	notifier: fsnotify.NewWatcher,
	quiet:    100 * time.Millisecond,
	patience: time.Second,
	poll:     10 * time.Second,
	rescan:   5 * time.Minute,
	grace:    time.Minute,
	cache:    cacheSize,
	verify:   100,
}

// verifyPause is how long the background rests after some private keys, so that it takes but a fraction of a core.
const verifyPause = 25 * time.Millisecond

// Open reads the certificates and begins to watch them. What cannot be read is logged, stands in Problems, and keeps
// nothing else from being served. Close must be called.
func Open(o Options) *Store { return open(o, usual) }

func open(o Options, t tuning) *Store {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{
		cfg: o.TLS, hostname: o.Hostname, tickets: o.Tickets, log: o.Log, tuning: t,
		index: newIndex(), cache: cache{size: t.cache},
		suspects: make(chan *pair, 64),
		woken:    make(chan struct{}, 1),
		scanner:  newScanner(o.Thorough),
		watcher:  newWatcher(t, o.Log),
		cancel:   cancel,
		done:     make(chan struct{}),
	}
	s.tree = newTree(o.TLS.Certificates, o.ACME, s.watcher)
	s.registry = newRegistry(s)
	s.start()
	go s.follow(ctx)
	return s
}

// Close ends the watching. Configurations that the store gave out keep serving what they serve now.
func (s *Store) Close() {
	s.cancel()
	<-s.done
}

// start makes the first index. It trusts a private key that lies beside its chain until it is verified: a small host's keys
// are at once, those of a large one by follow.
func (s *Store) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer thrift.Tight()()
	s.update(changes{all: true})
	s.registry.starting = false
	s.scanner.unseal = true
	s.tree.all(func(f *file) {
		if f.has().sealed {
			s.sealed = append(s.sealed, f)
		}
	})
	if s.sealed != nil {
		s.relax = thrift.Tight()
	}
	s.verifySome()
	s.registry.settle(time.Now())
	s.log.Info("certificates loaded", zap.Int("certificates", s.index.size()))
	s.tidy()
}

// follow reads the files again whenever they may have changed.
func (s *Store) follow(ctx context.Context) {
	defer close(s.done)
	defer s.watcher.close()
	defer s.giveUp()
	searched := time.Now()
	for {
		changed, ok := s.watcher.wait(ctx, s.pause(searched), s.woken)
		if !ok {
			return
		}
		changed.all = changed.all || time.Since(searched) >= s.watcher.interval()
		if s.work(changed) {
			searched = time.Now()
		}
	}
}

// pause is how long follow may wait if nothing changes.
func (s *Store) pause(searched time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	pause := time.Until(searched.Add(s.watcher.interval()))
	if len(s.sealed) > 0 {
		pause = min(pause, verifyPause)
	}
	for p := range s.registry.kept {
		if gone := p.kept.gone; !gone.IsZero() {
			pause = min(pause, time.Until(gone.Add(s.tuning.grace)))
		}
	}
	return max(pause, 0)
}

// work does what there is to be done, and reports whether it took a search.
func (s *Store) work(changed changes) (searched bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recheck()
	s.verifySome()
	return s.update(changed)
}

// update brings tree, registry and index up to date, and reports whether it took a search.
func (s *Store) update(changed changes) (searched bool) {
	files := make(map[*file]bool)
	lost := make(map[*file]bool)
	searched = changed.all || !s.visit(changed, files, lost)
	readings := s.scanner.each(func(found func(*file)) {
		if searched {
			for _, f := range s.tree.search(found) {
				lost[f] = true
			}
			return
		}
		for f := range files {
			found(f)
		}
	})
	s.registry.searched = searched
	s.registry.take(lost, readings)
	s.registry.settle(time.Now())
	return searched
}

// visit collects the files that changes concern, and those that are gone. It returns false where it takes a search to
// know.
func (s *Store) visit(changed changes, files, lost map[*file]bool) bool {
	for path := range changed.paths {
		gone, ok := s.tree.visit(path, func(f *file) { files[f] = true })
		if !ok {
			return false
		}
		for _, f := range gone {
			lost[f] = true
		}
	}
	for f := range lost {
		delete(files, f)
	}
	return true
}

// verifySome verifies some of the private keys that have been trusted since the start.
func (s *Store) verifySome() {
	some := s.sealed[:min(s.tuning.verify, len(s.sealed))]
	s.sealed = s.sealed[len(some):]
	for _, f := range some {
		s.registry.verify(f)
	}
	if len(s.sealed) == 0 && s.sealed != nil {
		s.sealed = nil
		s.tidy()
		s.relax()
	}
}

// giveUp leaves the private keys that are left to those who use them.
func (s *Store) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed != nil {
		s.sealed = nil
		s.relax()
	}
}

// tidy gives memory back where there was much to read: what was needed for that will not be needed again.
func (s *Store) tidy() {
	if s.index.size() > s.tuning.cache {
		debug.FreeOSMemory()
	}
}

// suspect has the files of a pair looked at that a handshake could not read.
func (s *Store) suspect(p *pair) {
	select {
	case s.suspects <- p:
	default:
	}
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// recheck reads the files of suspects again, whatever their state.
func (s *Store) recheck() {
	for {
		select {
		case p := <-s.suspects:
			for _, f := range []*file{p.chain, p.key} {
				f.young = true
				if r := s.scanner.look(f); r != nil {
					s.registry.take(nil, []*reading{r})
				}
			}
			s.registry.touched[p] = true
		default:
			return
		}
	}
}
