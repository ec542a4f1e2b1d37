package directories

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"jackdaw/configs"
)

// saslauthd asks Cyrus SASL's saslauthd on its unix socket, as libsasl does for Cyrus and for Postfix: one question on each
// connection. It tells nobody why it says no: a PAM or an LDAP that is broken behind it sounds like a wrong password.
type saslauthd struct {
	config configs.Auth
	closed atomic.Bool
}

func newSaslauthd(c configs.Auth) *saslauthd { return &saslauthd{config: c} }

// saslauthdServices are what Cyrus and Postfix call themselves, and so the names of files in /etc/pam.d.
var saslauthdServices = serviceNames{configs.IMAP: "imap", configs.POP3: "pop", configs.Sieve: "sieve", configs.Submission: "smtp"}

// Lookup verifies a password.
func (s *saslauthd) Lookup(ctx context.Context, q Query) (Answer, error) {
	if s.closed.Load() {
		return Answer{}, errClosed
	}
	q.Exchange = nil // nothing but a password can be said here
	if err := saslauthdServices.check(q); err != nil {
		return Answer{}, err
	}
	request := saslauthdRequest(q, s.config.Realm)
	if request == nil {
		return Answer{}, ErrDenied
	}
	right, err := s.ask(ctx, request)
	if err != nil {
		return Answer{}, fmt.Errorf("asking saslauthd at %s: %w", s.config.Socket, err)
	}
	if !right {
		return Answer{}, ErrDenied
	}
	return Answer{Verified: true}, nil
}

// Close makes further Lookups fail.
func (s *saslauthd) Close() { s.closed.Store(true) }

// maxSaslauthd is MAX_REQ_LEN in saslauthd's globals.h: to a longer field it says no without asking anybody.
const maxSaslauthd = 256

// saslauthdRequest writes login, password, service, realm and client, each a length in network order and as many octets; nil if
// one is too long to be right. Release 2.1.28 answers after the realm and passes over what follows, its development branch waits
// for the client, whose form is that of SASL_IPREMOTEPORT.
func saslauthdRequest(q Query, realm configs.AuthRealm) []byte {
	fields := []string{q.Local, q.Secret, saslauthdServices[q.Service.Protocol()], q.Domain, ""}
	if realm == configs.RealmJoined {
		fields[0], fields[3] = q.User, ""
	}
	if q.Client.IsValid() {
		fields[4] = fmt.Sprintf("%s;%d", q.Client.Unmap(), q.Port)
	}
	var request []byte
	for _, field := range fields {
		if len(field) > maxSaslauthd {
			return nil
		}
		request = binary.BigEndian.AppendUint16(request, uint16(len(field)))
		request = append(request, field...)
	}
	return request
}

// ask reports whether saslauthd says yes.
func (s *saslauthd) ask(ctx context.Context, request []byte) (bool, error) {
	ctx, cancel := withTimeout(ctx, s.config.Timeout)
	defer cancel()
	conn, err := dialUnix(ctx, s.config.Socket)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(request); err != nil {
		return false, because(ctx, err)
	}
	right, err := readSaslauthd(conn)
	return right, because(ctx, err)
}

// readSaslauthd reads an answer: a length in network order, and OK or NO with perhaps a word about it.
func readSaslauthd(r io.Reader) (right bool, err error) {
	var length [2]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return false, unanswered(err)
	}
	n := binary.BigEndian.Uint16(length[:])
	if n > 4*maxSaslauthd {
		return false, fmt.Errorf("an answer of %d octets", n)
	}
	answer := make([]byte, n)
	if _, err := io.ReadFull(r, answer); err != nil {
		return false, unanswered(err)
	}
	switch verdict, _, _ := bytes.Cut(answer, []byte(" ")); string(verdict) {
	case "OK":
		return true, nil
	case "NO":
		return false, nil
	}
	return false, errors.New("an answer that is neither OK nor NO")
}

func unanswered(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the connection ended before the answer")
	}
	return err
}
