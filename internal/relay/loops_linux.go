package relay

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// processors is how many there are to be used; there may be more threads for a while.
var processors = runtime.GOMAXPROCS(0)

// Loops are the event loops of a program, one for each processor that it may use. They begin with the first session. The zero
// value is ready; Loops are safe for concurrent use.
type Loops struct {
	mu    sync.Mutex
	loops []*loop // none before the first session, or if the system gives none
	turn  int
}

// Close ends the loops, when no session is left in them.
func (l *Loops) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range l.loops {
		one.post(func() { one.ended = true })
		<-one.done
	}
	l.loops = nil
}

// take returns the loop whose turn it is, or nil if there is none.
func (l *Loops) take() *loop {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.loops) == 0 {
		l.begin()
	}
	if len(l.loops) == 0 {
		return nil
	}
	l.turn++
	return l.loops[l.turn%len(l.loops)]
}

func (l *Loops) begin() {
	for range processors {
		one, err := newLoop()
		if err != nil {
			return
		}
		l.loops = append(l.loops, one)
		go one.run()
	}
}

// park hands a session to a loop, or returns nil if its connections are no sockets, or no more descriptors can be had.
func (l *Loops) park(s Session) Relay {
	client, clientTLS := socketOf(s.Client)
	store, storeTLS := socketOf(s.Store)
	if client == nil || store == nil {
		return nil
	}
	loop := l.take()
	if loop == nil {
		return nil
	}
	clientFD, err := detach(client)
	if err != nil {
		return nil
	}
	storeFD, err := detach(store)
	if err != nil {
		_ = unix.Close(clientFD)
		return nil
	}
	_, _ = client.Close(), store.Close() // their sockets are open as others
	p := &pair{loop: loop, idle: s.Idle, guard: s.Guard, tap: s.Tap, owner: s.Owner, lineEnd: true}
	p.client.begin(loop, clientFD, clientTLS)
	p.store.begin(loop, storeFD, storeTLS)
	loop.post(func() { loop.add(p, s.FromClient, s.FromStore) })
	return p
}

// socket is a connection that has a descriptor.
type socket interface {
	net.Conn
	syscall.Conn
}

// socketOf returns the socket of a connection, and the TLS over it; nil if there is none.
func socketOf(c net.Conn) (socket, *tls.Conn) {
	over, _ := c.(*tls.Conn)
	if over != nil {
		link, ok := over.NetConn().(*Link)
		if !ok {
			return nil, nil
		}
		c = link.Conn
	}
	s, ok := c.(socket)
	if !ok {
		return nil, nil
	}
	return s, over
}

// detach returns a descriptor of a socket that Go's poller does not know. It does not wait, as Go has set the socket so.
func detach(s socket) (fd int, err error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlled := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if controlled != nil {
		return 0, controlled
	}
	return fd, err
}
