package integration

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// tap stands between jackdaw and a store, and keeps what is said there.
type tap struct {
	listeners []net.Listener

	mu    sync.Mutex
	calls []*call
}

// call is one connection through a tap.
type call struct {
	tap      *tap
	port     string
	up, down []byte // to the store, and from it
}

// tapped is the store behind a tap.
func (s *store) tapped(t testing.TB) (*store, *tap) {
	t.Helper()
	x, behind := new(tap), *s
	behind.host = newHost()
	for _, service := range s.services {
		port := ports()[service]
		listener, err := net.Listen("tcp", behind.at(port))
		if err != nil {
			t.Fatal(err)
		}
		x.listeners = append(x.listeners, listener)
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go x.connect(conn, port, s.at(port))
			}
		}()
	}
	t.Cleanup(x.close)
	return &behind, x
}

// close lets nobody through any more. Who has got through stays.
func (x *tap) close() {
	for _, listener := range x.listeners {
		listener.Close()
	}
}

// connect carries bytes until both sides are done.
func (x *tap) connect(client net.Conn, port, address string) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer server.Close()
	c := &call{tap: x, port: port}
	x.mu.Lock()
	x.calls = append(x.calls, c)
	x.mu.Unlock()
	var copies sync.WaitGroup
	copies.Go(func() { c.carry(server, client, &c.up) })
	copies.Go(func() { c.carry(client, server, &c.down) })
	copies.Wait()
}

// carry writes down what passes before it does.
func (c *call) carry(dst, src net.Conn, kept *[]byte) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := src.Read(buffer)
		c.tap.mu.Lock()
		*kept = append(*kept, buffer[:n]...)
		c.tap.mu.Unlock()
		if n > 0 {
			if _, err := dst.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err == io.EOF {
			_ = dst.(*net.TCPConn).CloseWrite()
			return
		} else if err != nil {
			return
		}
	}
}

// heard is what was said on connections for a service, to the store and by it.
func (x *tap) heard(service string) (calls []call) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, c := range x.calls {
		if c.port == ports()[service] {
			calls = append(calls, call{up: append([]byte(nil), c.up...), down: append([]byte(nil), c.down...)})
		}
	}
	return calls
}

// told is all that the store was told on connections for a service.
func (x *tap) told(service string) string {
	var all strings.Builder
	for _, c := range x.heard(service) {
		all.Write(c.up)
		all.WriteString("\n")
	}
	return all.String()
}
