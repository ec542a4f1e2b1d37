package backends

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// Router places users. A new configuration makes a new one; what it learns by itself are the stores under wildcard names that
// directories have named. Safe for concurrent use.
type Router struct {
	config      *configs.Config
	log         *zap.Logger
	routes      []configs.Route
	services    map[serviceKey]*Service
	directories map[string]*openDirectory
	verifier    *openDirectory // nil where stores or directories verify
	tokens      *openDirectory // nil where the verifier of passwords verifies tokens, if anybody does
	names       *Names
	seats       map[string]*seats // of the pools
	doors       *doors
	memory      memory

	mu      sync.Mutex
	named   map[serviceKey]*Service // by directories, below wildcard names
	sorted  []*Service              // of services and named; nil: somebody has to sort them
	retired bool
}

// serviceKey is the name of a backend, for a wildcard the one that a route gave, and a protocol.
type serviceKey struct {
	backend  string
	protocol configs.Service
}

// NewRouter prepares the backends and directories of a configuration, and starts to look at them and to test them. What old
// knows of a backend or directory that is configured as before is kept; the caller closes old with Retire when nothing uses it
// any more. old may be nil.
func NewRouter(config *configs.Config, old *Router, log *zap.Logger) (*Router, error) {
	r, err := PrepareRouter(config, old, log)
	if err != nil {
		return nil, err
	}
	if err := r.openDirectories(old); err != nil {
		return nil, err
	}
	r.remember(old)
	for key, s := range r.services {
		if old.find(key) != s {
			s.start(rand.N(time.Duration(len(r.services)) * startSpread))
		}
	}
	return r, nil
}

// PrepareRouter is NewRouter without a connection to any store or directory. Whom a directory should place it does not place.
func PrepareRouter(config *configs.Config, old *Router, log *zap.Logger) (*Router, error) {
	r := &Router{
		config: config, log: log, routes: routes(config), names: NewNames(config.Users),
		services:    make(map[serviceKey]*Service),
		directories: make(map[string]*openDirectory),
		seats:       poolSeats(config, old),
		doors:       &doors{all: make(map[string]*door)},
		named:       make(map[serviceKey]*Service),
	}
	if old != nil {
		r.doors = old.doors
	}
	for _, name := range backendNames(config) {
		backend, ok := config.Backend(name)
		if !ok {
			return nil, fmt.Errorf("no backend %q", name)
		}
		for protocol, access := range backend.Access {
			key := serviceKey{name, protocol}
			s, err := newService(name, protocol, named(access, protocol, name, ""), config.Hostname, log)
			if err != nil {
				return nil, err
			}
			s.member, s.door, s.leading = isMember(config, name), r.doors.of(name), leads(backend, protocol)
			if kept := old.find(key); kept != nil && kept.same(s) {
				s = kept
			}
			r.services[key] = s
		}
	}
	return r, nil
}

// routes returns the routes; a single backend needs none.
func routes(config *configs.Config) []configs.Route {
	if len(config.Routes) == 0 && len(config.Backends) == 1 {
		return []configs.Route{{To: config.Backends[0].Name}}
	}
	return config.Routes
}

