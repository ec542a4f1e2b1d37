package backends

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// Each step on the way to a store has a limit of its own, so that the log can name the one that hangs. Variables, so that
// tests need not wait.
var (
	dialLimit  = 3 * time.Second  // to take a connection: the next address may be in better health
	tlsLimit   = 10 * time.Second // for a handshake
	openLimit  = 10 * time.Second // from the greeting to the readiness for a login
	loginLimit = 30 * time.Second // for a login: a store that is slow must not use up the client's own time
	avoidFor   = 30 * time.Second // an address that has failed is tried last
)

// Opening is what is particular to one connection on its way to a login.
type Opening struct {
	// StartTLS begins TLS; it is called at the place that the protocol has for it, and all that was said before is
	// forgotten. nil where TLS does not begin by STARTTLS.
	StartTLS func() error
	Info     configs.ClientInfo // how the client's address travels
	Client   *Peer              // nil: we come for ourselves
	Hello    string             // what we call ourselves in SMTP and LMTP, unless there is a client
	User     string             // by XCLIENT LOGIN: who is logged in without any further proof; "" elsewhere
}

// open goes the ways to the store until one leads to a login: those that have failed a moment ago come last.
func (s *Service) open(ctx context.Context, o Opening) (*wire.Conn, Capabilities, configs.Address, error) {
	var errs []error
	for _, address := range s.freshFirst(s.Access.Addresses) {
		ways, err := resolve(ctx, address)
		if err != nil {
			errs = append(errs, fmt.Errorf("connecting to %s: %w", address, err))
		}
		for _, way := range s.freshFirst(ways) {
			conn, caps, failure := s.openWay(ctx, address, way, o)
			s.note(ctx, way, failure)
			if failure == nil {
				s.note(ctx, address, nil)
				return conn, caps, address, nil
			}
			err = failure
			errs = append(errs, fmt.Errorf("connecting to %s: %w", nameWay(address, way), err))
			if ctx.Err() != nil {
				break
			}
		}
		s.note(ctx, address, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, Capabilities{}, configs.Address{}, cmp.Or(errors.Join(errs...), errNowhere)
}

var errNowhere = errors.New("no address leads to the store")

// lookup resolves a host's name; a variable for tests.
var lookup = net.DefaultResolver.LookupNetIP

// resolve returns the ways that an address stands for: each of the addresses that a host has is one of its own, in the order
// that the system prefers.
func resolve(ctx context.Context, address configs.Address) ([]configs.Address, error) {
	host, port, err := net.SplitHostPort(address.Address)
	if _, notIP := netip.ParseAddr(host); address.Network == "unix" || err != nil || notIP == nil {
		return []configs.Address{address}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, dialLimit, errSlow)
	defer cancel()
	ips, err := lookup(ctx, "ip", host)
	if err != nil {
		return nil, because(ctx, err)
	}
	var ways []configs.Address
	for _, ip := range ips {
		ways = append(ways, configs.Address{Network: address.Network, Address: net.JoinHostPort(ip.Unmap().String(), port)})
	}
	return ways, nil
}

func nameWay(address, way configs.Address) string {
	if address == way {
		return address.String()
	}
	return fmt.Sprintf("%s (%s)", address, way)
}

// freshFirst sorts addresses into the order in which they are tried.
func (s *Service) freshFirst(addresses []configs.Address) []configs.Address {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	fresh, avoided := []configs.Address{}, []configs.Address{}
	for _, a := range addresses {
		if now.Before(s.avoid[a]) {
			avoided = append(avoided, a)
		} else {
			fresh = append(fresh, a)
		}
	}
	return append(fresh, avoided...)
}

// note remembers whether an address was of use. That a client had no time left, or went away, tells nothing of it.
func (s *Service) note(ctx context.Context, address configs.Address, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(s.avoid, func(_ configs.Address, until time.Time) bool { return now.After(until) })
	switch {
	case err == nil:
		delete(s.avoid, address)
	case ctx.Err() == nil || errors.Is(context.Cause(ctx), errSlow):
		s.avoid[address] = now.Add(avoidFor)
	}
}

// openWay goes one of the ways that a configured address stands for.
func (s *Service) openWay(ctx context.Context, address, way configs.Address, o Opening) (*wire.Conn, Capabilities, error) {
	raw, err := s.dial(ctx, way)
	if err != nil {
		return nil, Capabilities{}, because(ctx, err)
	}
	conn, caps, err := s.prepare(ctx, raw, address, o)
	if err != nil {
		raw.Close()
		return nil, Capabilities{}, err
	}
	caps.Mechanisms = relayable(caps.Mechanisms)
	return conn, caps, nil
}

// dial connects, from the next of the source addresses where there are some. One whose ports are all in use, or that this
// host does not have at the moment, is passed over.
func (s *Service) dial(ctx context.Context, way configs.Address) (conn net.Conn, err error) {
	dialer := net.Dialer{Timeout: dialLimit, KeepAliveConfig: KeepAlive}
	if len(s.Access.Source) == 0 || way.Network == "unix" {
		return dialer.DialContext(ctx, way.Network, way.Address)
	}
	err = errors.New("no source address is of its family")
	for _, source := range s.sources(way) {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		conn, err = dialer.DialContext(ctx, way.Network, way.Address)
		if !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return conn, err
}

// sources are the source addresses of the family, beginning with the next in turn.
func (s *Service) sources(way configs.Address) []netip.Addr {
	to, err := netip.ParseAddrPort(way.Address)
	if err != nil {
		return nil
	}
	v4 := to.Addr().Unmap().Is4()
	fit := slices.DeleteFunc(slices.Clone(s.Access.Source), func(a netip.Addr) bool { return a.Is4() != v4 })
	if len(fit) == 0 {
		return nil
	}
	turn := &s.turns[0]
	if v4 {
		turn = &s.turns[1]
	}
	next := (turn.Add(1) - 1) % uint32(len(fit))
	return slices.Concat(fit[next:], fit[:next])
}

// prepare takes a fresh connection through the PROXY header, TLS, and what the protocol says before login.
func (s *Service) prepare(ctx context.Context, raw net.Conn, address configs.Address, o Opening) (*wire.Conn, Capabilities, error) {
	if s.Access.ClientInfo == configs.ClientInfoProxy {
		err := within(ctx, dialLimit, raw, "PROXY header", func(context.Context) error { return sendProxyHeader(raw, o.Client) })
		if err != nil {
			return nil, Capabilities{}, err
		}
	}
	conn := wire.New(raw)
	begin := func() error {
		return within(ctx, tlsLimit, raw, "TLS", func(ctx context.Context) error { return conn.DialTLS(ctx, s.tls[address]) })
	}
	switch s.Access.TLS {
	case configs.TLSImplicit:
		if err := begin(); err != nil {
			return nil, Capabilities{}, err
		}
	case configs.TLSStartTLS:
		o.StartTLS = begin
	}
	o.Info, o.Hello = s.Access.ClientInfo, s.hello
	var caps Capabilities
	err := within(ctx, openLimit, raw, "", func(context.Context) (err error) {
		caps, err = s.store.Open(conn, o)
		return err
	})
	return conn, caps, err
}

var errSlow = errors.New("store is too slow")

// within runs one step on a connection. The end of ctx, or of the step's own time, ends whatever read or write is under way,
// and leaves the connection unfit for any other.
func within(ctx context.Context, limit time.Duration, raw deadliner, what string, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errSlow)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	err := step(ctx)
	if stop() && err == nil {
		return nil
	}
	if err = because(ctx, err); what != "" {
		err = fmt.Errorf("%s: %w", what, err)
	}
	return err
}

type deadliner interface{ SetDeadline(time.Time) error }

// because says that an error came from the end of ctx, and why that ended. Without an error it is the end itself.
func because(ctx context.Context, err error) error {
	switch {
	case ctx.Err() == nil:
		return err
	case err == nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}

// sendProxyHeader tells the store of the client by a PROXY header, version 2: its addresses, the name that it asked for, and
// its TLS. Where there is no client, or none with an address, the connection is said to be our own.
func sendProxyHeader(w io.Writer, client *Peer) error {
	header := &proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}
	var from, to netip.AddrPort
	ok := client != nil
	if ok {
		from, to, ok = client.ends()
	}
	if ok {
		header = proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to))
		tlvs, err := proxyTLVs(client)
		if err == nil {
			err = header.SetTLVs(tlvs)
		}
		if err != nil {
			return err
		}
	}
	_, err := header.WriteTo(w)
	return err
}

func proxyTLVs(client *Peer) ([]proxyproto.TLV, error) {
	var tlvs []proxyproto.TLV
	if client.SNI != "" {
		tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte(client.SNI)})
	}
	if client.TLS == 0 {
		return tlvs, nil
	}
	// Verify 1: no certificate of the client's is vouched for.
	ssl := tlvparse.PP2SSL{Client: tlvparse.PP2_BITFIELD_CLIENT_SSL, Verify: 1, TLV: []proxyproto.TLV{
		{Type: proxyproto.PP2_SUBTYPE_SSL_VERSION, Value: []byte(proxyTLSVersion(client.TLS))},
		{Type: proxyproto.PP2_SUBTYPE_SSL_CIPHER, Value: []byte(tls.CipherSuiteName(client.Cipher))},
	}}
	tlv, err := ssl.Marshal()
	return append(tlvs, tlv), err
}

// proxyTLSVersion is the version as OpenSSL writes it, which is what the specification's own example has.
func proxyTLSVersion(version uint16) string {
	if version == tls.VersionTLS13 {
		return "TLSv1.3"
	}
	return "TLSv1.2"
}
