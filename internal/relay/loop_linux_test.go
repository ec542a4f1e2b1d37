package relay

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jackdaw/internal/devca"
)

// patience is how long anything may take that must come.
const patience = time.Minute

// bench is a session in a loop, and the far ends of its connections.
type bench struct {
	t             testing.TB
	relay         Relay
	client, store net.Conn
	result        owner
}

// shape says what a session is made of.
type shape struct {
	clientTLS, storeTLS uint16 // versions; 0 is none
	idle                time.Duration
	guard               Guard
	before              func(b *bench, ours net.Conn) // is done before the session goes to its loop
}

func start(t testing.TB, s shape) *bench {
	t.Helper()
	loops := new(Loops)
	b := startIn(t, loops, s)
	t.Cleanup(func() {
		b.client.Close()
		b.store.Close()
		b.relay.End(errStop)
		loops.Close() // a session that has not ended by now would be lost
	})
	return b
}

func startIn(t testing.TB, loops *Loops, s shape) *bench {
	t.Helper()
	b := &bench{t: t, result: make(owner, 1)}
	relayed := Session{Idle: time.Hour, Owner: b.result, Guard: s.guard}
	if s.idle > 0 {
		relayed.Idle = s.idle
	}
	b.client, relayed.Client = connected(t, s.clientTLS, true)
	b.store, relayed.Store = connected(t, s.storeTLS, false)
	if s.before != nil {
		s.before(b, relayed.Client)
	}
	b.relay = loops.Start(relayed)
	if _, ok := b.relay.(*pair); !ok {
		t.Fatal("the session is not in a loop")
	}
	for _, c := range []net.Conn{b.client, b.store} {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	return b
}

// connected returns both ends of a connection, the far one first. serves is whose part of TLS ours plays.
func connected(t testing.TB, version uint16, serves bool) (far, ours net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if far, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if ours, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	if version == 0 {
		return far, ours
	}
	server, client := serverTLS().Clone(), &tls.Config{InsecureSkipVerify: true}
	server.MaxVersion, client.MaxVersion = version, version
	link := NewLink(ours)
	a, b := tls.Client(far, client), tls.Server(link, server)
	if !serves {
		a, b = tls.Server(far, server), tls.Client(link, client)
	}
	failed := make(chan error, 1)
	go func() { failed <- a.Handshake() }()
	if err := errors.Join(b.Handshake(), <-failed); err != nil {
		t.Fatal(err)
	}
	return a, b
}

var serverTLS = sync.OnceValue(func() *tls.Config {
	ca, err := devca.New()
	if err != nil {
		panic(err)
	}
	leaf, err := ca.Issue(devca.Options{Names: []string{"mail.example.org"}})
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{leaf.TLS}}
})

func (b *bench) say(to net.Conn, text string) {
	b.t.Helper()
	if _, err := io.WriteString(to, text); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) hear(from net.Conn, want string) {
	b.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(from, got); err != nil || string(got) != want {
		b.t.Fatalf("read %q and %v, want %q", got[:n], err, want)
	}
}

func (b *bench) hearEnd(from net.Conn) {
	b.t.Helper()
	if rest, err := io.ReadAll(from); err != nil || len(rest) > 0 {
		b.t.Fatalf("read %q and %v, want the end", rest, err)
	}
}

// ends returns with what the session has ended.
func (b *bench) ends() error {
	b.t.Helper()
	select {
	case err := <-b.result:
		return err
	case <-time.After(patience):
		b.t.Fatal("the session has not ended")
		return nil
	}
}

// shapes are all kinds of connections that a session may have.
var shapes = map[string]shape{
	"plain":              {},
	"TLS 1.3":            {clientTLS: tls.VersionTLS13},
	"TLS 1.2":            {clientTLS: tls.VersionTLS12},
	"TLS on both sides":  {clientTLS: tls.VersionTLS13, storeTLS: tls.VersionTLS13},
	"TLS with the store": {storeTLS: tls.VersionTLS12},
}

