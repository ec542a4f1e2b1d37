package backends

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
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
	dialLimit  = 3 * time.Second        // to take a connection: the next address may be in better health
	tlsLimit   = 10 * time.Second       // for a handshake
	openLimit  = 10 * time.Second       // from the greeting to the readiness for a login
	loginLimit = 30 * time.Second       // for a login: a store that is slow must not use up the client's own time
	stagger    = 250 * time.Millisecond // between the first dial and the next (RFC 8305 section 8)
	avoidFor   = 30 * time.Second       // a path that has failed is tried last, unless somebody looks when it is up
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
	Tap      Tap                // is told what is said; nil: nobody is
}

// Tap is told what is said to a store and by it: see wire.Tap.
type Tap = wire.Tap

// open goes the paths to the store until one leads to a login. It returns at once where none is known to lead anywhere.
func (s *Service) open(ctx context.Context, o Opening) (*wire.Conn, Capabilities, path, error) {
	if err := s.downNow(); err != nil {
		return nil, Capabilities{}, path{}, err
	}
	defer s.door.steps.Connect.Since(time.Now())
	var errs []error
	for paths := s.inOrder(s.resolve(ctx, false)); len(paths) > 0 && ctx.Err() == nil; {
		raw, p, left, failures := s.race(ctx, paths, stagger)
		paths, errs = left, append(errs, failures...)
		if raw == nil {
			break
		}
		conn, caps, err := s.prepare(ctx, raw, p.address, o)
		s.note(ctx, p, err, 0)
		if err == nil {
			return conn, caps, p, nil
		}
		raw.Close()
		errs = append(errs, fmt.Errorf("connecting to %s: %w", p, err))
	}
	return nil, Capabilities{}, path{}, cmp.Or(errors.Join(errs...), because(ctx, nil), errNowhere)
}

var errNowhere = errors.New("no address leads to the store")

// dialed is what came of dialing a path.
type dialed struct {
	path
	conn net.Conn
	err  error
}

// race dials paths in their order, the next one when one has failed or keeps us waiting for so long (RFC 8305 section 5). It returns
// the first connection, if there is one, and the paths that can still be tried if that is of no use.
func (s *Service) race(ctx context.Context, paths []path, patience time.Duration) (conn net.Conn, won path, left []path, errs []error) {
	if len(paths) == 1 { // which is common, and costs nothing then
		conn, err := s.dial(ctx, paths[0])
		if err != nil {
			return nil, path{}, nil, []error{s.missed(ctx, paths[0], err)}
		}
		return conn, paths[0], nil, nil
	}
	racing, stop := context.WithCancel(ctx)
	defer stop()
	results := make(chan dialed, len(paths))
	begun, ended, done := 0, 0, []path{}
	next := func() {
		if begun < len(paths) && racing.Err() == nil {
			p := paths[begun]
			begun++
			go func() {
				conn, err := s.dial(racing, p)
				results <- dialed{p, conn, err}
			}()
		}
	}
	late := time.NewTicker(patience)
	defer late.Stop()
	for next(); ended < begun; {
		select {
		case <-late.C:
			next()
		case d := <-results:
			ended++
			switch {
			case d.err == nil && conn == nil:
				conn, won, done = d.conn, d.path, append(done, d.path)
				stop() // the others
			case d.err == nil:
				d.conn.Close()
			case conn == nil:
				errs, done = append(errs, s.missed(ctx, d.path, d.err)), append(done, d.path)
				next()
			}
		}
	}
	left = slices.DeleteFunc(slices.Clone(paths), func(p path) bool { return slices.Contains(done, p) })
	return conn, won, left, errs
}

// missed notes that a path could not be dialed.
func (s *Service) missed(ctx context.Context, p path, err error) error {
	err = because(ctx, err)
	s.note(ctx, p, err, 0)
	return fmt.Errorf("connecting to %s: %w", p, err)
}

// dial connects, from the next of the source addresses where there are some. One whose ports are all in use, or that this
// host does not have at the moment, is passed over.
func (s *Service) dial(ctx context.Context, p path) (conn net.Conn, err error) {
	if err := s.unresolved(p); err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialLimit, KeepAliveConfig: KeepAlive}
	if len(s.Access.Source) == 0 || p.end.Network == "unix" {
		return dialer.DialContext(ctx, p.end.Network, p.end.Address)
	}
	err = errors.New("no source address is of its family")
	for _, source := range s.sources(p.end) {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
		conn, err = dialer.DialContext(ctx, p.end.Network, p.end.Address)
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
	conn.Tap(o.Tap)
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
	caps.Mechanisms = relayable(caps.Mechanisms)
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
