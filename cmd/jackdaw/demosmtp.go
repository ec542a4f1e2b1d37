package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// serveSMTP takes mail: as submission from the store's user, for the users of all stores, and as LMTP for its own user from
// anybody.
func (s *demoStore) serveSMTP(socket net.Listener, lmtp bool) func() {
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		transaction := demoTransaction{store: s, lmtp: lmtp}
		if lmtp {
			return &transaction, nil
		}
		return &demoSubmission{transaction}, nil
	}))
	server.Domain = s.Store + ".invalid"
	server.LMTP = lmtp
	server.AllowInsecureAuth = true // the proxy is on the same machine
	server.MaxMessageBytes = 1 << 20
	server.MaxRecipients = 100
	server.ErrorLog = log.New(io.Discard, "", 0)
	go func() { _ = server.Serve(socket) }()
	return func() { _ = server.Close() }
}

// demoTransaction is a connection that delivers.
type demoTransaction struct {
	store    *demoStore
	lmtp     bool
	loggedIn bool
	to       []*demoStore
}

// demoSubmission is one that has to log in before.
type demoSubmission struct{ demoTransaction }

func (t *demoSubmission) AuthMechanisms() []string { return []string{sasl.Plain} }

func (t *demoSubmission) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(authzid, user, password string) error {
		if !t.store.login(user, password) || authzid != "" && authzid != user {
			return smtp.ErrAuthFailed
		}
		t.loggedIn = true
		return nil
	}), nil
}

func (t *demoTransaction) Mail(string, *smtp.MailOptions) error {
	if !t.lmtp && !t.loggedIn {
		return &smtp.SMTPError{Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "log in first"}
	}
	return nil
}

func (t *demoTransaction) Rcpt(address string, _ *smtp.RcptOptions) error {
	to, ok := t.store.post.find(address)
	if !ok || t.lmtp && to != t.store {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "nobody of that name lives here"}
	}
	t.to = append(t.to, to)
	return nil
}

func (t *demoTransaction) Data(r io.Reader) error {
	message, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	with := "ESMTPA"
	if t.lmtp {
		with = "LMTP"
	}
	message = append(fmt.Appendf(nil, "Received: by store %s with %s; %s\r\n", t.store.Store, with, time.Now().Format(time.RFC1123Z)), message...)
	for _, to := range t.to {
		if err := to.deliver(message); err != nil {
			return err
		}
	}
	return nil
}

func (t *demoTransaction) Reset() { t.to = nil }

func (t *demoTransaction) Logout() error { return nil }