// eachShape runs a test for all kinds of connections, and again as if nothing were known of what a tls.Conn is made of.
func eachShape(t *testing.T, test func(t *testing.T, s shape)) {
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
	known := fields
	fields = tlsFields{}
	defer func() { fields = known }()
	t.Run("fields of tls.Conn unknown", func(t *testing.T) { test(t, shapes["TLS on both sides"]) })
}

func TestLoopConversation(t *testing.T) {
	eachShape(t, func(t *testing.T, s shape) {
		b := start(t, s)
		for i := range 3 {
			b.say(b.client, fmt.Sprintf("a%d NOOP\r\n", i))
			b.hear(b.store, fmt.Sprintf("a%d NOOP\r\n", i))
			b.say(b.store, fmt.Sprintf("a%d OK\r\n", i))
			b.hear(b.client, fmt.Sprintf("a%d OK\r\n", i))
		}
		b.say(b.client, "b LOGOUT\r\n")
		b.hear(b.store, "b LOGOUT\r\n")
		b.say(b.store, "* BYE\r\n")
		b.store.Close()
		b.hear(b.client, "* BYE\r\n")
		b.hearEnd(b.client)
		b.client.Close()
		if err := b.ends(); err != nil {
			t.Error("ended with", err)
		}
		if sent, received, _ := b.relay.Moved(); sent != 3*7+7 || received != 3*9+10 {
			t.Error("moved", sent, received)
		}
	})
}

// Much that moves in both directions at once arrives as it was sent, whole, and each direction ends by itself.
func TestLoopBulk(t *testing.T) {
	eachShape(t, func(t *testing.T, s shape) {
		const size = 16 << 20
		b := start(t, s)
		sums := make(chan [2]any, 4)
		send := func(name string, to net.Conn, seed byte) {
			hash := sha256.New()
			stream := io.LimitReader(rand.NewChaCha8([32]byte{seed}), size)
			_, err := io.Copy(io.MultiWriter(to, hash), stream)
			if err = errors.Join(err, closeWrite(to)); err != nil {
				t.Error(err)
			}
			sums <- [2]any{name, [sha256.Size]byte(hash.Sum(nil))}
		}
		receive := func(name string, from net.Conn) {
			hash := sha256.New()
			if n, err := io.Copy(hash, from); n != size || err != nil {
				t.Error("received", n, err)
			}
			sums <- [2]any{name, [sha256.Size]byte(hash.Sum(nil))}
		}
		go send("up", b.client, 1)
		go receive("up", b.store)
		go send("down", b.store, 2)
		go receive("down", b.client)
		seen := make(map[string]any)
		for range 4 {
			name, sum := "", any(nil)
			got := <-sums
			name, sum = got[0].(string), got[1]
			if seen[name] != nil && seen[name] != sum {
				t.Errorf("what arrived is not what was sent: %s", name)
			}
			seen[name] = sum
		}
		if err := b.ends(); err != nil {
			t.Error("ended with", err)
		}
		if sent, received, _ := b.relay.Moved(); sent != size || received != size {
			t.Error("moved", sent, received)
		}
	})
}

// What has come before the session went to its loop is not lost: in the socket, in the tls.Conn, or half a record of it.
func TestLoopDataBeforehand(t *testing.T) {
	eachShape(t, func(t *testing.T, s shape) {
		s.before = func(b *bench, ours net.Conn) {
			b.say(b.client, "xa NOOP\r\n")
			one := make([]byte, 1) // brings the rest into the tls.Conn, if there is one
			if _, err := io.ReadFull(ours, one); err != nil || one[0] != 'x' {
				t.Fatal(one, err)
			}
			b.say(b.client, "b NOOP\r\n"+strings.Repeat("c", 100_000))
			b.say(b.store, "* 1 EXISTS\r\n")
		}
		b := start(t, s)
		b.hear(b.store, "a NOOP\r\nb NOOP\r\n"+strings.Repeat("c", 100_000))
		b.hear(b.client, "* 1 EXISTS\r\n")
	})
}

