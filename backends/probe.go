package backends

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-sasl"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// Probe is a way to a server that is gone as a client would go it, step by step, for somebody who wants to see what is
// there: a store, or a proxy in front of one.
type Probe struct {
	Protocol configs.Service
	Address  configs.Address
	Mode     configs.TLSMode
	TLS      *tls.Config   // not for TLSNone
	Proxy    *Peer         // of whom a PROXY header speaks that goes ahead; nil: none does
	Limit    time.Duration // for each step
}

// Probed is what was met on the way, and the connection at its end.
type Probed struct {
	Remote       net.Addr
	Greeting     string               // the first line that the server said; "" if none came
	TLS          *tls.ConnectionState // nil without TLS
	Capabilities Capabilities         // those that hold for a login now, with all mechanisms
	Laps         []Lap

	store Store
	limit time.Duration
	conn  *wire.Conn
	since time.Time // the end of the last lap
	greet bool      // Greeting was taken down
}

// Lap is how long one step took.
type Lap struct {
	Step string
	Took time.Duration
}

// Open goes the way up to the readiness for a login. What was met is returned with an error, too, and the connection is then
// closed.
func (p Probe) Open(ctx context.Context) (*Probed, error) {
	met := &Probed{store: stores[p.Protocol], limit: p.Limit, since: time.Now()}
	if met.store == nil {
		return met, fmt.Errorf("no way to talk %s", p.Protocol)
	}
	raw, err := (&net.Dialer{Timeout: p.Limit}).DialContext(ctx, p.Address.Network, p.Address.Address)
	if err != nil {
		return met, err
	}
	met.Remote = raw.RemoteAddr()
	met.lap("dial", time.Now())
	if err = p.open(ctx, met, raw); err != nil {
		raw.Close()
	}
	return met, err
}

func (p Probe) open(ctx context.Context, met *Probed, raw net.Conn) error {
	if p.Proxy != nil {
		if err := sendProxyHeader(raw, p.client(raw)); err != nil {
			return fmt.Errorf("PROXY header: %w", err)
		}
	}
	spoken := &overheard{Conn: raw}
	if p.Mode == configs.TLSImplicit {
		conn := tls.Client(raw, met.watch(p.TLS))
		if err := met.step(ctx, raw, "TLS", conn.HandshakeContext); err != nil {
			return err
		}
		met.secured(conn.ConnectionState())
		spoken.Conn = conn
	}
	met.conn = wire.New(spoken)
	o := Opening{Hello: literalName(raw.LocalAddr())}
	if p.Mode == configs.TLSStartTLS {
		o.StartTLS = func() error { return p.startTLS(ctx, met, raw, spoken) }
	}
	err := met.step(ctx, raw, "", func(context.Context) (err error) {
		met.Capabilities, err = met.store.Open(met.conn, o)
		return err
	})
	met.greeted(spoken)
	if err == nil {
		met.lap("capabilities", time.Now())
	}
	return err
}

// startTLS begins TLS in the middle of Open, with laps of its own.
func (p Probe) startTLS(ctx context.Context, met *Probed, raw net.Conn, spoken *overheard) error {
	met.greeted(spoken)
	met.lap("STARTTLS", time.Now())
	err := met.step(ctx, raw, "TLS", func(ctx context.Context) error { return met.conn.DialTLS(ctx, met.watch(p.TLS)) })
	if err == nil {
		met.secured(*met.conn.TLS())
	}
	return err
}

// client is whom the PROXY header speaks of; where it has connected to is where we do.
func (p Probe) client(raw net.Conn) *Peer {
	client := *p.Proxy
	if to, err := netip.ParseAddrPort(raw.RemoteAddr().String()); err == nil && to.Addr().Unmap().Is4() == client.Client.Is4() {
		client.Local = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	} else {
		client.Local = netip.AddrPortFrom(client.Client, 0) // a header has one family
	}
	return &client
}

// watch takes down what the server shows in the handshake, even if that comes to nothing.
func (d *Probed) watch(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.VerifyConnection = func(state tls.ConnectionState) error {
		d.TLS = &state
		return nil
	}
	return config
}

// secured takes down a handshake that has succeeded.
func (d *Probed) secured(state tls.ConnectionState) {
	d.TLS = &state
	d.lap("TLS", time.Now())
}

func (d *Probed) lap(step string, end time.Time) {
	d.Laps = append(d.Laps, Lap{step, end.Sub(d.since)})
	d.since = end
}

// greeted takes down the greeting, unless that was done.
func (d *Probed) greeted(spoken *overheard) {
	if !d.greet && !spoken.began.IsZero() {
		d.greet = true
		d.Greeting = strings.TrimSuffix(string(spoken.line), "\r")
		d.lap("greeting", spoken.began)
	}
}

// step runs within its time, and says so where that was not enough.
func (d *Probed) step(ctx context.Context, raw deadliner, what string, action func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.limit, fmt.Errorf("not done within %s", d.limit))
	defer cancel()
	return within(ctx, 2*d.limit, raw, what, action)
}

// Login logs in, by the first mechanism of PLAIN and LOGIN that the server has, or by the protocol's own command.
func (d *Probed) Login(ctx context.Context, user, password string) (Welcome, error) {
	var m sasl.Client = &Plain{User: user, Password: password}
	if offers := d.Capabilities.Mechanisms; slices.Contains(offers, "LOGIN") && !slices.Contains(offers, "PLAIN") {
		m = &loginClient{user, password}
	}
	var welcome Welcome
	err := d.step(ctx, d.conn, "login", func(context.Context) (err error) {
		welcome, err = d.store.Login(d.conn, d.Capabilities, m)
		return err
	})
	d.lap("login", time.Now())
	return welcome, err
}

// Leave says goodbye and closes the connection.
func (d *Probed) Leave() {
	d.store.Leave(d.conn)
	d.conn.Close()
}

// loginClient is SASL LOGIN (draft-murchison-sasl-login): name and password, whatever words the server asks with.
type loginClient []string

func (*loginClient) Start() (string, []byte, error) { return "LOGIN", nil, nil }

func (l *loginClient) Next([]byte) (answer []byte, err error) {
	if len(*l) == 0 {
		return nil, errors.New("third challenge to LOGIN")
	}
	answer, *l = []byte((*l)[0]), (*l)[1:]
	return answer, nil
}

// literalName is what a client without a name of its own says hello with (RFC 5321 section 4.1.4).
func literalName(local net.Addr) string {
	from, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return "localhost" // a unix socket
	}
	return "[" + smtpLiteral(from.Addr().Unmap().WithZone("")) + "]"
}

// maxGreeting bounds what is kept of a greeting's first line.
const maxGreeting = 512

// overheard is a connection that remembers when the server began to speak, and the first line of it.
type overheard struct {
	net.Conn
	began time.Time
	line  []byte
	whole bool
}

func (o *overheard) Read(p []byte) (int, error) {
	n, err := o.Conn.Read(p)
	if n > 0 && o.began.IsZero() {
		o.began = time.Now()
	}
	for _, c := range p[:n] {
		if o.whole = o.whole || c == '\n' || len(o.line) == maxGreeting; o.whole {
			break
		}
		o.line = append(o.line, c)
	}
	return n, err
}
