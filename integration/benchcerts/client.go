package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"time"

	"jackdaw/integration/measure"
)

// client shakes hands with servers, always in the same way: TLS 1.3, X25519, nothing resumed. Its methods may be called
// concurrently.
type client struct{ ca *authority }

// patience is how long one step of a conversation may take.
const patience = 30 * time.Second

// conn is a connection to a server, read by lines.
type conn struct {
	net.Conn
	lines *bufio.Reader
}

// shake asks a service of a server for a name, and returns the certificate. It does not come back before the server has
// finished, too: then it says something or hangs up.
func (c client) shake(ctx context.Context, s *measure.Server, service, name string) (*x509.Certificate, error) {
	conn, err := c.connect(ctx, s, service, name)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if service != "submission" { // where the client speaks first after STARTTLS
		_, _ = conn.lines.ReadByte()
	}
	return conn.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// connect leaves the connection open, right after the handshake. Its deadline is still to come.
func (c client) connect(ctx context.Context, s *measure.Server, service, name string) (*conn, error) {
	socket, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addresses[service])
	if err != nil {
		return nil, err
	}
	secure := tls.Client(socket, &tls.Config{
		ServerName:       name,
		RootCAs:          c.ca.roots,
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519},
	})
	if err = socket.SetDeadline(time.Now().Add(patience)); err == nil {
		err = startTLS(&conn{socket, bufio.NewReader(socket)}, service)
	}
	if err == nil {
		err = secure.HandshakeContext(ctx)
	}
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("%s of %s at %s: %w", service, name, s.Name(), err)
	}
	return &conn{secure, bufio.NewReader(secure)}, nil
}

// startTLS leads to the handshake. After its last line the server is silent, so that nothing is read that belongs to it.
func startTLS(c *conn, service string) error {
	switch service {
	case "submission":
		return c.converse("220 ", "EHLO bench.example\r\n", "250 ", "STARTTLS\r\n", "220 ")
	case "sieve":
		return c.converse("OK", "STARTTLS\r\n", "OK")
	}
	return nil
}

// converse takes turns: it waits for a line that begins like the first, says the second, and so on.
func (c *conn) converse(turns ...string) error {
	for i, turn := range turns {
		var err error
		if i%2 == 0 {
			_, err = c.await(turn)
		} else {
			_, err = c.Write([]byte(turn))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// await reads up to a line that begins with prefix, and returns it.
func (c *conn) await(prefix string) (string, error) {
	for {
		line, err := c.lines.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("waiting for %q: %w", prefix, err)
		}
		if strings.HasPrefix(line, prefix) {
			return line, nil
		}
	}
}

// expect fails unless a service shows this very certificate.
func (c client) expect(ctx context.Context, s *measure.Server, service string, r renewed) error {
	cert, err := c.shake(ctx, s, service, r.name)
	if err != nil {
		return err
	}
	if !bytes.Equal(cert.Raw, r.cert.Raw) {
		return fmt.Errorf("%s at %s shows the former certificate of %s", service, s.Name(), r.name)
	}
	return nil
}