// slowly sends everything octet by octet, so that records come in pieces.
type slowly struct{ net.Conn }

func (s slowly) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := s.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
		if i%16 == 0 {
			runtime.Gosched()
		}
	}
	return len(p), nil
}

func TestLoopRecordsInPieces(t *testing.T) {
	loops := new(Loops)
	defer loops.Close()
	far, near := connected(t, 0, true)
	store, nearStore := connected(t, 0, false)
	client := tls.Client(slowly{far}, &tls.Config{InsecureSkipVerify: true})
	server := tls.Server(NewLink(near), serverTLS())
	go client.Handshake()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	result := make(owner, 1)
	loops.Start(Session{Client: server, Store: nearStore, Idle: time.Hour, Owner: result})
	text := strings.Repeat("0123456789", 500)
	go func() {
		_, _ = io.WriteString(client, text)
		client.Close()
	}()
	if got, err := io.ReadAll(store); string(got) != text || err != nil {
		t.Errorf("read %d octets and %v", len(got), err)
	}
	store.Close()
	if err := <-result; err != nil {
		t.Error("ended with", err)
	}
}

// Half a session goes on: a client that has said everything still hears what it has asked for.
func TestLoopHalfClosed(t *testing.T) {
	eachShape(t, func(t *testing.T, s shape) {
		b := start(t, s)
		b.say(b.client, "a FETCH\r\n")
		if err := closeWrite(b.client); err != nil {
			t.Fatal(err)
		}
		b.hear(b.store, "a FETCH\r\n")
		b.hearEnd(b.store)
		text := strings.Repeat("x", 1<<20)
		go func() {
			b.say(b.store, text)
			b.store.Close()
		}()
		b.hear(b.client, text)
		b.hearEnd(b.client)
		if err := b.ends(); err != nil {
			t.Error("ended with", err)
		}
	})
}

// A client that reads nothing holds up its store, takes little memory, and gets everything once it reads.
func TestLoopBackPressure(t *testing.T) {
	eachShape(t, func(t *testing.T, s shape) {
		const size = 64 << 20
		b := start(t, s)
		var sent int
		chunk := bytes.Repeat([]byte("0123456789abcdef"), 4096)
		for sent < size {
			_ = b.store.SetWriteDeadline(time.Now().Add(time.Second))
			n, err := b.store.Write(chunk)
			sent += n
			if err != nil {
				break
			}
		}
		if sent >= size {
			t.Fatal("the store was never held up")
		}
		p := b.relay.(*pair)
		waiting := make(chan int)
		p.loop.post(func() { waiting <- max(len(p.client.pending), cap(p.store.pending)) })
		if n := <-waiting; n == 0 || n > maxPending {
			t.Error(n, "octets wait for the client")
		}
		if s.storeTLS != 0 { // a tls.Conn that has met a deadline writes no more
			sent -= len(chunk)
		}
		if got, err := io.CopyN(io.Discard, b.client, int64(sent)); err != nil {
			t.Errorf("read %d of %d, and %v", got, sent, err)
		}
	})
}

