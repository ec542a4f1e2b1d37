package directories

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"jackdaw/configs"
)

// The library would take messages of two gigabytes. An entry, of which we ask for a few attributes, is smaller than this.
func init() { ber.MaxPacketLengthBytes = 1 << 20 }

// Limits of connections. Variables, so that tests need not wait.
var (
	ldapAvoid = 30 * time.Second // a server that has failed is tried last
	ldapIdle  = time.Minute      // less than servers and firewalls keep a connection that nobody uses
)

// ldapServer is one of the servers of a directory, with its connections.
type ldapServer struct {
	url      string
	address  configs.Address
	tls      *tls.Config // nil: none
	startTLS bool
	bindDN   string
	password string

	// As whom a connection speaks is the one thing that the two kinds differ in.
	searching, verifying ldapPool

	mu    sync.Mutex
	avoid time.Time
}

func newLDAPServer(url string, c configs.Directory, secured *tls.Config) (*ldapServer, error) {
	address, implicit, err := configs.LDAPServer(url)
	if err != nil {
		return nil, err
	}
	s := &ldapServer{url: url, address: address, bindDN: c.BindDN, password: c.BindPassword}
	s.startTLS = c.StartTLS && !implicit && address.Network == "tcp"
	if implicit || s.startTLS {
		host, _, err := net.SplitHostPort(address.Address)
		if err != nil {
			return nil, err
		}
		s.tls = secured.Clone()
		s.tls.ServerName, s.tls.ClientSessionCache = host, tls.NewLRUClientSessionCache(0)
	}
	return s, nil
}

// purpose is what a connection is for.
type purpose func(*ldapServer) *ldapPool

func searching(s *ldapServer) *ldapPool { return &s.searching }
func verifying(s *ldapServer) *ldapPool { return &s.verifying }

// ask asks the servers, one after the other, until one can say something; do fails if it could not. Each has its share of the
// time, so that one that hangs leaves some for the next.
func (d *ldapDirectory) ask(ctx context.Context, what purpose, do func(*ldap.Conn) error) error {
	select {
	case d.busy <- struct{}{}:
		defer func() { <-d.busy }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for other questions to be answered: %w", context.Cause(ctx))
	}
	servers := d.freshFirst()
	var errs []error
	for i, s := range servers {
		turn, cancel := share(ctx, len(servers)-i)
		err := s.ask(turn, what, do)
		cancel()
		if err == nil || errors.Is(err, errAmbiguous) {
			s.note(time.Time{})
			return err
		}
		errs = append(errs, fmt.Errorf("asking %s: %w", s.url, err))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// share is one of n parts of the time that is left.
func share(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	end, _ := ctx.Deadline()
	return context.WithTimeoutCause(ctx, time.Until(end)/time.Duration(n), errSlow)
}

var errSlow = errors.New("the server is too slow")

// freshFirst sorts the servers into the order in which they are tried: those that have failed a moment ago come last.
func (d *ldapDirectory) freshFirst() []*ldapServer {
	var fresh, avoided []*ldapServer
	now := time.Now()
	for _, s := range d.servers {
		if s.avoided(now) {
			avoided = append(avoided, s)
		} else {
			fresh = append(fresh, s)
		}
	}
	return append(fresh, avoided...)
}

func (s *ldapServer) avoided(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.avoid)
}

func (s *ldapServer) note(avoid time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.avoid = avoid
}

// ask asks this server, over a connection that is there, or over a new one: a connection that was idle may have come to its end
// without a trace, so it gets half of the time.
func (s *ldapServer) ask(ctx context.Context, what purpose, do func(*ldap.Conn) error) error {
	pool := what(s)
	if conn := pool.take(); conn != nil {
		half, cancel := share(ctx, 2)
		err := conn.use(half, pool, do)
		cancel()
		if err == nil || errors.Is(err, errAmbiguous) {
			return err
		}
		pool.empty() // what else was idle may be as dead
	}
	conn, err := s.connect(ctx, pool == &s.searching)
	if err == nil {
		err = conn.use(ctx, pool, do)
	}
	if err != nil && (ctx.Err() == nil || errors.Is(context.Cause(ctx), errSlow)) {
		s.note(time.Now().Add(ldapAvoid)) // it has failed by itself, and not because the client has gone
	}
	return err
}

// connect makes a connection that is ready for its purpose.
func (s *ldapServer) connect(ctx context.Context, search bool) (*ldapConn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, s.address.Network, s.address.Address)
	if err != nil {
		return nil, because(ctx, err)
	}
	conn := &ldapConn{raw: raw}
	if s.tls != nil && !s.startTLS {
		inner := tls.Client(raw, s.tls)
		if err := inner.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("TLS: %w", because(ctx, err))
		}
		conn.Conn = ldap.NewConn(inner, true)
	} else {
		conn.Conn = ldap.NewConn(raw, false)
	}
	conn.Start()
	if err := conn.run(ctx, func(c *ldap.Conn) error { return s.prepare(c, search) }); err != nil {
		conn.cut()
		return nil, err
	}
	return conn, nil
}

