package backends

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
)

// Query is what is known when a user must be placed.
type Query struct {
	User    User
	Service configs.Service
	Peer    Peer
}

// Placement is where a user's login goes.
type Placement struct {
	Service *Service
	Name    string // the user's name in the form that the store wants
}

// What keeps a user from being placed. The client hears of neither.
var (
	// ErrNotFound means that no route leads anywhere for the user.
	ErrNotFound = errors.New("no route for the user")
	// ErrRefused means that a route refuses the user; its text is for the log.
	ErrRefused = errors.New("refused by a route")
	// ErrNoService means that the user's backend has no address for the service.
	ErrNoService = errors.New("backend has no such service")
)

// Router places users. It does not change; a new configuration makes a new one. Safe for concurrent use.
type Router struct {
	routes   []configs.Route
	services map[serviceKey]*Service
}

// serviceKey is the name of a backend, for a wildcard the one that a route gave, and a protocol.
type serviceKey struct {
	backend  string
	protocol configs.Service
}

// NewRouter prepares the backends of a configuration, and starts to look at them and to test them. What old knows of a
// backend that is configured as before is kept; the caller closes old with Retire when nothing uses it any more. old may
// be nil.
func NewRouter(config *configs.Config, old *Router, log *zap.Logger) (*Router, error) {
	r, err := PrepareRouter(config, old, log)
	if err != nil {
		return nil, err
	}
	for key, s := range r.services {
		if old.find(key) != s {
			s.start()
		}
	}
	return r, nil
}

// PrepareRouter is NewRouter without a connection to any store.
func PrepareRouter(config *configs.Config, old *Router, log *zap.Logger) (*Router, error) {
	r := &Router{routes: routes(config), services: make(map[serviceKey]*Service)}
	for _, name := range backendNames(config) {
		backend, ok := config.Backend(name)
		if !ok {
			return nil, fmt.Errorf("no backend %q", name)
		}
		for protocol, access := range backend.Access {
			key := serviceKey{name, protocol}
			s, err := newService(name, protocol, named(access, name), config.Hostname, log)
			if err != nil {
				return nil, err
			}
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
		if route.To != "" {
			names = append(names, route.To)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// named puts a wildcard backend's name into its addresses.
func named(access configs.Access, name string) configs.Access {
	access.Addresses = slices.Clone(access.Addresses)
	for i := range access.Addresses {
		access.Addresses[i].Address = strings.ReplaceAll(access.Addresses[i].Address, "{name}", name)
	}
	return access
}

func (r *Router) find(key serviceKey) *Service {
	if r == nil {
		return nil
	}
	return r.services[key]
}

// Retire ends what runs in the background for backends that next does not have. next may be nil.
func (r *Router) Retire(next *Router) {
	for key, s := range r.services {
		if next.find(key) != s {
			s.close()
		}
	}
}

// Place finds the store of a user.
func (r *Router) Place(q Query) (Placement, error) {
	for _, route := range r.routes {
		if mismatch(route, q) != "" {
			continue
		}
		if route.To == "" {
			return Placement{}, fmt.Errorf("%w: %s", ErrRefused, route.Refuse)
		}
		s := r.services[serviceKey{route.To, q.Service.Protocol()}]
		if s == nil {
			return Placement{}, fmt.Errorf("%w: %s, %s", ErrNoService, route.To, q.Service)
		}
		return Placement{Service: s, Name: q.User.Form(s.Access.User)}, nil
	}
	return Placement{}, ErrNotFound
}

// Trace tells for each route, up to the one that decides, whether its conditions hold, and why not.
func (r *Router) Trace(q Query) []Step {
	var steps []Step
	for _, route := range r.routes {
		step := Step{Route: route, Mismatch: mismatch(route, q)}
		steps = append(steps, step)
		if step.Mismatch == "" {
			break
		}
	}
	return steps
}

// Step is one route on the way of a placement.
type Step struct {
	Route    configs.Route
	Mismatch string // the first condition that does not hold; "" if the route decides
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

// Reachable lists the services that a client on such a connection can be led to.
func (r *Router) Reachable(service configs.Service, peer Peer) []*Service {
	var all []*Service
	for _, route := range r.routes {
		if mismatchConnection(route, service, peer) != "" {
			continue
		}
		if s := r.services[serviceKey{route.To, service.Protocol()}]; s != nil && !slices.Contains(all, s) {
			all = append(all, s)
		}
		if len(route.User) == 0 && len(route.Domain) == 0 {
			break // nobody gets further
		}
	}
	return all
}

// Announced is what can be promised to a client before it is known where it belongs: what all stores that it can be led
// to have in common. Stores that were never reached promise nothing and keep nothing back. known is false if no store
// was reached.
func (r *Router) Announced(service configs.Service, peer Peer) (common Capabilities, known bool) {
	for _, s := range r.Reachable(service, peer) {
		caps, reached := s.Capabilities()
		switch {
		case !reached:
		case !known:
			common, known = caps, true
		default:
			common = common.Common(caps)
		}
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

// Services lists every service of every backend, by name.
func (r *Router) Services() []*Service {
	all := make([]*Service, 0, len(r.services))
	for _, s := range r.services {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *Service) int {
		return strings.Compare(a.Backend+" "+string(a.Protocol), b.Backend+" "+string(b.Protocol))
	})
	return all
}
