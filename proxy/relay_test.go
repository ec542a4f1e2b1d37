package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// rig is a relay between two pipes, in a bubble of its own time.
type rig struct {
	*relay
	client, store net.Conn // the other ends
	stop          context.CancelFunc
	result        chan error
	began         time.Time
}

func newRig(idle time.Duration) *rig {
	r := &rig{result: make(chan error, 1), began: time.Now()}
	r.relay = &relay{idle: idle, bye: imapBye, start: time.Now(), lineEnd: true}
	r.client, r.relay.client = net.Pipe()
	r.store, r.relay.store = net.Pipe()
	return r
}

func (r *rig) run(fromClient, fromStore string) {
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() { r.result <- r.relay.run(ctx, []byte(fromClient), []byte(fromStore)) }()
}

// ends expects the end of the relay, after this time in all.
func (r *rig) ends(t *testing.T, after time.Duration, want error) {
	t.Helper()
	err := <-r.result
	r.stop()
	if took := time.Since(r.began); took != after || !errors.Is(err, want) {
		t.Errorf("ended after %v with %v, want %v and %v", took, err, after, want)
	}
	for name, conn := range map[string]net.Conn{"client": r.client, "store": r.store} {
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err != io.EOF && err != io.ErrClosedPipe {
			t.Errorf("the connection to the %s is open: %v", name, err)
		}
	}
}

func say(t *testing.T, to net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(to, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, from net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(from, got); err != nil || string(got) != want {
		t.Fatalf("read %q and %v, want %q", got, err, want)
	}
}

// What moves in one direction keeps the session alive in both.
func TestRelayIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(30 * time.Minute)
		r.run("a IDLE\r\n", "+ go\r\n")
		hear(t, r.store, "a IDLE\r\n")
		hear(t, r.client, "+ go\r\n")
		time.Sleep(20 * time.Minute)
		say(t, r.store, "* 1 EXISTS\r\n")
		hear(t, r.client, "* 1 EXISTS\r\n")
		time.Sleep(20 * time.Minute)
		say(t, r.client, "DONE\r\n")
		hear(t, r.store, "DONE\r\n")
		hear(t, r.client, "* BYE Idle for too long\r\n")
		r.ends(t, 70*time.Minute, errIdle)
	})
}

// A POP3 client reads answers, and nothing else: it is left without a word.
func TestRelaySilentBye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(10 * time.Minute)
		r.bye = pop3Bye
		r.run("STAT\r\n", "+OK 0 0\r\n")
		hear(t, r.store, "STAT\r\n")
		hear(t, r.client, "+OK 0 0\r\n")
		r.ends(t, 10*time.Minute, errIdle)
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(10 * time.Minute)
		r.bye = pop3Bye
		r.run("", "")
		time.Sleep(time.Minute)
		r.stop()
		r.ends(t, time.Minute+quietSpell/10, errShutdown)
	})
}

// A client that talks and takes nothing is left when it has done so for as long as a session may be idle.
func TestRelayStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(30 * time.Minute)
		r.run("", "* a line that nobody reads\r\n")
		for range 2 {
			time.Sleep(10 * time.Minute)
			say(t, r.client, "a NOOP\r\n")
			hear(t, r.store, "a NOOP\r\n")
		}
		r.ends(t, 30*time.Minute, os.ErrDeadlineExceeded)
	})
}

// halfCloser notes that one direction has ended, as a pipe cannot.
type halfCloser struct {
	net.Conn
	ended chan struct{}
}

func (h halfCloser) CloseWrite() error {
	close(h.ended)
	return nil
}

// When one direction has ended, the other has a minute of silence left, and not half an hour.
func TestRelayHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(30 * time.Minute)
		client := halfCloser{r.relay.client, make(chan struct{})}
		r.relay.client = client
		r.run("", "")
		time.Sleep(time.Hour / 4)
		r.store.Close()
		<-client.ended
		time.Sleep(30 * time.Second)
		if err := r.client.SetDeadline(time.Now()); err != nil { // nothing more to come, and open
			t.Error(err)
		}
		_ = r.client.SetDeadline(time.Time{})
		r.ends(t, 16*time.Minute, errIdle)
	})
}

// A session that is to end says so where the client expects a line, when nothing is under way.
func TestRelayShutdownQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(30 * time.Minute)
		r.run("", "* 1 EXISTS\r\n")
		hear(t, r.client, "* 1 EXISTS\r\n")
		time.Sleep(time.Minute)
		r.stop()
		hear(t, r.client, "* BYE Server is shutting down, try again\r\n")
		r.ends(t, time.Minute+quietSpell/10, errShutdown)
	})
}

