package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// rig is a relay between two pipes, which have goroutines, in a bubble of its own time.
type rig struct {
	Session
	relay         Relay
	client, store net.Conn // the other ends
	result        owner
	began         time.Time
}

// owner says goodbye as a protocol does in which that is possible.
type owner chan error

func (owner) Bye(err error) string {
	for _, why := range []error{ErrIdle, errStop} {
		if errors.Is(err, why) {
			return "BYE " + why.Error() + "\r\n"
		}
	}
	return "" // there is nobody to hear it
}

func (o owner) Done(err error) { o <- err }

func newRig(idle time.Duration) *rig {
	r := &rig{result: make(owner, 1), began: time.Now()}
	r.Session = Session{Idle: idle, Owner: r.result}
	r.client, r.Client = net.Pipe()
	r.store, r.Store = net.Pipe()
	return r
}

func (r *rig) run(fromClient, fromStore string) {
	r.FromClient, r.FromStore = []byte(fromClient), []byte(fromStore)
	r.relay = new(Loops).Start(r.Session)
}

var errStop = errors.New("stop")

func (r *rig) stop() { r.relay.End(errStop) }

// ends expects the end of the relay, after this time in all.
func (r *rig) ends(t *testing.T, after time.Duration, want error) {
	t.Helper()
	err := <-r.result
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
func TestPlainIdle(t *testing.T) {
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
		hear(t, r.client, "BYE idle for too long\r\n")
		r.ends(t, 70*time.Minute, ErrIdle)
	})
}

// silent has no words for a goodbye.
type silent struct{ owner }

func (silent) Bye(error) string { return "" }

// Some clients read answers, and nothing else: they are left without a word.
func TestPlainSilentBye(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(10 * time.Minute)
		r.Owner = silent{r.result}
		r.run("STAT\r\n", "+OK 0 0\r\n")
		hear(t, r.store, "STAT\r\n")
		hear(t, r.client, "+OK 0 0\r\n")
		r.ends(t, 10*time.Minute, ErrIdle)
	})
	synctest.Test(t, func(t *testing.T) {
		r := newRig(10 * time.Minute)
		r.Owner = silent{r.result}
		r.run("", "")
		time.Sleep(time.Minute)
		r.stop()
		r.ends(t, time.Minute+quietSpell/10, errStop)
	})
}

// A client that talks and takes nothing is left when it has done so for as long as a session may be idle.
func TestPlainStall(t *testing.T) {
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
func TestPlainHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(30 * time.Minute)
		client := halfCloser{r.Client, make(chan struct{})}
		r.Client = client
		r.run("", "")
		time.Sleep(time.Hour / 4)
		r.store.Close()
		<-client.ended
		time.Sleep(30 * time.Second)
		if err := r.client.SetDeadline(time.Now()); err != nil { // nothing more to come, and open
			t.Error(err)
		}
		_ = r.client.SetDeadline(time.Time{})
		r.ends(t, 16*time.Minute, ErrIdle)
	})
}

// A session that is to end says so where the client expects a line, when nothing is under way.
func TestPlainShutdownQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(30 * time.Minute)
		r.run("", "* 1 EXISTS\r\n")
		hear(t, r.client, "* 1 EXISTS\r\n")
		time.Sleep(time.Minute)
		r.stop()
		hear(t, r.client, "BYE stop\r\n")
		r.ends(t, time.Minute+quietSpell/10, errStop)
	})
}

// A session whose store has ended does not hold up who ends it, whatever the store has said last.
func TestPlainShutdownBehindStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(30 * time.Minute)
		client := halfCloser{r.Client, make(chan struct{})}
		r.Client = client
		r.run("", "* 1 FETCH (BODY {10}\r\n01234")
		hear(t, r.client, "* 1 FETCH (BODY {10}\r\n01234")
		r.store.Close()
		<-client.ended
		time.Sleep(30 * time.Second)
		r.stop()
		r.ends(t, 30*time.Second+quietSpell/10, errStop)
	})
}

// What was sent a moment ago may go on: goodbye waits for a second of silence.
func TestPlainShutdownBusy(t *testing.T) {
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
		hear(t, r.client, "BYE stop\r\n")
		r.ends(t, 5*quietSpell, errStop)
	})
}

// A client in the middle of a line, and one that takes nothing, are left without a word when the time is over.
func TestPlainShutdownLimit(t *testing.T) {
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
				r.ends(t, stopLimit, errStop)
			})
		})
	}
}

// A relay whose client has gone reads no further from its store, and the other way round.
func TestPlainBrokenConnections(t *testing.T) {
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
	if time.Since(r.began) != 0 {
		t.Errorf("took %v to notice", time.Since(r.began))
	}
}

type crashing struct{}

func (crashing) Up([]byte) (int, error) { panic("a bug") }
func (crashing) Down(p []byte) []byte   { return p }

// A bug that one session meets ends that session, and no other.
func TestPlainCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(time.Hour)
		r.Guard = crashing{}
		r.run("NOOP\r\n", "")
		err := <-r.result
		if err == nil || !strings.Contains(err.Error(), "crashed: a bug") {
			t.Error("ended with", err)
		}
	})
}

// Who wants to know what is said hears both sides, from what was read ahead on, as it is passed on; and no more when he does not want
// to know any longer.
func TestTap(t *testing.T) {
	var mu sync.Mutex
	var heard strings.Builder
	tap := func(fromClient bool, said []byte) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(&heard, "%v %s;", fromClient, said)
	}
	wants := func(t *testing.T, want string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if heard.String() != want {
			t.Errorf("heard is %q, want %q", &heard, want)
		}
		heard.Reset()
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(time.Minute)
		r.Tap = tap
		r.run("a NOOP", "* OK")
		hear(t, r.store, "a NOOP")
		hear(t, r.client, "* OK")
		synctest.Wait()
		if text := heard.String(); text != "true a NOOP;false * OK;" && text != "false * OK;true a NOOP;" {
			t.Errorf("heard is %q", text)
		}
		heard.Reset()
		r.relay.Tap(nil)
		go func() { _, _ = io.WriteString(r.client, "b") }()
		hear(t, r.store, "b")
		wants(t, "")
		r.relay.Tap(tap)
		go func() { _, _ = io.WriteString(r.store, "c") }()
		hear(t, r.client, "c")
		wants(t, "false c;")
		r.client.Close()
		r.store.Close()
		<-r.result
	})
}
