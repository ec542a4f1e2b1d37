package proxy

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/internal/wire"
)

// maxQueue bounds the parts of a message that wait for a store. Deliveries share them, so that all of them together hold no
// more than the slowest.
const maxQueue = 16

// delivery is the way of a message to one store. It has a goroutine of its own, so that a store that is slow or gone spoils
// nothing but its own recipients' mail.
type delivery struct {
	message    *message
	service    *backends.Service
	peer       backends.Peer
	began      time.Time
	tasks      chan func()
	done       chan struct{}
	recipients []*recipient

	// What follows is the goroutine's, until it is done.
	courier  *backends.Courier
	accepted []*recipient
	refusal  wire.Reply // of the message as a whole; Code is 0 if there is none
	err      error      // the first failure that is not the store's verdict
	said     bool       // MAIL, which the store has to forget before the next
	address  string
}

func newDelivery(m *message, service *backends.Service) *delivery {
	d := &delivery{message: m, service: service, peer: m.dialogue.peer, began: time.Now(),
		tasks: make(chan func(), maxQueue), done: make(chan struct{}), courier: m.dialogue.kept.take(service)}
	go d.run()
	return d
}

func (d *delivery) run() {
	defer close(d.done)
	defer d.guarded(d.end)
	for task := range d.tasks {
		d.guarded(task)
	}
}

// guarded keeps a crash within the delivery: the session's own recover does not reach another goroutine.
func (d *delivery) guarded(task func()) {
	defer func() {
		if p := recover(); p != nil {
			d.fail(fmt.Errorf("crashed: %v\n%s", p, debug.Stack()), unknown)
		}
	}()
	task()
}

// What a client hears where nothing more is known.
const (
	unknown   = "4.3.0 Temporary failure, try again later"
	unreached = "4.4.1 Store cannot be reached, try again later"
	lost      = "4.4.2 Connection to the store was lost, try again later"
)

// fail notes that the world has failed. Nothing goes to the store any more, and everybody hears the same.
func (d *delivery) fail(err error, otherwise string) {
	d.note(err)
	if d.refusal.Code == 0 {
		d.refusal = replyTo(err, otherwise)
	}
	if d.courier != nil {
		d.courier.Close()
		d.courier = nil
	}
}

func (d *delivery) note(err error) {
	if d.err == nil {
		d.err = err
	}
}

// rcpt asks the store for a recipient. The first one makes the way.
func (d *delivery) rcpt(r *recipient) {
	defer close(r.heard.ready)
	if !d.said && d.refusal.Code == 0 {
		d.begin()
	}
	if d.refusal.Code != 0 {
		r.heard.reply = d.refusal
		return
	}
	reply, err := d.courier.Rcpt(d.message.ctx, r.address, r.params)
	if err != nil {
		d.note(err) // if the connection is broken, whoever comes next finds out, too
		reply = replyTo(err, lost)
	}
	if r.heard.reply = reply; reply.Positive() {
		d.accepted = append(d.accepted, r)
	}
}

// begin says MAIL.
func (d *delivery) begin() {
	courier, reply, err := d.service.Begin(d.message.ctx, d.courier, d.peer, d.message.from, d.message.params)
	if d.courier = courier; err != nil {
		d.fail(err, unreached)
		return
	}
	d.address = courier.Address.String()
	if d.said = reply.Positive(); !d.said {
		d.refusal = reply
	}
}

// data begins the message behind DATA.
func (d *delivery) data() { d.check(d.courier.Data(d.message.ctx)) }

// chunk begins a part of the message behind BDAT.
func (d *delivery) chunk(size uint64, last bool) {
	if d.refusal.Code == 0 {
		if err := d.courier.Chunk(size, last); err != nil {
			d.fail(err, lost)
		}
	}
}

// taken reads what the store says of a chunk. Where it refuses, no more of them follow.
func (d *delivery) taken() {
	if d.refusal.Code == 0 {
		d.check(d.courier.Taken(d.message.ctx))
	}
}

func (d *delivery) check(reply wire.Reply, err error) {
	switch {
	case err != nil:
		d.fail(err, lost)
	case reply.Code >= 400:
		d.refusal = reply
	}
}

func (d *delivery) write(p []byte) {
	if d.refusal.Code == 0 {
		if err := d.courier.Write(d.message.ctx, p); err != nil {
			d.fail(err, lost)
		}
	}
}

// conclude asks what has become of the message, for each recipient in turn (RFC 2033 section 4.2).
func (d *delivery) conclude() {
	left := d.accepted
	defer func() { // also after a crash: somebody waits for them
		for _, r := range left {
			close(r.verdict.ready)
		}
	}()
	complete := d.refusal.Code == 0
	for len(left) > 0 {
		left[0].verdict.reply = d.judge()
		close(left[0].verdict.ready)
		left = left[1:]
	}
	d.said = d.said && !complete
}

func (d *delivery) judge() wire.Reply {
	if d.refusal.Code != 0 {
		return d.refusal
	}
	reply, err := d.courier.Verdict(d.message.ctx)
	if err != nil {
		d.fail(err, lost)
		return d.refusal
	}
	return reply
}

// end leaves a connection over which the next message can go, or none.
func (d *delivery) end() {
	if d.courier == nil {
		return
	}
	if d.message.ctx.Err() == nil && d.said && d.err == nil {
		if err := d.courier.Reset(d.message.ctx); err != nil {
			d.courier.Close()
		}
	}
	if d.message.ctx.Err() != nil || d.err != nil || !d.courier.Fit() {
		d.courier.Close()
		d.courier = nil
	}
}

// maxReasons bounds the refusals that a line of the log tells in full.
const maxReasons = 10

// log tells what has become of the message at this store, when all is done. Of a message that never came only refusals are
// of interest.
func (d *delivery) log() {
	m := d.message
	var users, reasons []string
	var codes []int
	for _, r := range d.recipients {
		reply := r.heard.reply
		if reply.Positive() && m.begun {
			reply = r.verdict.reply
		} else if reply.Positive() {
			continue
		}
		users, codes = append(users, r.user), append(codes, reply.Code)
		if reason := reply.Line(); reply.Code >= 400 && len(reasons) < maxReasons && !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	if len(users) == 0 {
		return
	}
	level, fields := zap.InfoLevel, []zap.Field{zap.String("backend", d.service.Backend), zap.String("address", d.address),
		zap.Stringer("sender", m.from), zap.Strings("users", users), zap.Ints("codes", codes), zap.Int64("size", m.size),
		zap.Duration("took", time.Since(d.began))}
	if len(reasons) > 0 {
		fields = append(fields, zap.Strings("reasons", reasons))
	}
	if err := d.err; err != nil {
		if m.spoiled != nil && errors.Is(err, m.spoiled) {
			err = m.spoiled // whatever was cut off by it
		}
		level = zap.WarnLevel
		fields = append(fields, zap.Error(err))
	}
	m.dialogue.log.Log(level, "delivery", fields...)
}
