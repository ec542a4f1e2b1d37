package relay

import (
	"math"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many bytes are moved at once: sixteen records of TLS.
	batch = 256 << 10
	// smallBatch is as much while many peers are slow to take what they are sent.
	smallBatch = 16 << 10
	// record is the most that one record of TLS takes (RFC 8446 section 5.2, RFC 5246 section 6.2.3).
	record = 5 + 16<<10 + 2048
	// rounds is how many batches a session may move in each direction before it is another one's turn.
	rounds = 4
)

// loop moves the bytes of many sessions, on one goroutine. Others may call post only.
type loop struct {
	epoll, wake int      // descriptors; wake is an eventfd
	file        *os.File // owns epoll
	set         syscall.RawConn
	start       time.Time
	now         time.Duration // since start, when the latest events were fetched
	pairs       []*pair       // by place; nil where none is
	free        []int32       // places
	left        []int32       // places that are free when the events that were fetched together are through
	busy        []*pair       // those that had more to do than they were let
	ending      []*pair       // those that are to end when they are quiet
	silent      []*queue      // all pairs, by how long nothing may move
	alarm       *time.Timer   // rings when something is due
	alarmAt     time.Duration // since start
	ended       bool
	done        chan struct{}

	in      [batch + record]byte   // what tls.Conn reads into
	plain   [batch + 2*record]byte // what a peer has said, without TLS
	out     []byte                 // what tls.Conn has written
	spare   [][]byte               // for parts of records
	pending int                    // how much waits for peers to take it

	mu     sync.Mutex
	posted []func()
	closed bool // there is no wake any more
}

func newLoop() (*loop, error) {
	l := &loop{start: time.Now(), done: make(chan struct{})}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if err = unix.SetNonblock(l.epoll, true); err != nil { // it has Go's poller take the file
		_ = unix.Close(l.epoll)
		return nil, err
	}
	l.file = os.NewFile(uintptr(l.epoll), "epoll")
	if err = l.equip(); err != nil {
		_ = l.file.Close()
		return nil, err
	}
	l.alarm = time.AfterFunc(never, func() { l.post(func() {}) })
	return l, nil
}

// equip makes what is needed to wait, and to be woken up.
func (l *loop) equip() error {
	err := l.file.SetReadDeadline(time.Time{}) // which fails where nobody could wait for the file
	if err != nil {
		return err
	}
	if l.set, err = l.file.SyscallConn(); err != nil {
		return err
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	err = unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.wake, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: -1})
	if err != nil {
		_ = unix.Close(l.wake)
	}
	return err
}

