package backends

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-sasl"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// Clients wait for our answers as long as RFC 5321 section 4.5.3.2 tells them to; a store must be done before that. Variables,
// so that tests need not wait.
var (
	stallLimit   = time.Minute     // for a store to answer a command, or to take a part of a message
	resetLimit   = 5 * time.Second // to forget a message
	verdictLimit = 9 * time.Minute // for each recipient, to say what has become of the message
)

// Courier is a connection to an LMTP store, over which messages go one after the other (RFC 2033). What it returns as a reply
// is about the mail, and is the store's to say; an error is about everything else, and the mail must come again. Close may
// be called at any time, the rest is for one goroutine.
type Courier struct {
	Address configs.Address // where it leads
	conn    *wire.Conn
	caps    Capabilities
	broken  error // why nothing can be said any more
}

// Parameter is what follows the address of MAIL or RCPT, checked.
type Parameter struct {
	Name, Value string
	Needs       string // what a store must have announced
	Optional    bool   // to a store that has not, the message can go without it
}

// Connect opens a connection for mail, and tells the store of the client that brings it. Where the store has AUTH and the
// proxy has a name there, it says so. A store that has none is asked all the same: on its unix socket Cyrus trusts everybody,
// on TCP it refuses the mail by itself, and a name that was not said is no secret lost.
func (s *Service) Connect(ctx context.Context, peer Peer) (*Courier, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, loginLimit, errSlow)
	defer cancel()
	conn, caps, p, err := s.open(ctx, Opening{Client: &peer})
	if err != nil {
		return nil, err
	}
	s.learn(caps)
	if s.Access.LoginUser != "" && slices.Contains(caps.Mechanisms, sasl.Plain) {
		err := within(ctx, loginLimit, conn, "logging in at "+p.address.String(), func(context.Context) error {
			_, err := s.store.Login(conn, caps, &Plain{User: s.Access.LoginUser, Password: s.Access.LoginPassword, onBehalf: true})
			return undenied(err)
		})
		if err != nil {
			conn.Close()
			return nil, err
		}
	}
	return &Courier{Address: p.address, conn: conn, caps: caps}, nil
}

// Begin says MAIL, over a connection that is kept from another message if there is one. If that is of no use any more, another
// takes its place: nothing was said yet that a store might act on.
func (s *Service) Begin(ctx context.Context, kept *Courier, peer Peer, from wire.Path, params []Parameter) (
	*Courier, wire.Reply, error,
) {
	if kept != nil {
		if reply, err := kept.mail(ctx, from, params); err == nil {
			return kept, reply, nil
		}
		kept.Close()
	}
	c, err := s.Connect(ctx, peer)
	if err != nil {
		return nil, wire.Reply{}, &Unreached{s, time.Now(), err}
	}
	reply, err := c.mail(ctx, from, params)
	if err != nil {
		c.Close()
		return nil, wire.Reply{}, fmt.Errorf("store at %s: %w", c.Address, err)
	}
	return c, reply, nil
}

func (c *Courier) mail(ctx context.Context, from wire.Path, params []Parameter) (wire.Reply, error) {
	return c.command(ctx, "MAIL FROM:"+from.String(), params)
}

// Rcpt names a recipient.
func (c *Courier) Rcpt(ctx context.Context, to wire.Path, params []Parameter) (wire.Reply, error) {
	return c.command(ctx, "RCPT TO:"+to.String(), params)
}

const data = "DATA"

// Data begins the message, if it is answered by 354.
func (c *Courier) Data(ctx context.Context) (wire.Reply, error) { return c.command(ctx, data, nil) }

// Chunk announces octets of a message, to be written next (RFC 3030 section 2).
func (c *Courier) Chunk(size uint64, last bool) error {
	if !c.caps.Has("CHUNKING") {
		return fmt.Errorf("%w: CHUNKING", ErrBroken)
	}
	c.conn.Send("BDAT ", strconv.FormatUint(size, 10))
	if last {
		c.conn.Send(" LAST")
	}
	c.conn.Send("\r\n")
	return nil
}