// What was sent a moment ago may go on: goodbye waits for a second of silence.
func TestRelayShutdownBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(30 * time.Minute)
		r.run("", "* 1 EXISTS\r\n")
		hear(t, r.client, "* 1 EXISTS\r\n")
		r.stop()
		time.Sleep(quietSpell / 2)
		say(t, r.store, "* 1 FETCH (BODY {10}\r\n")
		hear(t, r.client, "* 1 FETCH (BODY {10}\r\n")
		time.Sleep(quietSpell / 2)
		say(t, r.store, "0123456")
		hear(t, r.client, "0123456")
		time.Sleep(3 * quietSpell) // it stays away from the middle of a line
		say(t, r.store, "789)\r\n")
		hear(t, r.client, "789)\r\n")
		hear(t, r.client, "* BYE Server is shutting down, try again\r\n")
		r.ends(t, 5*quietSpell, errShutdown)
	})
}

// A client in the middle of a line, and one that takes nothing, are left without a word when the time is over.
func TestRelayShutdownLimit(t *testing.T) {
	for _, test := range []struct{ name, store, read string }{
		{"middle of a line", "* 1 FETCH (BODY {10}\r\n01234", "* 1 FETCH (BODY {10}\r\n01234"},
		{"stalled", "* 1 EXISTS\r\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(30 * time.Minute)
				r.run("", test.store)
				hear(t, r.client, test.read)
				synctest.Wait()
				r.stop()
				r.ends(t, stopLimit, errShutdown)
			})
		})
	}
}

// A relay whose client has gone reads no further from its store, and the other way round.
func TestRelayBrokenConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(time.Hour)
		r.run("", "")
		r.client.Close()
		r.stopWhenDone(t)
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(time.Hour)
		r.run("", "")
		r.store.Close()
		r.stopWhenDone(t)
	})
}

func (r *rig) stopWhenDone(t *testing.T) {
	<-r.result
	r.stop()
	if time.Since(r.began) != 0 {
		t.Errorf("took %v to notice", time.Since(r.began))
	}
}

type crashing struct{}

func (crashing) up([]byte) (int, error) { panic("a bug") }
func (crashing) down(p []byte) []byte   { return p }

// A bug that one session meets ends that session, and no other.
func TestRelayCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(time.Hour)
		r.guard = crashing{}
		r.run("NOOP\r\n", "")
		err := <-r.result
		r.stop()
		if err == nil || !strings.Contains(err.Error(), "crashed: a bug") {
			t.Error("ended with", err)
		}
	})
}

// Much that moves in both directions at once arrives as it was sent, through TLS.
func TestRelayBulk(t *testing.T) {
	const size = 16 << 20
	p := newPlayer(t)
	p.play("testdata/imap/relay-bulk", `# A session under TLS.
= service imaps
= store * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready
C* starttls mail.example.org
S* * OK
C: a LOGIN alice secret
	B: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready
	P: J3 AUTHENTICATE PLAIN base64(\x00alice\x00secret)
	B: J3 OK [CAPABILITY IMAP4rev1] in
S* a OK
`)
	p.setDeadlines()
	sums := make(chan [sha256.Size]byte, 4)
	send := func(to net.Conn, seed uint64) {
		hash := sha256.New()
		random := io.LimitReader(rand.NewChaCha8([32]byte{byte(seed)}), size)
		if _, err := io.Copy(io.MultiWriter(to, hash), random); err != nil {
			t.Error(err)
		}
		if err := closeWrite(to); err != nil {
			t.Error(err)
		}
		sums <- [sha256.Size]byte(hash.Sum(nil))
	}
	receive := func(from io.Reader) [sha256.Size]byte {
		hash := sha256.New()
		if n, err := io.Copy(hash, from); n != size || err != nil {
			t.Errorf("received %d and %v", n, err)
		}
		return [sha256.Size]byte(hash.Sum(nil))
	}
	go send(p.client, 1)
	go func() { sums <- receive(p.read) }()
	atStore := make(chan [sha256.Size]byte)
	go func() { atStore <- receive(p.from) }()
	send(p.store, 2)
	got := <-atStore
	seen := map[[sha256.Size]byte]int{got: 1}
	for range 3 {
		seen[<-sums]++
	}
	if len(seen) != 2 { // two streams, each at both of its ends
		t.Error("what arrived is not what was sent")
	}
	p.end()
}
