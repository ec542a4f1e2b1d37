package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/internal/wire"
)

// What one message may ask for. RFC 5321 section 4.5.3.1.8 wants 100 recipients at least.
const (
	maxRecipients = 1000
	maxStores     = 100
)

// message is mail on its way: who it is from, and for each store that it goes to a delivery.
type message struct {
	dialogue   *lmtpDialogue
	from       wire.Path
	params     []backends.Parameter
	ctx        context.Context // its end cuts all deliveries off
	cancel     context.CancelCauseFunc
	recipients []*recipient // in the order in which they were named
	deliveries []*delivery
	begun      bool // something of the message has come, or is to come
	size       int64
	spoiled    error // why it goes to nobody
}

// recipient is one RCPT.
type recipient struct {
	user    string    // canonical
	address wire.Path // as the store wants it
	params  []backends.Parameter
	mailbox backends.Mailbox
	place   backends.Placement // until the message is done
	heard   *answer            // to RCPT
	verdict *answer            // on the message, for whom the store has accepted
}

func newMessage(d *lmtpDialogue, from wire.Path, params []backends.Parameter) *message {
	m := &message{dialogue: d, from: from, params: params}
	m.ctx, m.cancel = context.WithCancelCause(d.late)
	return m
}

var (
	errSequence = &replyError{503, "5.5.1 MAIL first"}
	errBegun    = &replyError{503, "5.5.1 The message has begun already"}
	errMany     = &replyError{452, "4.5.3 Too many recipients for one message"}
	errSpread   = &replyError{452, "4.5.3 Too many stores for one message"}
)

// add names a recipient, and has the store asked.
func (m *message) add(heard *answer, args string) error {
	switch {
	case m == nil:
		return errSequence
	case m.begun:
		return errBegun
	case len(m.recipients) == maxRecipients:
		return errMany
	}
	_, utf8 := find(m.params, "SMTPUTF8")
	to, params, err := m.dialogue.readRcpt(args, utf8)
	if err != nil {
		return err
	}
	r := &recipient{params: params, heard: heard, verdict: newAnswer()}
	if err := m.place(r, to); err != nil {
		r.place.Release()
		m.logRefused(to, err)
		return err
	}
	d, err := m.delivery(r.place.Service)
	if err != nil {
		r.place.Release()
		return err
	}
	m.recipients = append(m.recipients, r)
	d.recipients = append(d.recipients, r)
	d.tasks <- func() { d.rcpt(r) }
	return nil
}

// logRefused tells of a recipient for whom no store was asked.
func (m *message) logRefused(to wire.Path, err error) {
	level, code := zap.InfoLevel, replyTo(err, unknown).Code
	if code < 500 {
		level = zap.WarnLevel
	}
	m.dialogue.settings.server.counts.mailed(code)
	m.dialogue.line(level, "recipient refused", zap.Stringer("recipient", to), zap.Stringer("sender", m.from), zap.Error(err))
}

// place finds the store of a recipient, as it would for the user's login.
func (m *message) place(r *recipient, to wire.Path) (err error) {
	s := m.dialogue.session
	r.mailbox, err = s.settings.names.Mailbox(to, s.settings.names.Realm(s.settings.listener.Realm, s.peer.SNI))
	if err != nil {
		return err
	}
	r.user = r.mailbox.User.String()
	return m.settle(r, s.peer)
}

// settle asks where a recipient is at home.
func (m *message) settle(r *recipient, peer backends.Peer) (err error) {
	settings := m.dialogue.settings
	r.place, err = settings.router.Place(m.ctx, backends.Query{
		User: r.mailbox.User, Detail: r.mailbox.Detail, Service: settings.listener.Service, Peer: peer, Evict: m.cancel,
	})
	if err != nil {
		return err
	}
	if r.place.Refuse != "" {
		return fmt.Errorf("%w: %s", backends.ErrRefused, r.place.Refuse)
	}
	r.address, err = r.place.Address(r.mailbox)
	return err
}

// delivery returns the delivery to a store, which begins with its first recipient.
func (m *message) delivery(service *backends.Service) (*delivery, error) {
	i := slices.IndexFunc(m.deliveries, func(d *delivery) bool { return d.service == service })
	switch {
	case i >= 0:
		return m.deliveries[i], nil
	case len(m.deliveries) == maxStores:
		return nil, errSpread
	}
	d := newDelivery(m, service)
	m.deliveries = append(m.deliveries, d)
	return d, nil
}

// accepted lists the recipients whom their stores have accepted, when all are answered.
func (m *message) accepted() []*recipient {
	return slices.DeleteFunc(slices.Clone(m.recipients), func(r *recipient) bool { return !r.heard.reply.Positive() })
}

// each gives a task to all deliveries that have somebody to deliver to. It waits for the slowest, within limits.
func (m *message) each(task func(*delivery)) {
	for _, d := range m.deliveries {
		d.give(func() {
			if len(d.accepted) > 0 {
				task(d)
			}
		})
	}
}

// write sends a part of the message to all stores.
func (m *message) write(p []byte) {
	m.size += int64(len(p))
	p = slices.Clone(p)
	m.each(func(d *delivery) { d.write(p) })
}

var errBare = errors.New("bare CR or LF, or NUL, in the message")

// spoil keeps the message from all stores: their connections are closed before they can have got its end.
func (m *message) spoil(why error) {
	if m.spoiled == nil {
		m.spoiled = why
		m.cancel(why)
		m.each(func(d *delivery) { d.fail(why, unknown) })
	}
}

// end frees the connections for the next message, and returns when that is done.
func (m *message) end() {
	for _, d := range m.deliveries {
		close(d.tasks)
	}
	for _, d := range m.deliveries {
		<-d.done
		d.log()
		if d.courier != nil {
			m.dialogue.kept.put(d.store, d.courier)
		}
	}
	for _, r := range m.recipients {
		r.place.Release()
	}
	m.cancel(nil)
}

var errDropped = errors.New("client has dropped the message")

// abandon drops the message at hand, if there is one; without a reason, where the client wants it so.
func (d *lmtpDialogue) abandon(why error) {
	m := d.message
	if d.message = nil; m == nil {
		return
	}
	switch {
	case why == nil && m.begun:
		m.spoiled = errDropped
	case why == nil:
	case m.begun:
		m.spoil(fmt.Errorf("message did not come to its end: %w", why))
	default:
		m.cancel(why)
	}
	m.end()
}