// Write sends a part of a message as it is.
func (c *Courier) Write(ctx context.Context, p []byte) error {
	return c.do(ctx, stallLimit, "sending the message", func() error {
		_, err := c.conn.Write(p)
		return err
	})
}

// Taken reads what the store says of a chunk that is not the last.
func (c *Courier) Taken(ctx context.Context) (wire.Reply, error) {
	return c.reply(ctx, stallLimit, "BDAT")
}

// Verdict reads what has become of the message for the next of the recipients that the store has accepted.
func (c *Courier) Verdict(ctx context.Context) (wire.Reply, error) {
	return c.reply(ctx, verdictLimit, "end of the message")
}

// Reset makes the store forget a message that it has not got in full.
func (c *Courier) Reset(ctx context.Context) error {
	c.conn.Send("RSET\r\n")
	reply, err := c.reply(ctx, resetLimit, "RSET")
	if err == nil && !reply.Positive() {
		err = refusalOf(reply)
	}
	return err
}

// Fit reports whether another message can go this way. A store that has spoken without being asked would answer the next
// command before it was said.
func (c *Courier) Fit() bool { return c.broken == nil && !c.conn.HasLine() }

// Leave says goodbye.
func (c *Courier) Leave() {
	leave(c.conn, "QUIT\r\n")
	c.Close()
}

// Close ends the connection, in the middle of a message as well: without its end no store takes it.
func (c *Courier) Close() { c.conn.Close() }

// command says a command with parameters.
func (c *Courier) command(ctx context.Context, command string, params []Parameter) (wire.Reply, error) {
	what, _, _ := strings.Cut(command, " ")
	for _, p := range params {
		switch {
		case c.caps.Has(p.Needs):
			command += " " + p.Name
			if p.Value != "" {
				command += "=" + p.Value
			}
		case !p.Optional:
			return wire.Reply{}, fmt.Errorf("%w: %s for %s", ErrBroken, p.Needs, p.Name)
		}
	}
	c.conn.Send(command, "\r\n")
	return c.reply(ctx, stallLimit, what)
}

var errGoodbye = errors.New("store closes the connection")

// reply reads a reply that is about the mail.
func (c *Courier) reply(ctx context.Context, limit time.Duration, what string) (wire.Reply, error) {
	var reply wire.Reply
	err := c.do(ctx, limit, what, func() (err error) {
		reply, err = c.conn.ReadReply()
		switch {
		case err != nil:
		case reply.Code == 421: // RFC 5321 section 3.8: to any command
			err = fmt.Errorf("%w: %w", errGoodbye, refusalOf(reply))
		case reply.Code < 400 && (what == data && reply.Code != 354 || what != data && !reply.Positive()):
			err = fmt.Errorf("answer does not fit: %w", refusalOf(reply))
		}
		return err
	})
	if reply.Positive() {
		reply.Code = 250 // 251 and 252 are no more and no less (RFC 5321 section 3.4)
	}
	if err == nil && slices.Contains(aboutUs, reply.Code) {
		err = fmt.Errorf("%s: %w", what, refusalOf(reply))
	}
	return reply, err
}

// aboutUs are the codes that say nothing of the mail: authentication or TLS is missing (RFC 4954 section 6, RFC 3207 section
// 4; 430 is Cyrus'), or the store does not understand the proxy (RFC 5321 section 4.2.2). With such a store somebody has to do
// something, but no mail must be lost for it.
var aboutUs = []int{430, 432, 454, 500, 502, 503, 504, 530, 534, 535, 538, 555}

// refusalOf makes an error of a reply.
func refusalOf(r wire.Reply) error { return undenied(smtpRefusal(r)) }

// do takes a step on the connection. If that fails, nobody knows what the store has heard, and nothing more is said.
func (c *Courier) do(ctx context.Context, limit time.Duration, what string, step func() error) error {
	if c.broken == nil {
		if c.broken = within(ctx, limit, c.conn, what, func(context.Context) error { return step() }); c.broken != nil {
			c.Close()
		}
	}
	return c.broken
}
