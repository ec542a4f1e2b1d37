package backends

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"

	"go.uber.org/zap"

	"jackdaw/backends/directories"
	"jackdaw/configs"
)

// openDirectory is a directory or verifier that is open, and what it was made of.
type openDirectory struct {
	directories.Directory
	config  any
	answers answers
}

// AskDirectories opens the directories of a Router that PrepareRouter has made.
func (r *Router) AskDirectories() error { return r.openDirectories(nil) }

// openDirectories opens those that old has not open already.
func (r *Router) openDirectories(old *Router) error {
	if old == nil {
		old = new(Router)
	}
	for name, config := range r.config.Directories {
		config.Line = 0 // where it stands in the file is nothing to begin anew for
		open := func(c configs.Directory, log *zap.Logger) (directories.Directory, error) {
			return directories.Open(name, c, log)
		}
		d, err := goOn(old.directories[name], config, r.log, open)
		if err != nil {
			r.closeDirectories(old)
			return err
		}
		r.directories[name] = d
	}
	auth := r.config.Auth
	auth.Tokens = configs.Tokens{}
	var err error
	if r.verifier, err = goOn(old.verifier, auth, r.log, directories.OpenVerifier); err == nil {
		r.tokens, err = goOn(old.tokens, r.config.Auth.Tokens, r.log, directories.OpenTokens)
	}
	if err != nil {
		r.closeDirectories(old)
	}
	return err
}

// goOn returns what was made of the same configuration, or opens what a configuration says; nil if that is nothing.
func goOn[C any](kept *openDirectory, config C, log *zap.Logger, open func(C, *zap.Logger) (directories.Directory, error)) (*openDirectory, error) {
	if kept != nil && reflect.DeepEqual(kept.config, config) {
		return kept, nil
	}
	d, err := open(config, log)
	if d == nil || err != nil {
		return nil, err
	}
	return &openDirectory{Directory: d, config: config}, nil
}

// closeDirectories closes what next does not have.
func (r *Router) closeDirectories(next *Router) {
	if next == nil {
		next = new(Router)
	}
	for name, d := range r.directories {
		d.closeUnless(next.directories[name])
	}
	r.verifier.closeUnless(next.verifier)
	r.tokens.closeUnless(next.tokens)
}

func (d *openDirectory) closeUnless(kept *openDirectory) {
	if d != nil && d != kept {
		d.Close()
	}
}

// maxNamed bounds the stores that directories name below wildcards.
const maxNamed = 10_000

// service finds a protocol of a backend: by its name, by an address that it has, or as one of those that a wildcard stands
// for. A port is that of the address, "" where the directory has named none.
func (r *Router) service(name, port string, protocol configs.Service) (*Service, error) {
	name = strings.ToLower(name)
	key := serviceKey{name, protocol}
	if s := r.services[key]; s != nil && port == "" {
		return s, nil
	}
	for _, s := range r.services {
		if s.Protocol == protocol && s.at(name, port) {
			return s, nil
		}
	}
	if s := r.services[key]; s != nil { // the backend's own address goes before a port that means another protocol
		return s, nil
	}
	backend, ok := r.config.Backend(name)
	if _, err := configs.DNSName(name); !ok || err != nil || !strings.HasPrefix(backend.Name, "*") {
		if (!ok || backend.Name != name) && !r.knows(name) {
			return nil, fmt.Errorf("no backend is called %s, or has an address there", name) // whoever named it is mistaken
		}
		return nil, fmt.Errorf("%w: %s, %s", ErrNoService, strings.TrimSuffix(name+":"+port, ":"), protocol)
	}
	access, ok := backend.Access[protocol]
	if !ok {
		return nil, fmt.Errorf("%w: %s, %s", ErrNoService, name, protocol)
	}
	return r.learnService(name, protocol, named(access, protocol, name, port), leads(backend, protocol))
}

// knows reports whether there is a backend of that name or host, for whatever protocol.
func (r *Router) knows(name string) bool {
	for key, s := range r.services {
		if key.backend == name || s.at(name, "") {
			return true
		}
	}
	return false
}

// at reports whether one of the service's addresses is that of a host. Without a port it is enough that the host is.
func (s *Service) at(host, port string) bool {
	return slices.ContainsFunc(s.Access.Addresses, func(a configs.Address) bool {
		h, p, err := net.SplitHostPort(a.Address)
		return a.Network == "tcp" && err == nil && h == host && (port == "" || p == port)
	})
}

// learnService returns the service of a store that a directory has named, which is made when it is named first.
func (r *Router) learnService(backend string, protocol configs.Service, access configs.Access, leading bool) (*Service, error) {
	key := serviceKey{backend, protocol}
	for _, a := range access.Addresses { // one name may have several ports
		key.backend += " " + a.Address
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch known := r.named[key]; {
	case known != nil:
		return known, nil
	case r.retired:
		return nil, errClosed
	case len(r.named) >= maxNamed:
		return nil, errors.New("directories have named too many stores")
	}
	fresh, err := newService(backend, protocol, access, r.config.Hostname, r.log)
	if err != nil {
		return nil, err
	}
	fresh.door, fresh.leading = r.doors.of(backend), leading
	r.named[key], r.sorted = fresh, nil
	r.log.Debug("store named by a directory", zap.String("backend", backend), zap.String("protocol", string(protocol)))
	fresh.recall(r.memory)
	fresh.start(0)
	return fresh, nil
}

// standardPorts take the place of {port} where a directory has named none.
var standardPorts = map[configs.Service]string{
	configs.IMAP: "143", configs.POP3: "110", configs.Submission: "587", configs.Sieve: "4190", configs.LMTP: "24",
}

// named puts a wildcard backend's name, and the port that a directory has named, into its addresses.
func named(access configs.Access, protocol configs.Service, name, port string) configs.Access {
	if port == "" {
		port = standardPorts[protocol]
	}
	replacer := strings.NewReplacer("{name}", name, "{port}", port)
	access.Addresses = slices.Clone(access.Addresses)
	for i := range access.Addresses {
		access.Addresses[i].Address = replacer.Replace(access.Addresses[i].Address)
	}
	return access
}

// hostPort takes host and port of a directory's answer apart.
func hostPort(to string) (host, port string, ok bool) {
	host, port, err := net.SplitHostPort(to)
	return host, port, err == nil && host != "" && port != ""
}
