package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/relay"
	"jackdaw/internal/wire"
)

// lmtpDialogue talks LMTP to a client that brings mail (RFC 2033), from the first byte to the last: there is no login, and
// each recipient has a store of its own. It knows syntax; where the mail goes is the message's to know.
type lmtpDialogue struct {
	smtpTalk
	clock   countdown
	late    context.Context // ends some time after the session should
	greeted bool            // the client has said LHLO
	message *message        // nil before MAIL
	waiting []*answer       // to what the client has said, in that order, where it is not sent yet
	kept    couriers
	sent    int // messages
}

// answer is a reply that may have to wait for a store.
type answer struct {
	reply wire.Reply
	ready chan struct{}
}

func newAnswer() *answer { return &answer{ready: make(chan struct{})} }

// line is what the client reads. Where nobody came to say anything, something has crashed.
func (a *answer) line() string {
	if a.reply.Code == 0 {
		return wire.Reply{Code: 451, Lines: []string{unknown}}.Line()
	}
	return a.reply.Line()
}

// stopLimit is how long a message that is under way has when its session is to end. A variable, so that tests need not wait.
var stopLimit = 10 * time.Second

// deliver runs a session of LMTP. It takes the place of a login and of a relay.
func (s *session) deliver(ctx context.Context, raw net.Conn) {
	late, cancel := lateContext(ctx, stopLimit)
	defer cancel(nil)
	d := &lmtpDialogue{smtpTalk: smtpTalk{talk{session: s}}, late: late,
		clock: countdown{raw: raw, idle: s.settings.limits.IdleTimeout[s.settings.listener.Service], grace: stopLimit}}
	defer context.AfterFunc(ctx, d.clock.stop)()
	defer d.kept.leaving.Wait()
	defer d.kept.leave()
	defer d.abandon(errLeft) // after a crash
	err := d.serve(ctx, raw)
	switch {
	case errors.Is(err, errLogout):
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = relay.ErrIdle
	}
	d.abandon(err)
	s.part(raw, d, err)
	level := zap.InfoLevel
	if d.sent == 0 {
		level = s.levelOf(err)
	}
	s.write(level, "session", zap.Int("messages", d.sent), zap.Int64("received", d.received.Load()),
		zap.Duration("took", time.Since(s.began)), zap.String("reason", endOfDelivery(err)))
}

var errLeft = errors.New("client left")

// endOfDelivery says why a session ended, for the log.
func endOfDelivery(err error) string {
	if errors.Is(err, io.EOF) {
		return errLeft.Error()
	}
	return err.Error()
}

func (d *lmtpDialogue) Bye(r Reason) { d.say(strings.TrimSuffix(smtpBye(r), "\r\n")) }

// serve answers until the client leaves or must.
func (d *lmtpDialogue) serve(ctx context.Context, raw net.Conn) error {
	d.clock.wait(false)
	if err := d.arrive(raw); err != nil {
		return err
	}
	d.note(func() { d.stage = StateDelivery })
	d.say("220 ", d.hostname(), " LMTP ready")
	for {
		line, err := d.next(ctx)
		switch {
		case err == nil:
			err = d.command(line)
		case errors.Is(err, wire.ErrBadLine):
			// To the client, what stands behind a bare LF may be a part of an address: it is no command.
			d.settle()
			d.say("500 5.5.2 NUL, bare CR or bare LF in a line")
			err = errNonsense
		default:
			err = fatal(err)
		}
		if err != nil {
			return err
		}
	}
}

// next reads a line. Before it waits for one, all is answered that was asked.
func (d *lmtpDialogue) next(ctx context.Context) (string, error) {
	busy := d.message != nil && d.message.begun
	if !d.conn.HasLine() || ctx.Err() != nil {
		d.settle()
	}
	if ctx.Err() != nil && !busy {
		return "", context.Cause(ctx)
	}
	d.clock.wait(busy)
	return d.conn.ReadSMTP()
}

// settle sends the answers that are still to be sent. What is ready does not wait for what is not.
func (d *lmtpDialogue) settle() {
	for _, a := range d.waiting {
		select {
		case <-a.ready:
		default:
			d.flush()
			<-a.ready
		}
		d.say(a.line())
	}
	d.waiting = d.waiting[:0]
	d.flush()
}

// flush sends what is kept back. If that fails, so will the next read.
func (d *lmtpDialogue) flush() {
	d.clock.say()
	_ = d.conn.Flush()
}

// lmtpKnown are the extensions that a client and a store use through the proxy, which knows how to check and hand on what
// belongs to them. What it does itself, it does whatever the stores can.
var lmtpKnown = strings.Fields("8BITMIME SMTPUTF8 SIZE CHUNKING DSN")

// lmtpFallback is promised as long as no store was reached. RFC 2033 section 5 asks for it, and a client that does not find it
// rewrites mail, and breaks its signatures.
var lmtpFallback = backends.Capabilities{List: []backends.Capability{{Name: "8BITMIME"}}}

// lmtpPromise lists what the proxy does itself, and what all of the stores can do.
func lmtpPromise(caps backends.Capabilities) []backends.Capability {
	list := []backends.Capability{{Name: "PIPELINING"}, {Name: "ENHANCEDSTATUSCODES"}}
	for _, name := range lmtpKnown {
		value, ok := caps.Value(name)
		if _, err := strconv.ParseUint(value, 10, 64); name != "SIZE" || err != nil {
			value = ""
		}
		if ok {
			list = append(list, backends.Capability{Name: name, Value: value})
		}
	}
	return list
}

