package integration

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
)

// store is a mail store: a real server behind jackdaw.
type store struct {
	*process
	name   string
	dir    string
	host   string // its address; its ports are those of every server
	user   string // the form in which it knows its users, as the configuration says it
	launch func() *process
}

func (s *store) imap() string  { return net.JoinHostPort(s.host, portIMAP) }
func (s *store) sieve() string { return net.JoinHostPort(s.host, portSieve) }

// backend is what jackdaw's configuration says of the store.
func (s *store) backend() string {
	return fmt.Sprintf("[[backend]]\nname = %q\nimap = %q\nsieve = %q\nuser = %q\n", s.name, s.imap(), s.sieve(), s.user)
}

// restart brings a store back that was stopped.
func (s *store) restart() { s.process = s.launch() }

// fail ends a store as a crash does. Its sockets close only when the last of its processes is gone, which is after the first.
func (s *store) fail(t testing.TB) {
	t.Helper()
	s.kill()
	for _, address := range []string{s.imap(), s.sieve()} {
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

// folder is a mailbox that every user of a store has there, to be known by.
func (s *store) folder() string { return "Only-on-" + s.name }
