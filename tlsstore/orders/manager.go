// Package orders gets certificates from an authority that speaks ACME (RFC 8555) and lays them down as PEM files, in a
// directory that the certificate store searches and watches like any other. So no handshake waits for an order, a restart
// asks the authority for nothing, an authority that is down delays nobody, and frontends that share the directory see each
// other's certificates.
//
// A Manager has one goroutine (schedule.go) that decides by what lies in the cache (cache.go) which name is to be ordered
// when, and orders one name at a time (order.go, authority.go), under a lease that all frontends share (lease.go).
// Challenges are answered from the cache as well, by whichever frontend the authority comes to (entrance.go).
package orders

import (
	"context"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/inherit"
)

// Options say what is ordered, and what the rest of the program knows about it. Only Config and Log are needed.
type Options struct {
	Config configs.ACME
	// Domains are those that {domain} stands for in a pattern.
	Domains []string
	// Known tells whether {domain} stands for another domain, too; sni is the name that a client asked for. It is called in
	// the background, by one goroutine.
	Known func(ctx context.Context, domain, sni string) (bool, error)
	// Held tells whether a certificate that is none of ours covers a name and is valid: then nothing is ordered. It must be
	// safe for concurrent use.
	Held func(name string) bool
	// Sockets are listened on for challenges; nil: none are inherited.
	Sockets *inherit.Sockets
	Log     *zap.Logger

	transport http.RoundTripper // for tests; nil: the network
}

// Directory is where the certificates of a configuration lie, for the certificate store.
func Directory(config configs.ACME) string { return filepath.Join(config.Cache, certificates) }

// Manager orders certificates until it is closed. Its methods are safe for concurrent use.
type Manager struct {
	Options
	wishes *wishes
	cache  *cache
	lease  *lease

	http, tlsALPN *entrance // nil where there is none

	ordered, refused atomic.Uint64 // orders that led to a certificate, and others

	// These belong to the goroutine.
	problem  string                 // with the cache, as it was logged last; "" if there is none
	failed   int                    // orders in a row, for whatever names
	full     bool                   // the last one because of a full disk, and the log knows
	pause    time.Time              // after which the next may be placed
	newNames [maxNewNames]time.Time // when the last ones were admitted, in a ring
	newest   int                    // how many there were
	crowded  bool                   // the last one was not admitted

	mu      sync.Mutex
	entries map[string]entry // of every name that is wanted and known of; the goroutine alone writes
	asked   map[string]bool  // by clients, and not looked at yet

	stale  atomic.Bool // the cache was changed by hand
	wake   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
}

// Open begins to order what the configuration wants and the cache does not have. The former manager, or nil, lives on until
// it is closed, but where an address stays the two listen there together. The only error is that an address cannot be
// listened on; all else that is wrong is logged, stands in Status, and is tried again. Close must be called.
func Open(o Options, former *Manager) (*Manager, error) {
	m := newManager(o)
	if err := m.listen(former); err != nil {
		return nil, err
	}
	m.start()
	return m, nil
}

func newManager(o Options) *Manager {
	if o.Sockets == nil {
		o.Sockets = inherit.NewSockets()
	}
	c := newCache(o.Config.Cache)
	return &Manager{
		Options: o,
		wishes:  newWishes(o),
		cache:   c,
		lease:   newLease(c.path("lease")),
		entries: make(map[string]entry),
		asked:   make(map[string]bool),
		wake:    make(chan struct{}, 1),
	}
}

func (m *Manager) start() {
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.done = cancel, make(chan struct{})
	go m.run(ctx)
}

// listen opens the entrances, or joins the former manager's.
func (m *Manager) listen(former *Manager) error {
	if former == nil {
		former = new(Manager)
	}
	var err error
	if m.http, err = m.openEntrance(http01, m.Config.HTTP, former.http); err != nil {
		return err
	}
	if m.tlsALPN, err = m.openEntrance(tlsALPN01, m.Config.TLSALPN, former.tlsALPN); err != nil {
		m.leave()
	}
	return err
}

func (m *Manager) openEntrance(kind string, address configs.Address, former *entrance) (*entrance, error) {
	switch {
	case address == configs.Address{}:
		return nil, nil
	case former != nil && former.address == address && former.join(m.cache):
		return former, nil
	}
	return m.openAt(kind, address)
}

func (m *Manager) leave() {
	for _, e := range []*entrance{m.http, m.tlsALPN} {
		if e != nil {
			e.leave(m.cache)
		}
	}
}

// Close breaks off what is being ordered, and stops listening where no other manager does.
func (m *Manager) Close() {
	m.cancel()
	<-m.done
	m.leave()
}

// maxAsked bounds the names that clients have asked for since the goroutine has looked last. What is too much is asked for
// again by the next client.
const maxAsked = 1000

// Ask says that a client has asked for a name for which there is no certificate. It never blocks. A name that fits no
// pattern is ignored, and so is one that is waiting for its time.
func (m *Manager) Ask(name string) {
	name, ok := dnsName(name)
	if !ok || !m.wishes.fits(name) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, known := m.entries[name]
	if len(m.asked) >= maxAsked || known && (e.asked || time.Now().Before(e.Next)) {
		return
	}
	m.asked[name] = true
	m.wakeUp()
}

// Look has the cache looked at soon, and not only when it is time: an operator may have changed something.
func (m *Manager) Look() {
	m.stale.Store(true)
	m.wakeUp()
}

func (m *Manager) wakeUp() {
	select {
	case m.wake <- struct{}{}:
	default: // it is waking up already
	}
}