// prepare begins TLS, and logs in where the connection is for searching. Without a bind it is anonymous (RFC 4513 section 5.1).
func (s *ldapServer) prepare(c *ldap.Conn, search bool) error {
	if s.startTLS {
		if err := c.StartTLS(s.tls); err != nil {
			return fmt.Errorf("STARTTLS: %w", err)
		}
	}
	if search && s.bindDN != "" {
		if err := c.Bind(s.bindDN, s.password); err != nil {
			return fmt.Errorf("binding as %q: %w", s.bindDN, err)
		}
	}
	return nil
}

// ldapConn is a connection for one question at a time.
type ldapConn struct {
	*ldap.Conn
	raw  net.Conn
	last time.Time // when it was used
}

// use asks one question; a connection that has answered it goes to the pool.
func (c *ldapConn) use(ctx context.Context, pool *ldapPool, do func(*ldap.Conn) error) error {
	err := c.run(ctx, do)
	if err != nil {
		c.cut()
	} else {
		pool.keep(c)
	}
	return err
}

// run ends with ctx at the latest, which leaves the connection unfit for anything more.
func (c *ldapConn) run(ctx context.Context, do func(*ldap.Conn) error) error {
	stop := context.AfterFunc(ctx, func() { c.raw.Close() })
	err := do(c.Conn)
	if !stop() && err != nil {
		return because(ctx, err)
	}
	return err
}

// cut ends a connection that is of no use any more.
func (c *ldapConn) cut() {
	c.raw.Close() // first: nothing waits for a server that hangs
	c.Conn.Close()
}

// leave ends a connection as RFC 4511 section 4.3 wants it.
func (c *ldapConn) leave() {
	_ = c.raw.SetDeadline(time.Now().Add(time.Second))
	_ = c.Unbind()
	c.cut()
}

// ldapPool keeps connections that are not in use.
type ldapPool struct {
	mu     sync.Mutex
	idle   []*ldapConn // the one used last is the last
	closed bool
}

// take returns the connection that was used last, or nil. Those that nobody has used for long are left.
func (p *ldapPool) take() *ldapConn {
	p.mu.Lock()
	var old []*ldapConn
	for len(p.idle) > 0 && (p.idle[0].IsClosing() || time.Since(p.idle[0].last) > ldapIdle) {
		old, p.idle = append(old, p.idle[0]), p.idle[1:]
	}
	var conn *ldapConn
	for conn == nil && len(p.idle) > 0 {
		end := len(p.idle) - 1
		conn, p.idle = p.idle[end], p.idle[:end]
		if conn.IsClosing() {
			old, conn = append(old, conn), nil
		}
	}
	p.mu.Unlock()
	for _, c := range old {
		c.leave()
	}
	return conn
}

// keep has a connection wait for its next use.
func (p *ldapPool) keep(c *ldapConn) {
	p.mu.Lock()
	if !p.closed && !c.IsClosing() {
		c.last = time.Now()
		p.idle = append(p.idle, c)
		c = nil
	}
	p.mu.Unlock()
	if c != nil {
		c.leave()
	}
}

// close has the connections end, those in use when they are given back.
func (p *ldapPool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.empty()
}

// empty leaves the connections.
func (p *ldapPool) empty() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		c.leave()
	}
}