// post has the loop do something, soon.
func (l *loop) post(deed func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posted = append(l.posted, deed)
	if len(l.posted) == 1 && !l.closed {
		_, _ = writeSome(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// run is the loop. It waits for events as a goroutine waits for a socket: Go's poller watches the set, which is a descriptor, too. A
// goroutine that waited in epoll_wait would hold one of the processors that the others need for logins, until the runtime took it
// away. The loop never leaves Read as long as it lives: each call would have to ask the set once more before it could wait.
func (l *loop) run() {
	defer close(l.done)
	var events [256]unix.EpollEvent
	err := l.set.Read(func(uintptr) bool {
		for more := true; more && !l.ended; { // events that come from here on wake the poller
			n, _ := fetch(l.epoll, events[:])
			l.turn(events[:n])
			more = n == len(events) || len(l.busy) > 0
		}
		l.setAlarm()
		return l.ended
	})
	if err != nil {
		panic("waiting for events: " + err.Error()) // the descriptor is ours alone
	}
	l.alarm.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	_, _ = l.file.Close(), unix.Close(l.wake)
}

// turn does what there is to be done.
func (l *loop) turn(events []unix.EpollEvent) {
	l.now = time.Since(l.start)
	busy := l.busy
	l.busy = nil
	for _, e := range events {
		if e.Fd >= 0 {
			l.handle(e)
		}
	}
	for _, p := range busy {
		p.busy = false
		p.work()
	}
	for _, deed := range l.takePosted() {
		deed()
	}
	l.endQuiet()
	l.endSilent()
	l.free = append(l.free, l.left...)
	l.left = l.left[:0]
}

// setAlarm has the loop wake up in time for what is due next.
func (l *loop) setAlarm() {
	due := l.due()
	if due == never || l.now < l.alarmAt && l.alarmAt <= due {
		return
	}
	l.alarmAt = due
	l.alarm.Reset(due - l.now)
}

const never = time.Duration(math.MaxInt64)

// due is when a session is to be looked at again.
func (l *loop) due() time.Duration {
	due := never
	if len(l.ending) > 0 {
		due = l.now + tick()
	}
	for _, q := range l.silent {
		if p := q.oldest(); p != nil {
			due = min(due, p.movedAt()+q.limit)
		}
	}
	return due
}

func (l *loop) takePosted() []func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	deeds := l.posted
	l.posted = nil
	return deeds
}

// handle is told that a socket has something to read, or takes something.
func (l *loop) handle(event unix.EpollEvent) {
	p := l.pairs[event.Fd>>1]
	if p == nil {
		return // it has ended since
	}
	e := &p.client
	if event.Fd&1 == 1 {
		e = &p.store
	}
	if event.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.last = true
	}
	e.ready = !e.eof && (e.ready || e.last || event.Events&unix.EPOLLIN != 0)
	p.work()
}

// keep copies a part of a record.
func (l *loop) keep(part []byte) []byte {
	if n := len(l.spare); n > 0 && len(part) <= record {
		one := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return append(one, part...)
	}
	return append(make([]byte, 0, max(record, len(part))), part...)
}

// reuse takes back what keep has returned.
func (l *loop) reuse(part []byte) {
	const most = 8
	if cap(part) == record && len(l.spare) < most {
		l.spare = append(l.spare, part[:0])
	}
}

// crowd is how much may wait for peers before less is read for each, in bytes.
const crowd = 32 << 20

// batch is how many bytes to move at once.
func (l *loop) batch() int {
	if l.pending > crowd {
		return smallBatch
	}
	return batch
}

// add begins to relay a session.
func (l *loop) add(p *pair, fromClient, fromStore []byte) {
	p.place = int32(len(l.pairs))
	if n := len(l.free); n > 0 {
		p.place, l.free = l.free[n-1], l.free[:n-1]
		l.pairs[p.place] = p
	} else {
		l.pairs = append(l.pairs, p)
	}
	l.queueFor(p.idle).push(p)
	p.touch(p.queue)
	for i, e := range []*end{&p.client, &p.store} {
		const interest = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&(1<<32-1)
		event := unix.EpollEvent{Events: interest, Fd: p.place<<1 | int32(i)}
		if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, e.fd, &event); err != nil {
			p.finish(err)
			return
		}
	}
	p.begin(fromClient, fromStore)
}

// remove forgets a session that has ended.
func (l *loop) remove(p *pair) {
	p.queue.drop(p)
	l.pairs[p.place] = nil
	l.left = append(l.left, p.place)
}

// endQuiet ends sessions that are to end.
func (l *loop) endQuiet() {
	l.ending = slices.DeleteFunc(l.ending, func(p *pair) bool {
		idle := p.atLineEnd() || p.store.eof && p.flushed() // behind the store's end nothing more is under way
		if !p.gone && (l.now >= p.endBy || idle && l.now-p.movedAt() >= quietSpell) {
			p.finish(p.cause)
		}
		return p.gone
	})
}

// endSilent ends sessions in which nothing has moved for too long.
func (l *loop) endSilent() {
	for _, q := range l.silent {
		for p := q.oldest(); p != nil && l.now-p.movedAt() >= q.limit; p = q.oldest() {
			p.finish(ErrIdle)
		}
	}
}

func (l *loop) queueFor(limit time.Duration) *queue {
	for _, q := range l.silent {
		if q.limit == limit {
			return q
		}
	}
	q := newQueue(limit)
	l.silent = append(l.silent, q)
	return q
}

// queue is a ring of pairs, in the order in which something has moved in them last.
type queue struct {
	limit time.Duration
	ring  pair // no session: its older neighbour is the newest, and its newer one the oldest
}

func newQueue(limit time.Duration) *queue {
	q := &queue{limit: limit}
	q.ring.older, q.ring.newer = &q.ring, &q.ring
	return q
}

// oldest returns nil if there is none.
func (q *queue) oldest() *pair {
	if q.ring.newer == &q.ring {
		return nil
	}
	return q.ring.newer
}

// push makes p the newest.
func (q *queue) push(p *pair) {
	p.queue, p.older, p.newer = q, q.ring.older, &q.ring
	p.older.newer, p.newer.older = p, p
}

func (*queue) drop(p *pair) {
	p.older.newer, p.newer.older = p.newer, p.older
	p.older, p.newer = nil, nil
}
