package backends

import (
	"context"
	"net"
	"net/netip"
	"time"

	"jackdaw/configs"
)

// How long what a name server has said is good for logins; a look asks it again. Variables, so that tests need not wait.
var (
	resolvedFor   = time.Minute
	unresolvedFor = time.Second
)

// hostAnswer is what a name server has said of a host in a store's address.
type hostAnswer struct {
	ends []configs.Address
	err  error // why it said nothing, the last time
	at   time.Time
}

// lookup resolves a host's name; a variable for tests.
var lookup = net.DefaultResolver.LookupNetIP

// resolve returns the paths to the store as they are configured. Each of the addresses that a host has is one of its own. A name
// server that is not to be had changes nothing; a name of which nothing was ever known is a path that leads nowhere.
func (s *Service) resolve(ctx context.Context, anew bool) (paths []path) {
	for _, address := range s.Access.Addresses {
		name, port, err := net.SplitHostPort(address.Address)
		if _, notIP := netip.ParseAddr(name); address.Network == "unix" || err != nil || notIP == nil {
			paths = append(paths, path{address, address})
			continue
		}
		ends := s.ends(ctx, address, name, port, anew)
		for _, end := range ends {
			paths = append(paths, path{address, end})
		}
		if len(ends) == 0 {
			paths = append(paths, path{address, address})
		}
	}
	return paths
}

// ends returns the addresses of a host, as they were learned a moment ago or are learned now. No login waits for a name server that
// has ever answered: it goes where the host was last, and the answer is for the next ones.
func (s *Service) ends(ctx context.Context, address configs.Address, name, port string, anew bool) []configs.Address {
	s.mu.Lock()
	known := s.hosts[address]
	age := time.Since(known.at)
	old := age >= resolvedFor || known.err != nil && age >= unresolvedFor
	later := old && !anew && len(known.ends) > 0
	if later {
		s.hosts[address] = hostAnswer{known.ends, known.err, time.Now()} // asked once
	}
	s.mu.Unlock()
	switch {
	case later:
		s.background(func() { s.ask(s.ctx, address, name, port) })
		return known.ends
	case old || anew:
		return s.ask(ctx, address, name, port)
	}
	return known.ends
}

// ask asks a name server where a host is, and keeps what it says. Where it says nothing, what is known by then stands.
func (s *Service) ask(ctx context.Context, address configs.Address, name, port string) []configs.Address {
	limited, cancel := context.WithTimeoutCause(ctx, dialLimit, errSlow)
	defer cancel()
	ips, err := lookup(limited, "ip", name)
	err = because(limited, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.hosts[address]
	if err != nil && ctx.Err() != nil {
		return known.ends // a client has left
	}
	fresh := hostAnswer{known.ends, err, time.Now()}
	if err == nil {
		fresh.ends = nil
		for _, ip := range alternate(ips) {
			fresh.ends = append(fresh.ends, configs.Address{Network: address.Network, Address: net.JoinHostPort(ip.String(), port)})
		}
	}
	s.hosts[address] = fresh
	return fresh.ends
}

// alternate sorts addresses so that the families take turns (RFC 8305 section 4), in the order that the system prefers.
func alternate(ips []netip.Addr) (sorted []netip.Addr) {
	var families [2][]netip.Addr // the first is that of the first address
	for _, ip := range ips {
		ip = ip.Unmap()
		if ip.Is4() == ips[0].Unmap().Is4() {
			families[0] = append(families[0], ip)
		} else {
			families[1] = append(families[1], ip)
		}
	}
	for i := range ips {
		for _, family := range families {
			if i < len(family) {
				sorted = append(sorted, family[i])
			}
		}
	}
	return sorted
}

// unresolved says why a path is not known to lead anywhere, or nil.
func (s *Service) unresolved(p path) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.address == p.end {
		return s.hosts[p.address].err
	}
	return nil
}
