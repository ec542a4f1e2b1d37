package integration

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
)

// store is a mail store: a real server behind jackdaw.
type store struct {
	*process
	name     string
	server   string // the name that it has itself, where this is another backend for it
	dir      string
	host     string   // its address; its ports are those of every server
	proxied  string   // another address with the same ports, where it takes nothing without a PROXY header
	user     string   // the form in which it knows its users, as the configuration says it
	services []string // what jackdaw is told of it
	launch   func() *process
}

// serving has jackdaw told of these services of the store, in place of IMAP and ManageSieve.
func (s *store) serving(services ...string) *store {
	s.services = services
	return s
}

func (s *store) at(port string) string { return net.JoinHostPort(s.host, port) }

func (s *store) imap() string       { return s.at(portIMAP) }
func (s *store) pop3() string       { return s.at(portPOP3) }
func (s *store) submission() string { return s.at(portSubmission) }
func (s *store) sieve() string      { return s.at(portSieve) }
func (s *store) lmtp() string       { return s.at(portLMTP) }
func (s *store) smtp() string       { return s.at(portSMTP) }

// lmtpSocket is where Dovecot and Cyrus take deliveries, too.
func (s *store) lmtpSocket() string { return s.dir + "/lmtp" }

// backend is what jackdaw's configuration says of the store, with more lines for this backend.
func (s *store) backend(lines ...string) string { return s.backendAt(s.host, lines...) }

// backendAt is backend with another of the store's addresses.
func (s *store) backendAt(host string, lines ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[[backend]]\nname = %q\nuser = %q\n", s.name, s.user)
	for _, service := range s.services {
		fmt.Fprintf(&b, "%s = %q\n", service, net.JoinHostPort(host, ports()[service]))
	}
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	return b.String()
}

// as is a line for another backend, which offers this service of this store.
func (s *store) as(service string) string {
	return fmt.Sprintf("%s = %q", service, s.at(ports()[service]))
}

// named is the same store as another backend, for some services.
func (s *store) named(name string, services ...string) *store {
	other := *s
	other.name, other.server, other.services = name, cmp.Or(s.server, s.name), services
	return &other
}

// proxying is the same store as another backend, at the address where it wants PROXY headers.
func (s *store) proxying() *store {
	other := s.named(s.name+"-proxied", s.services...)
	other.host = s.proxied
	return other
}

// within is a line for a backend whose protocols are all within TLS, or behind STARTTLS.
func (s *store) within(mode string) string {
	name := "store.example"
	return fmt.Sprintf("tls = %q\ntls_name = %q\ntls_ca = %q", mode, name, s.dir+"/ca.pem")
}

// restart brings a store back that was stopped.
func (s *store) restart() { s.process = s.launch() }

// fail ends a store as a crash does. Its sockets close only when the last of its processes is gone, which is after the first.
func (s *store) fail(t testing.TB) {
	t.Helper()
	s.kill()
	for _, service := range s.services {
		address := s.at(ports()[service])
		eventually(t, address+" refuses connections", func() bool {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				conn.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
	}
}

// password is that of every user.
const password = "secret"

// What a store lets a proxy do: the proxy's account may log in as any user, on Dovecot also by the name user*proxy. The
// other account may deliver to Cyrus over TCP.
const (
	proxyUser     = "proxy"
	lmtpUser      = "lmtp"
	proxyPassword = "proxy-secret"
)

// fullUser is the local part of a user whose mailbox is full.
const fullUser = "full"

// folder is a mailbox that every user of a store has there, to be known by.
func (s *store) folder() string { return "Only-on-" + cmp.Or(s.server, s.name) }
