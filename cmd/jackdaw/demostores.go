package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"

	"jackdaw/configs"
)

// demoStore is the mail store of one domain, in memory: one user, who has the same messages by IMAP and POP3.
type demoStore struct {
	*demoDomain
	mail *imapmemserver.User
	post demoPost
}

// demoPost delivers to the users of all stores, by their addresses.
type demoPost map[string]*demoStore

// find finds who has an address.
func (p demoPost) find(address string) (*demoStore, bool) {
	s, ok := p[strings.ToLower(address)]
	return s, ok
}

// deliver puts a message into the user's inbox.
func (s *demoStore) deliver(message []byte) error {
	_, err := s.mail.Append("INBOX", demoLiteral{strings.NewReader(string(message)), int64(len(message))}, &imap.AppendOptions{Time: time.Now()})
	return err
}

// demoLiteral is a message as IMAP's APPEND has it.
type demoLiteral struct {
	io.Reader
	size int64
}

func (l demoLiteral) Size() int64 { return l.size }

// login tells whether this is the user.
func (s *demoStore) login(user, password string) bool {
	return user == s.User() && password == s.Password
}

// startDemoStores starts the stores of all domains, and fills in their addresses.
func startDemoStores(domains []demoDomain) (stop func(), err error) {
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	post := make(demoPost)
	for i := range domains {
		s, err := newDemoStore(&domains[i], post)
		if err != nil {
			return stop, err
		}
		for protocol, serve := range s.servers() {
			socket, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return stop, err
			}
			s.Addresses[string(protocol)] = socket.Addr().String()
			stops = append(stops, serve(socket))
		}
	}
	return stop, nil
}

func newDemoStore(d *demoDomain, post demoPost) (*demoStore, error) {
	s := &demoStore{demoDomain: d, mail: imapmemserver.NewUser(d.User(), d.Password), post: post}
	d.Addresses = make(map[string]string)
	post[d.User()] = s
	for _, folder := range []string{"INBOX", "Sent", d.Folder} {
		if err := s.mail.Create(folder, nil); err != nil {
			return nil, err
		}
	}
	return s, s.deliver(fmt.Appendf(nil, "From: the demo <demo@%[1]s>\r\nTo: %[2]s\r\nSubject: Welcome to store %[3]s\r\n\r\n"+
		"This is all the mail that %[2]s has.\r\n", d.Domain, d.User(), d.Store))
}

// servers has what serves each protocol on a socket, until it is stopped.
func (s *demoStore) servers() map[configs.Service]func(net.Listener) (stop func()) {
	return map[configs.Service]func(net.Listener) func(){
		configs.IMAP:       s.serveIMAP,
		configs.POP3:       s.servePOP3,
		configs.Submission: func(socket net.Listener) func() { return s.serveSMTP(socket, false) },
		configs.Sieve:      s.serveSieve,
		configs.LMTP:       func(socket net.Listener) func() { return s.serveSMTP(socket, true) },
	}
}

func (s *demoStore) serveIMAP(socket net.Listener) func() {
	memory := imapmemserver.New()
	memory.AddUser(s.mail)
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return memory.NewSession(), nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}, imap.CapIMAP4rev2: {}},
		InsecureAuth: true, // the proxy is on the same machine
		Logger:       log.New(io.Discard, "", 0),
	})
	go func() { _ = server.Serve(socket) }()
	return func() { _ = server.Close() }
}

func (s *demoStore) serveSieve(socket net.Listener) func() {
	go serveDemoSieve(socket, &demoScripts{user: s.User(), password: s.Password, scripts: map[string]string{}})
	return func() { _ = socket.Close() }
}
