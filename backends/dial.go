package backends

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
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

// hello is the name that an SMTP or LMTP store hears.
func (o Opening) hello() string {
	if o.Client != nil && o.Client.Hello != "" {
		return o.Client.Hello
	}
	return o.Hello
}

// open dials the addresses until one is ready for a login: those that have failed a moment ago come last.
func (s *Service) open(ctx context.Context, o Opening) (*wire.Conn, Capabilities, configs.Address, error) {
	var errs []error
	for _, address := range s.addresses() {
		conn, caps, err := s.openAddress(ctx, address, o)
		s.note(address, err)
		if err == nil {
			return conn, caps, address, nil
		}
		errs = append(errs, fmt.Errorf("connecting to %s: %w", address, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, Capabilities{}, configs.Address{}, errors.Join(errs...)
}

// addresses lists the ways to the store in the order in which they are tried.
func (s *Service) addresses() []configs.Address {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return slices.SortedStableFunc(slices.Values(s.Access.Addresses), func(a, b configs.Address) int {
		return boolToInt(now.Before(s.avoid[a])) - boolToInt(now.Before(s.avoid[b]))
	})
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// note remembers whether an address was of use.
func (s *Service) note(address configs.Address, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.avoid, address)
	} else {
		s.avoid[address] = time.Now().Add(avoidFor)
	}
}

func (s *Service) openAddress(ctx context.Context, address configs.Address, o Opening) (*wire.Conn, Capabilities, error) {
	raw, err := s.dial(ctx, address)
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

// dial connects, from the next of the source addresses that have the family.
func (s *Service) dial(ctx context.Context, address configs.Address) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialLimit, KeepAliveConfig: KeepAlive}
	if source := s.source(address); source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	return dialer.DialContext(ctx, address.Network, address.Address)
}

// source takes the source addresses in turn. A host name may lead to either family, and the dialer leaves out the addresses
// that do not fit.
func (s *Service) source(address configs.Address) netip.Addr {
	sources := s.Access.Source
	if to, err := netip.ParseAddrPort(address.Address); err == nil {
		sources = slices.DeleteFunc(slices.Clone(sources), func(a netip.Addr) bool { return a.Is4() != to.Addr().Unmap().Is4() })
	}
	if len(sources) == 0 || address.Network == "unix" {
		return netip.Addr{}
	}
	return sources[int(s.turn.Add(1)-1)%len(sources)]
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
	if client != nil && client.Client.IsValid() && client.Local.IsValid() {
		header = proxyproto.HeaderProxyFromAddrs(2,
			net.TCPAddrFromAddrPort(netip.AddrPortFrom(client.Client, client.Port)), net.TCPAddrFromAddrPort(client.Local))
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
