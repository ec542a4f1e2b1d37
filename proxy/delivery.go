package proxy

import (
	"context"
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

// A store that takes a message more slowly than it comes holds up the others that it goes to. It has some time for that, and
// more for a big message: who takes as many octets as minRate in a second is slow, and not sick. Variables, so that tests need
// not wait.
var (
	holdLimit       = 30 * time.Second
	minRate   int64 = 64 << 10
)

var errHolds = errors.New("store is too slow, and others wait for it")

// delivery is the way of a message to one store. It has a goroutine of its own, so that a store that is slow or gone spoils
// nothing but its own recipients' mail.
type delivery struct {
	message    *message
	service    *backends.Service // where the recipients were to go
	peer       backends.Peer
	ctx        context.Context
	cancel     context.CancelCauseFunc
	began      time.Time
	held       time.Duration // how long the others had to wait
	tasks      chan func()
	done       chan struct{}
	recipients []*recipient

	// What follows is the goroutine's, until it is done.
	store    *backends.Service // where they go, when service is dead
	courier  *backends.Courier
	accepted []*recipient
	refusal  wire.Reply // of the message as a whole; Code is 0 if there is none
	err      error      // the first failure that is not the store's verdict
	said     bool       // MAIL, which the store has to forget before the next
	address  string
}

func newDelivery(m *message, service *backends.Service) *delivery {
	d := &delivery{message: m, service: service, store: service, peer: m.dialogue.peer, began: time.Now(),
		tasks: make(chan func(), maxQueue), done: make(chan struct{}), courier: m.dialogue.kept.take(service)}
	d.ctx, d.cancel = context.WithCancelCause(m.ctx)
	go d.run()
	return d
}

// give adds a task. If the queue is full for too long, and there are others, the store is given up.
func (d *delivery) give(task func()) {
	select {
	case d.tasks <- task:
		return
	default:
	}
	began := time.Now()
	limit := holdLimit + time.Duration(d.message.size/minRate)*time.Second
	timer := time.NewTimer(limit - d.held)
	defer timer.Stop()
	select {
	case d.tasks <- task:
	case <-timer.C:
		if len(d.message.deliveries) > 1 {
			d.cancel(errHolds)
		}
		d.tasks <- task
	}
	d.held += time.Since(began)
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
	d.refusal = replyTo(err, otherwise)
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
		d.begin(r)
	}
	if d.refusal.Code != 0 {
		r.heard.reply = d.refusal
		return
	}
	if r.place.Service != d.store && !d.move(r, d.store) {
		r.heard.reply = replyTo(errElsewhere, unreached)
		return
	}
	reply, err := d.courier.Rcpt(d.ctx, r.address, r.params)
	if err != nil {
		d.note(err) // if the connection is broken, whoever comes next finds out, too
		reply = replyTo(err, lost)
	}
	if r.heard.reply = reply; reply.Positive() {
		d.accepted = append(d.accepted, r)
	}
}

// errElsewhere is for a recipient whose new store is another one than that of others who have lost theirs with him.
var errElsewhere = errors.New("store is dead, and the message on its way to another one already")

// move places a recipient anew whose store is dead, and reports whether that is somewhere else now; at a store, if one is given.
func (d *delivery) move(r *recipient, to *backends.Service) bool {
	before := r.place.Service
	r.place.Release()
	if err := d.message.settle(r, d.peer); err != nil {
		d.note(err)
		return false
	}
	return r.place.Service != before && (to == nil || r.place.Service == to)
}

// begin says MAIL, if the store is a dead member of a pool to the one where the recipient is at home now.
func (d *delivery) begin(r *recipient) {
	courier, reply, err := d.store.Begin(d.ctx, d.courier, d.peer, d.message.from, d.message.params)
	if d.message.dialogue.settings.router.Lost(d.ctx, err) && d.move(r, nil) {
		d.store = r.place.Service
		courier, reply, err = d.store.Begin(d.ctx, nil, d.peer, d.message.from, d.message.params)
	}
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
func (d *delivery) data() {
	d.step(func() (wire.Reply, error) { return d.courier.Data(d.ctx) })
}

// chunk begins a part of the message behind BDAT.
func (d *delivery) chunk(size uint64, last bool) {
	d.step(func() (wire.Reply, error) { return wire.Reply{}, d.courier.Chunk(size, last) })
}

// write sends what came of the message.
func (d *delivery) write(p []byte) {
	d.step(func() (wire.Reply, error) { return wire.Reply{}, d.courier.Write(d.ctx, p) })
}

// taken reads what the store says of a chunk.
func (d *delivery) taken() {
	d.step(func() (wire.Reply, error) { return d.courier.Taken(d.ctx) })
}

// step goes on with the message, unless it goes no further: what the store has refused it does not get any more of.
func (d *delivery) step(step func() (wire.Reply, error)) {
	if d.refusal.Code != 0 {
		return
	}
	reply, err := step()
	if err != nil {
		d.fail(err, lost)
	} else if reply.Code >= 400 {
		d.refusal = reply
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
	reply, err := d.courier.Verdict(d.ctx)
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
	if d.ctx.Err() == nil && d.said && d.err == nil {
		if err := d.courier.Reset(d.ctx); err != nil {
			d.courier.Close()
		}
	}
	if d.ctx.Err() != nil || d.err != nil || !d.courier.Fit() {
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
		m.dialogue.settings.server.counts.mailed(reply.Code)
		if reason := reply.Line(); reply.Code >= 400 && len(reasons) < maxReasons && !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	if len(users) == 0 {
		return
	}
	level, fields := zap.InfoLevel, []zap.Field{zap.String("backend", d.store.Backend), zap.String("address", d.address),
		zap.Stringer("sender", m.from), zap.Strings("users", users), zap.Ints("codes", codes), zap.Int64("size", m.size),
		zap.Duration("took", time.Since(d.began))}
	if len(reasons) > 0 {
		fields = append(fields, zap.Strings("reasons", reasons))
	}
	if err := d.reason(); err != nil {
		level = zap.WarnLevel
		fields = append(fields, zap.Error(err))
	}
	m.dialogue.line(level, "delivery", fields...)
}

// reason is why the message did not come as far as to a verdict; nil where it did.
func (d *delivery) reason() error {
	if spoiled := d.message.spoiled; spoiled != nil && (d.err == nil || errors.Is(d.err, spoiled)) {
		return spoiled // whatever was cut off by it
	}
	return d.err
}
