package main

import (
	"io"
	"log"
	"net"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"
	"github.com/emersion/go-imap/v2/imapserver/imapmemserver"
)

// The only user of the store.
const (
	user     = "user@store.example"
	password = "secret"
)

// startStore starts an IMAP store in memory.
func startStore() (address string, stop func(), err error) {
	memory := imapmemserver.New()
	memory.AddUser(imapmemserver.NewUser(user, password))
	server := imapserver.New(&imapserver.Options{
		NewSession: func(*imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
			return memory.NewSession(), nil, nil
		},
		Caps:         imap.CapSet{imap.CapIMAP4rev1: {}},
		InsecureAuth: true,
		Logger:       log.New(io.Discard, "", 0),
	})
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go func() { _ = server.Serve(socket) }()
	return socket.Addr().String(), func() { _ = server.Close() }, nil
}
