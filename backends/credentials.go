package backends

import (
	"errors"

	"github.com/emersion/go-sasl"

	"jackdaw/configs"
)

// Plain is SASL PLAIN (RFC 4616): name and password as a client gave them, or as the proxy has them itself.
type Plain struct {
	Authzid  string // whom to act for; "" for User
	User     string
	Password string
	onBehalf bool // name and password are the proxy's own
}

// Start returns the one message of the mechanism.
func (p *Plain) Start() (string, []byte, error) {
	return sasl.Plain, []byte(p.Authzid + "\x00" + p.User + "\x00" + p.Password), nil
}

// Next fails: PLAIN has no challenges.
func (p *Plain) Next([]byte) ([]byte, error) { return nil, errors.New("challenge to PLAIN") }

// XCLIENT stands for a login without any exchange: the XCLIENT command has said already who it is.
type XCLIENT struct{}

// Start fails: nothing is left to say.
func (*XCLIENT) Start() (string, []byte, error) {
	return "", nil, errors.New("XCLIENT is no mechanism")
}

// Next fails as Start does.
func (*XCLIENT) Next([]byte) ([]byte, error) { return nil, errors.New("challenge to XCLIENT") }

// What keeps a user from entering a store whom a route has brought there.
var (
	// ErrUnverified means that the store takes the proxy's word for its users, and nobody has verified this one.
	ErrUnverified = errors.New("the store takes the proxy's word for the user, and nobody has verified the password")
	// ErrNoPassword means that the user was verified without a password, and the store wants to hear one.
	ErrNoPassword = errors.New("the store wants a password, and the user was verified without one; its login should be authzid or master")
	// ErrNoEntry means that the proxy has verified the user, and the store does not take its word.
	ErrNoEntry = errors.New("backend has no external_login for users without a password")
)

// OnBehalf makes what the proxy itself says to let a user in whom it has verified. name is in the store's form.
func OnBehalf(access configs.Access, form configs.LoginForm, name string) (sasl.Client, error) {
	switch form {
	case configs.LoginAuthzid:
		return &Plain{Authzid: name, User: access.LoginUser, Password: access.LoginPassword, onBehalf: true}, nil
	case configs.LoginMaster:
		return &Plain{User: name + "*" + access.LoginUser, Password: access.LoginPassword, onBehalf: true}, nil
	case configs.LoginXCLIENT:
		return &XCLIENT{}, nil
	}
	return nil, ErrNoEntry
}

// isOnBehalf tells that the store is entered on the proxy's word.
func isOnBehalf(m sasl.Client) bool {
	switch m := m.(type) {
	case *XCLIENT:
		return true
	case *Plain:
		return m.onBehalf
	}
	return false
}
