package directories

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// Dovecot asks Dovecot's auth service, in the words of its own login processes. All questions go over one connection, at the same
// time, and over a new one when that is gone or has become old.
//
// Its passdb may say, along with its yes, where the user's mail lives and as whom to log in there: host, port, destuser and pass
// of a proxy, or a host to log in at instead.
//
// https://doc.dovecot.org/2.4.4/developers/design/auth_protocol.html
type Dovecot struct {
	config  configs.Auth
	log     *zap.Logger
	dialing chan struct{} // who makes a connection has put something in
	running sync.WaitGroup
	stop    context.CancelFunc

	mu     sync.Mutex
	conn   *dovecotConn // nil before the first
	offers []string     // mechanisms; nil while nobody answers
	up     bool         // the log says that it is connected
	closed bool
}

// dovecotLook is how often Dovecot is asked what it offers. A variable, so that tests need not wait.
var dovecotLook = 10 * time.Second

// NewDovecot makes a verifier, which learns in the background what Dovecot offers.
func NewDovecot(c configs.Auth, log *zap.Logger) *Dovecot {
	d := &Dovecot{config: c, log: log.With(zap.String("socket", c.Socket)), dialing: make(chan struct{}, 1)}
	var ctx context.Context
	ctx, d.stop = context.WithCancel(context.Background())
	d.running.Go(func() { d.watch(ctx) })
	return d
}

// AsDovecot returns the Dovecot behind a verifier, which has more to offer than Lookup.
func AsDovecot(verifier Directory) (d *Dovecot, ok bool) {
	d, ok = uncached(verifier).(*Dovecot)
	return d, ok
}

// dovecotServices are what Dovecot's login processes call themselves, and Postfix calls itself there.
var dovecotServices = serviceNames{configs.IMAP: "imap", configs.POP3: "pop3", configs.Sieve: "sieve", configs.Submission: "smtp"}

// Lookup verifies a password, or hands an exchange on, by any mechanism that Dovecot offers. The last challenge of that may say
// that all is well, as SCRAM's does.
func (d *Dovecot) Lookup(ctx context.Context, q Query) (Answer, error) {
	if err := dovecotServices.check(q); err != nil {
		return Answer{}, err
	}
	if q.Exchange == nil {
		q.Mechanism = "PLAIN"
		q.Exchange = &Exchange{Name: q.User, First: []byte("\x00" + q.User + "\x00" + q.Secret), Ask: func([]byte) ([]byte, error) {
			return nil, d.failed(errors.New("a challenge to PLAIN"))
		}}
	}
	if q.Exchange.Name != q.User { // Dovecot would take somebody else for the user
		return Answer{}, fmt.Errorf("%w: Dovecot would be asked about %q", ErrDenied, q.Exchange.Name)
	}
	return d.converse(ctx, q)
}

// converse hands challenges to the client and its responses to Dovecot, until that has decided.
func (d *Dovecot) converse(ctx context.Context, q Query) (Answer, error) {
	question, reply, err := d.begin(ctx, q)
	if err != nil {
		return Answer{}, d.failed(err)
	}
	defer question.end()
	for reply.verdict == "CONT" {
		challenge, err := reply.challenge()
		if err != nil {
			return Answer{}, d.failed(err)
		}
		response, err := q.Exchange.Ask(challenge)
		if err != nil {
			return Answer{}, err
		}
		if reply, err = question.goOn(ctx, response); err != nil {
			return Answer{}, d.failed(err)
		}
	}
	answer, err := reply.answer(q)
	return answer, d.failed(err)
}

// Offers are the mechanisms that Dovecot has named when it was last connected; none while it is down.
func (d *Dovecot) Offers() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.offers
}

// Learn connects, if it has to, for Offers.
func (d *Dovecot) Learn(ctx context.Context) error {
	ctx, cancel := withTimeout(ctx, d.config.Timeout)
	defer cancel()
	_, _, err := d.connection(ctx)
	return d.failed(err)
}

// watch keeps what is known of Dovecot fresh.
func (d *Dovecot) watch(ctx context.Context) {
	for {
		if d.Learn(ctx) != nil {
			d.mu.Lock()
			d.offers = nil
			d.mu.Unlock()
		}
		select {
		case <-time.After(dovecotLook):
		case <-ctx.Done():
			return
		}
	}
}

// Close ends the connection, and fails the questions that are asked over it.
func (d *Dovecot) Close() {
	d.stop()
	d.mu.Lock()
	d.closed = true
	conn := d.conn
	d.mu.Unlock()
	if conn != nil {
		conn.fail(errClosed)
	}
	d.running.Wait()
}

func (d *Dovecot) failed(err error) error {
	if err == nil || errors.Is(err, ErrDenied) {
		return err
	}
	return fmt.Errorf("asking Dovecot at %s: %w", d.config.Socket, err)
}

// begin asks, and asks once more where a connection that was there before has ended: Dovecot may have been restarted.
func (d *Dovecot) begin(ctx context.Context, q Query) (*question, reply, error) {
	ctx, cancel := withTimeout(ctx, d.config.Timeout)
	defer cancel()
	for again := false; ; again = true {
		conn, made, err := d.connection(ctx)
		if err != nil {
			return nil, reply{}, err
		}
		question, r, err := conn.begin(ctx, q)
		if err == nil || again || made || !conn.ended() || ctx.Err() != nil {
			return question, r, err
		}
	}
}