// backendNames lists every backend that a route can name. A wildcard stands for no store by itself, but for those that
// routes and its examples name.
func backendNames(config *configs.Config) []string {
	var names []string
	for _, b := range config.Backends {
		if !strings.HasPrefix(b.Name, "*") {
			names = append(names, b.Name)
		}
		names = append(names, b.Examples...)
	}
	for _, route := range config.Routes {
		if _, isPool := config.Pool(route.To); route.To != "" && !isPool {
			names = append(names, route.To)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Acquaint returns when each store was looked at that routes name, or with ctx: who comes then is promised what the stores can do.
func (r *Router) Acquaint(ctx context.Context) {
	var looks sync.WaitGroup
	for _, s := range r.services {
		looks.Go(func() { _ = s.inspect(ctx) }) // what is wrong with a store is in the log
	}
	looks.Wait()
}

// leads reports whether a protocol is a backend's IMAP, or first service.
func leads(backend *configs.Backend, protocol configs.Service) bool {
	for _, first := range configs.Protocols() {
		if _, ok := backend.Access[first]; ok {
			return first == protocol
		}
	}
	return false
}

func (r *Router) find(key serviceKey) *Service {
	if r == nil {
		return nil
	}
	return r.services[key]
}

// Retire ends what runs in the background for backends and directories that next does not have. next may be nil.
func (r *Router) Retire(next *Router) {
	for key, s := range r.services {
		if next.find(key) != s {
			s.close()
		}
	}
	r.closeDirectories(next)
	r.mu.Lock()
	r.retired = true
	r.mu.Unlock()
	for _, s := range r.named {
		s.close()
	}
	if next == nil || next.memory.drained != r.memory.drained {
		r.memory.keep()
	}
}

// mismatch names the first condition of a route that does not hold, or "".
func mismatch(route configs.Route, q Query) string {
	return cmp.Or(mismatchConnection(route, q.Service, q.Peer), mismatchUser(route, q.User))
}

// mismatchConnection judges the conditions that are known before there is a user.
func mismatchConnection(route configs.Route, service configs.Service, peer Peer) string {
	switch {
	case !matchAny(route.SNI, peer.SNI):
		return "sni"
	case !matchAny(route.Listener, peer.Listener):
		return "listener"
	case len(route.Service) > 0 && !slices.Contains(route.Service, service):
		return "service"
	case !route.Client.Empty() && !peer.In(route.Client):
		return "client"
	}
	return ""
}

func mismatchUser(route configs.Route, user User) string {
	if !matchAny(route.Domain, user.Domain) {
		return "domain"
	}
	for _, pattern := range route.User {
		name := user.Local // a pattern without a domain holds in all of them
		if strings.Contains(pattern, "@") {
			name = user.String()
		}
		if configs.Match(pattern, name) {
			return ""
		}
	}
	if len(route.User) > 0 {
		return "user"
	}
	return ""
}

func matchAny(patterns []string, s string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { return configs.Match(p, s) })
}

// Reachable lists the services that a client on such a connection can be led to. A directory may lead to any.
func (r *Router) Reachable(service configs.Service, peer Peer) []*Service {
	var all []*Service
	for _, route := range r.routes {
		if mismatchConnection(route, service, peer) != "" {
			continue
		}
		for _, s := range r.leadsTo(route, service.Protocol()) {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
		if len(route.User) == 0 && len(route.Domain) == 0 && route.Lookup == "" {
			break // nobody gets further
		}
	}
	return all
}

// leadsTo lists the services of a protocol that a route can lead to.
func (r *Router) leadsTo(route configs.Route, protocol configs.Service) (all []*Service) {
	names := []string{route.To}
	if pool, ok := r.config.Pool(route.To); ok {
		names = pool.Members
	}
	for _, s := range r.Services() {
		if s.Protocol == protocol && (route.Lookup != "" || slices.Contains(names, s.Backend)) {
			all = append(all, s)
		}
	}
	return all
}

// Announced is what can be promised to a client before it is known where it belongs: what all stores that it can be led
// to have in common. Stores that were never reached promise nothing and keep nothing back. known is false if no store
// was reached. Where users are verified here, the mechanisms are the verifier's.
func (r *Router) Announced(service configs.Service, peer Peer) (common Capabilities, known bool) {
	stores := r.Reachable(service, peer)
	for _, s := range stores {
		caps, reached := s.Capabilities()
		switch {
		case !reached:
		case !known:
			common, known = caps, true
		default:
			common = common.Common(caps)
		}
	}
	if r.Verifies() {
		common.Mechanisms = r.verifiable(stores)
	}
	return common, known
}

// RefusalTime is how long the slowest of the stores that such a client can be led to takes to refuse a password. Whom no
// store refuses must wait as long, or the time would tell that the user does not exist.
func (r *Router) RefusalTime(service configs.Service, peer Peer) (longest time.Duration) {
	for _, s := range r.Reachable(service, peer) {
		longest = max(longest, s.RefusalTime())
	}
	return longest
}

// Services lists every service of every backend, by name. Each connection asks for it: nobody may change the list.
func (r *Router) Services() []*Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sorted == nil {
		r.sorted = slices.AppendSeq(slices.Collect(maps.Values(r.services)), maps.Values(r.named))
		slices.SortFunc(r.sorted, func(a, b *Service) int {
			return cmp.Or(strings.Compare(a.Backend, b.Backend), strings.Compare(string(a.Protocol), string(b.Protocol)))
		})
	}
	return r.sorted
}