// lmtpCommands are the commands (RFC 5321 section 4.1.1). RCPT and DATA may come in one go with what is before and behind
// them; all others find everything answered.
var lmtpCommands = map[string]func(*lmtpDialogue, string) error{
	"LHLO":     (*lmtpDialogue).lhlo,
	"STARTTLS": (*lmtpDialogue).startTLS,
	"MAIL":     (*lmtpDialogue).mail,
	"RCPT":     (*lmtpDialogue).rcpt,
	"DATA":     (*lmtpDialogue).data,
	"BDAT":     (*lmtpDialogue).bdat,
	"RSET":     (*lmtpDialogue).rset,
	"NOOP":     (*lmtpDialogue).noop,
	"VRFY":     (*lmtpDialogue).vrfy,
	"HELP":     (*lmtpDialogue).help,
	"QUIT":     (*lmtpDialogue).quit,
}

func (d *lmtpDialogue) command(line string) error {
	verb, args, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	if verb != "RCPT" {
		d.settle()
	}
	handle, ok := lmtpCommands[verb]
	switch {
	case ok:
		return handle(d, strings.TrimRight(args, " "))
	case verb == "EHLO" || verb == "HELO": // RFC 2033 section 4.1
		return d.mistaken("500 5.5.1 This is LMTP; say LHLO")
	case fromBrowser(wire.NewArgs(line)):
		return errNonsense
	}
	return d.mistaken("500 5.5.1 Command unknown")
}

func (d *lmtpDialogue) lhlo(name string) error {
	d.abandon(nil) // RFC 5321 section 4.1.4
	d.kept.leave() // their stores were told of the client by its last name
	if !d.hello(name) {
		return d.mistaken("501 5.5.4 LHLO needs the name of a host")
	}
	caps, known := d.settings.router.Announced(d.settings.listener.Service, d.peer)
	if !known {
		caps = lmtpFallback
	}
	d.greeted, d.promised = true, lmtpPromise(caps)
	lines := []string{d.hostname()}
	for _, c := range d.promised {
		lines = append(lines, c.String())
	}
	if d.canStartTLS() {
		lines = append(lines, "STARTTLS")
	}
	d.list(lines)
	return nil
}

// canStartTLS tells whether the listener has TLS, and whether it makes sense.
func (d *lmtpDialogue) canStartTLS() bool {
	return d.settings.listener.TLS == configs.TLSStartTLS && d.talk.canStartTLS()
}

func (d *lmtpDialogue) startTLS(args string) error {
	switch {
	case args != "":
		return d.mistaken("501 5.5.4 STARTTLS takes no argument")
	case d.peer.TLS != 0:
		return d.mistaken("503 5.5.1 TLS is active")
	case !d.canStartTLS():
		return d.mistaken("502 5.5.1 No TLS here")
	}
	// RFC 3207 section 4.2: all is as after the greeting.
	d.abandon(nil)
	d.kept.leave()
	d.greeted, d.promised, d.peer.Hello = false, nil, ""
	d.say("220 2.0.0 begin TLS")
	return d.handshake()
}

// mail begins a message.
func (d *lmtpDialogue) mail(args string) error {
	switch {
	case !d.greeted:
		return d.mistaken("503 5.5.1 LHLO first")
	case d.message != nil && len(d.message.accepted()) > 0:
		return d.mistaken("503 5.5.1 A message has begun already")
	}
	d.abandon(nil) // there is nobody whom the last one could go to
	from, params, err := d.readMail(args)
	if err != nil {
		d.say(replyTo(err, unknown).Line())
		return nil // the mail is at fault, not who brings it
	}
	d.message = newMessage(d, from, params)
	d.say("250 2.1.0 Sender noted")
	return nil
}

// rcpt adds a recipient. Its store is asked while the client goes on.
func (d *lmtpDialogue) rcpt(args string) error {
	a := newAnswer()
	d.waiting = append(d.waiting, a)
	if err := d.message.add(a, args); err != nil {
		a.reply = replyTo(err, unknown)
		close(a.ready)
	}
	return nil
}

func (d *lmtpDialogue) rset(args string) error {
	if args != "" {
		return d.mistaken("501 5.5.4 RSET takes no argument")
	}
	d.abandon(nil)
	d.say("250 2.0.0 done")
	return nil
}

func (d *lmtpDialogue) noop(string) error {
	d.say("250 2.0.0 done")
	return nil
}

// vrfy tells nothing (RFC 5321 section 3.5.3).
func (d *lmtpDialogue) vrfy(string) error {
	d.say("252 2.1.5 Cannot tell; send the message and see")
	return nil
}

func (d *lmtpDialogue) help(string) error {
	d.say("214 2.0.0 RFC 2033 tells")
	return nil
}

func (d *lmtpDialogue) quit(args string) error {
	if args != "" {
		return d.mistaken("501 5.5.4 QUIT takes no argument")
	}
	d.say("221 2.0.0 ", d.hostname(), " closes")
	return errLogout
}