// connection returns the connection, and whether it was made for this question.
func (d *Dovecot) connection(ctx context.Context) (conn *dovecotConn, made bool, err error) {
	select {
	case d.dialing <- struct{}{}:
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	defer func() { <-d.dialing }()
	if conn, err := d.current(); conn != nil || err != nil {
		return conn, false, err
	}
	conn, err = dialDovecot(ctx, d.config)
	if err != nil {
		return nil, false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		conn.fail(errClosed)
		return nil, false, errClosed
	}
	if !d.up {
		d.log.Info("Dovecot's auth service is connected", zap.Strings("mechanisms", conn.mechanisms))
	}
	d.conn, d.offers, d.up = conn, conn.mechanisms, true
	d.running.Go(func() { d.listen(conn) })
	return conn, true, nil
}

// current returns the connection, nil if there is none.
func (d *Dovecot) current() (*dovecotConn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if d.conn == nil || d.conn.ended() {
		return nil, nil
	}
	return d.conn, nil
}

func (d *Dovecot) listen(conn *dovecotConn) {
	err := conn.listen()
	if errors.Is(err, errClosed) || errors.Is(err, errRetired) {
		return
	}
	d.log.Warn("Dovecot's auth service is not connected any more", zap.Error(err))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.up = false
}

// authLine asks whether a client is who it says. What it has said itself stands at the end, where it cannot become anything else.
func authLine(id uint32, q Query) string {
	var b strings.Builder
	fmt.Fprintf(&b, "AUTH\t%d\t%s", id, q.Mechanism)
	field := func(key, value string) {
		if value != "" {
			b.WriteString("\t" + key + "=" + toField.Replace(value))
		}
	}
	field("service", dovecotServices[q.Service.Protocol()])
	if q.TLS != 0 {
		field("secured", "tls")
	}
	field("session", q.Session)
	if q.Client.IsValid() {
		field("rip", q.Client.Unmap().String())
		field("rport", strconv.Itoa(int(q.Port)))
	}
	if q.Address.IsValid() {
		field("lip", q.Address.Addr().Unmap().String())
		field("lport", strconv.Itoa(int(q.Address.Port())))
	}
	field("local_name", q.SNI)
	b.WriteString("\tresp=" + wire.EncodeBase64(q.Exchange.First) + "\n")
	return b.String()
}

// answer reads OK and FAIL.
func (r reply) answer(q Query) (Answer, error) {
	if r.verdict != "OK" {
		return Answer{}, r.refusal()
	}
	_, nologin := r.fields["nologin"]
	_, proxy := r.fields["proxy"]
	switch {
	case (nologin || proxy) && r.fields["host"] != "":
		return r.proxied(q)
	case nologin:
		// The password was right, and "such a reply" is to be treated "exactly like FAIL".
		return Answer{}, fmt.Errorf("%w: nologin%s", ErrDenied, r.reason())
	case proxy:
		return Answer{}, errors.New("a proxy without a host")
	}
	user, err := otherName(q, r.fields["user"])
	if err != nil {
		return Answer{}, err
	}
	return Answer{User: user, Verified: true}, nil
}

// proxied is the answer for a user whose mail lives on another host.
func (r reply) proxied(q Query) (Answer, error) {
	if r.fields["master"] != "" {
		return Answer{}, errors.New("a proxy with a master user, whom nobody could log in as")
	}
	answer := Answer{Backend: r.fields["host"], Verified: true}
	if !validName(answer.Backend) || strings.ContainsAny(answer.Backend, " /") {
		return Answer{}, errors.New("a proxy to what is no host")
	}
	if port := r.fields["port"]; port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return Answer{}, errors.New("a proxy to what is no port")
		}
		answer.Backend = net.JoinHostPort(answer.Backend, port)
	}
	var err error
	if answer.User, err = otherName(q, cmp.Or(r.fields["destuser"], r.fields["user"])); err != nil {
		return Answer{}, err
	}
	if password := r.fields["pass"]; password != q.Secret {
		answer.Password = password
	}
	if strings.ContainsAny(answer.Password, "\x00\r\n") {
		return Answer{}, errors.New("a proxy with a password that cannot be said")
	}
	return answer, nil
}

// otherName is the name that Dovecot knows the user by, "" if that is ours.
func otherName(q Query, name string) (string, error) {
	switch {
	case name == "" || name == q.User:
		return "", nil
	case !validName(name):
		return "", errors.New("a user's name that is none")
	}
	return name, nil
}

// refusal tells a wrong password, a user who is disabled and a password that has expired from a database that is down.
func (r reply) refusal() error {
	_, temporary := r.fields["temp"] // as versions before 2.2.28 say it
	if code := r.fields["code"]; code == "temp_fail" || temporary {
		return fmt.Errorf("a temporary failure%s", r.reason())
	} else if code != "" {
		return fmt.Errorf("%w: %.100q%s", ErrDenied, code, r.reason())
	}
	return ErrDenied
}

// reason is what Dovecot wants the client to hear, for the log.
func (r reply) reason() string {
	if reason := r.fields["reason"]; reason != "" {
		return fmt.Sprintf(" (%.200q)", reason)
	}
	return ""
}