// A client that asks and takes nothing is left when it has done so for as long as a session may be idle.
func TestLoopStall(t *testing.T) {
	b := start(t, shape{clientTLS: tls.VersionTLS13, idle: time.Second})
	go func() { _, _ = io.CopyN(b.store, rand.NewChaCha8([32]byte{}), 1<<30) }()
	go func() { _, _ = io.Copy(io.Discard, b.store) }()
	go func() {
		for {
			if _, err := io.WriteString(b.client, "a NOOP\r\n"); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	if err := b.ends(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("ended with", err)
	}
}

func TestLoopIdle(t *testing.T) {
	b := start(t, shape{clientTLS: tls.VersionTLS13, idle: 500 * time.Millisecond})
	began := time.Now()
	for range 4 { // what moves in one direction keeps the session alive in both
		time.Sleep(200 * time.Millisecond)
		b.say(b.store, "* 1 EXISTS\r\n")
		b.hear(b.client, "* 1 EXISTS\r\n")
	}
	b.hear(b.client, "BYE idle for too long\r\n")
	b.hearEnd(b.client)
	if err := b.ends(); err != ErrIdle || time.Since(began) < 1300*time.Millisecond {
		t.Error("ended with", err, "after", time.Since(began))
	}
}

// quickly makes the ends of sessions come soon.
func quickly(t *testing.T) {
	spell, stop, half := quietSpell, stopLimit, halfTimeout
	quietSpell, stopLimit, halfTimeout = 100*time.Millisecond, time.Second, 300*time.Millisecond
	t.Cleanup(func() { quietSpell, stopLimit, halfTimeout = spell, stop, half })
}

func TestLoopEnd(t *testing.T) {
	quickly(t)
	t.Run("at a line's end", func(t *testing.T) {
		b := start(t, shape{clientTLS: tls.VersionTLS13})
		b.say(b.store, "* 1 EXISTS\r\n")
		b.relay.End(errStop)
		b.relay.End(errors.New("another reason"))
		b.hear(b.client, "* 1 EXISTS\r\nBYE stop\r\n")
		b.hearEnd(b.client)
		b.hearEnd(b.store)
		if err := b.ends(); err != errStop {
			t.Error("ended with", err)
		}
	})
	t.Run("in the middle of a message", func(t *testing.T) {
		b := start(t, shape{clientTLS: tls.VersionTLS13})
		b.say(b.store, "* 1 FETCH (BODY {10}\r\n01234")
		b.hear(b.client, "* 1 FETCH (BODY {10}\r\n01234")
		began := time.Now()
		b.relay.End(errStop)
		b.hearEnd(b.client)
		if err := b.ends(); err != errStop || time.Since(began) < stopLimit {
			t.Error("ended with", err, "after", time.Since(began))
		}
	})
	t.Run("behind the store's end", func(t *testing.T) { // nobody waits for the rest of a message, nor for the client to leave
		quickly(t)
		stopLimit, halfTimeout = time.Hour, time.Hour
		b := start(t, shape{clientTLS: tls.VersionTLS13})
		b.say(b.store, "* 1 FETCH (BODY {10}\r\n01234")
		b.hear(b.client, "* 1 FETCH (BODY {10}\r\n01234")
		b.store.Close()
		b.hearEnd(b.client)
		b.relay.End(errStop)
		if err := b.ends(); err != errStop {
			t.Error("ended with", err)
		}
	})
	t.Run("when one side has ended", func(t *testing.T) {
		b := start(t, shape{clientTLS: tls.VersionTLS13})
		b.store.Close()
		b.hearEnd(b.client)
		if err := b.ends(); err != ErrIdle {
			t.Error("ended with", err)
		}
	})
}

// A client that vanishes takes its session with it, and a store does.
func TestLoopReset(t *testing.T) {
	eachShape(t, func(t *testing.T, s shape) {
		for _, side := range []string{"client", "store"} {
			b := start(t, s)
			far := b.client
			if side == "store" {
				far = b.store
			}
			if over, ok := far.(*tls.Conn); ok {
				far = over.NetConn()
			}
			if err := far.(*net.TCPConn).SetLinger(0); err != nil {
				t.Fatal(err)
			}
			far.Close()
			if err := b.ends(); !errors.Is(err, syscall.ECONNRESET) || !strings.Contains(err.Error(), side) {
				t.Error("ended with", err)
			}
		}
	})
}

// An end of TCP inside of a record is no end of what was said (RFC 8446 section 6.1).
func TestLoopTruncated(t *testing.T) {
	b := start(t, shape{clientTLS: tls.VersionTLS13})
	b.say(b.client, "a NOOP\r\n")
	b.hear(b.store, "a NOOP\r\n")
	below := b.client.(*tls.Conn).NetConn()
	b.say(below, "\x17\x03\x03\x00\x20half")
	below.Close()
	if err := b.ends(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("ended with", err)
	}
}

// A bug that one session meets ends that session, and no other of its loop.
func TestLoopCrash(t *testing.T) {
	loops := new(Loops)
	defer loops.Close()
	bad := startIn(t, loops, shape{guard: crashing{}})
	var good []*bench
	for range 2 * runtime.GOMAXPROCS(0) {
		good = append(good, startIn(t, loops, shape{}))
	}
	bad.say(bad.client, "NOOP\r\n")
	if err := bad.ends(); err == nil || !strings.Contains(err.Error(), "crashed: a bug") {
		t.Error("ended with", err)
	}
	for _, b := range good {
		b.say(b.client, "NOOP\r\n")
		b.hear(b.store, "NOOP\r\n")
		b.client.Close()
		b.store.Close()
		if err := b.ends(); err != nil {
			t.Error("ended with", err)
		}
	}
}

// stopping lets nothing pass that has an "x".
type stopping struct{}

var errX = errors.New("an x")

func (stopping) Up(p []byte) (int, error) {
	if i := bytes.IndexByte(p, 'x'); i >= 0 {
		return i, errX
	}
	return len(p), nil
}
func (stopping) Down(p []byte) []byte { return bytes.ReplaceAll(p, []byte("secret"), nil) }

func TestLoopGuard(t *testing.T) {
	b := start(t, shape{clientTLS: tls.VersionTLS13, guard: stopping{}})
	b.say(b.store, "a secret word\r\n")
	b.hear(b.client, "a  word\r\n")
	b.say(b.client, "NOOP\r\nx")
	b.hear(b.store, "NOOP\r\n")
	b.hearEnd(b.store)
	if err := b.ends(); err != errX {
		t.Error("ended with", err)
	}
}

// Sessions that come and go leave no descriptor and no place behind.
func TestLoopManySessions(t *testing.T) {
	descriptors := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(all)
	}
	loops := new(Loops)
	startIn(t, loops, shape{}).stopNow()
	before := descriptors()
	var sessions sync.WaitGroup
	for i := range 200 {
		s := shape{}
		if i%2 == 0 {
			s.clientTLS = tls.VersionTLS13
		}
		b := startIn(t, loops, s)
		sessions.Go(func() {
			for range i % 7 {
				_, _ = io.WriteString(b.client, "NOOP\r\n")
				_, _ = io.ReadFull(b.store, make([]byte, 6))
			}
			b.stopNow()
		})
	}
	sessions.Wait()
	if after := descriptors(); after > before {
		t.Errorf("%d descriptors, and %d before", after, before)
	}
	for _, l := range loops.loops {
		free := make(chan bool)
		l.post(func() { free <- len(l.free)+len(l.left) == len(l.pairs) })
		if !<-free {
			t.Error("a loop keeps a place for a session that has ended")
		}
	}
	loops.Close()
}

func (b *bench) stopNow() {
	b.client.Close()
	b.store.Close()
	<-b.result
}

// A session at rest keeps nothing of what it has moved. This fails where a new Go has changed what a tls.Conn is made of.
func TestLoopThrift(t *testing.T) {
	if !fields.known {
		t.Fatal("the fields of tls.Conn are others than those of which we know")
	}
	b := start(t, shapes["TLS on both sides"])
	for _, side := range []struct{ from, to net.Conn }{{b.client, b.store}, {b.store, b.client}} {
		go func() { _, _ = io.WriteString(side.from, strings.Repeat("x", 1<<20)) }()
		b.hear(side.to, strings.Repeat("x", 1<<20))
	}
	p := b.relay.(*pair)
	kept := make(chan int)
	p.loop.post(func() {
		n := 0
		for _, e := range []*end{&p.client, &p.store} {
			n += fields.raw(e.tls).Cap() + fields.messages(e.tls).Cap() + int(fields.plain(e.tls).Size()) + cap(e.pending)
		}
		kept <- n
	})
	if n := <-kept; n > 0 {
		t.Errorf("%d octets are kept", n)
	}
}
