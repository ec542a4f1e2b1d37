package integration

import (
	"fmt"
	"net"
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

// password is that of every user.
const password = "secret"

// folder is a mailbox that every user of a store has there, to be known by.
func (s *store) folder() string { return "Only-on-" + s.name }
