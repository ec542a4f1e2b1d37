package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jackdaw/integration/measure"
)

// memory is the proportional set size of a process, in bytes.
func (p *process) memory(t testing.TB) int64 {
	t.Helper()
	m, err := measure.MemoryOf(p.cmd.Process.Pid)
	must(t, err)
	return m.Proportional
}

// grown fails where memory has grown by more than so much for each of many. The race detector needs a lot more.
func grown(t testing.TB, what string, before, after int64, many, most int) {
	t.Helper()
	each := (after - before) / int64(many)
	t.Logf("%s: from %d KiB to %d KiB, %d bytes for each of %d", what, before>>10, after>>10, each, many)
	if !raceEnabled && each > int64(most) {
		t.Errorf("%s: memory grows by %d bytes for each of %d, want %d at most", what, each, many, most)
	}
}

// TestSilence: thousands who connect and say nothing take little memory and nobody's place, and are sent away in their time.
func TestSilence(t *testing.T) {
	t.Parallel()
	crowded.Lock()
	defer crowded.Unlock()
	jd := frontend{limits: `login_timeout = "15s"`}.start(t, quickBackend("store", quickStore(t)))
	many := fewer(5000)
	jd.served()
	own, before := jd.descriptors(t), jd.memory(t)
	silent := make([]net.Conn, many)
	all(t, many, func(i int) (err error) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%200))}}
		silent[i], err = dialer.Dial("tcp", jd.at([]string{portIMAP, portIMAPS}[i%2]))
		return err
	})
	eventually(t, "all are in", func() bool { return jd.descriptors(t) > many })
	grown(t, "while all are there", before, jd.memory(t), many, 64<<10)
	for range 3 {
		jd.served()
	}
	all(t, many, func(i int) error {
		defer silent[i].Close()
		_ = silent[i].SetDeadline(time.Now().Add(patience))
		said, err := io.ReadAll(silent[i])
		if i%2 == 0 && !strings.Contains(string(said), "\r\n* BYE ") {
			err = fmt.Errorf("the last that it hears is %q, %v", said, err)
		}
		return err
	})
	eventually(t, "nothing is left of them", func() bool { return jd.descriptors(t) < own+8 })
	jd.served()
}

// maxPending is what waits in jackdaw for a client that reads nothing, at most: two batches of package relay's, and a record.
const maxPending = 2*128<<10 + 18<<10 + 5

// TestNobodyReads: thousands who ask for a letter and do not read it hold up no more than what package relay keeps for each, until
// they go, or read: then they get the whole of it.
func TestNobodyReads(t *testing.T) {
	t.Parallel()
	crowded.Lock()
	part := sync.OnceFunc(crowded.Unlock)
	defer part()
	jd := startJackdaw(t, quickBackend("store", quickStore(t)))
	many := fewer(2000)
	jd.served()
	own, before := jd.descriptors(t), jd.memory(t)
	crowd := jd.crowdOf(many)
	all(t, many, func(i int) error {
		_, err := io.WriteString(crowd[i], "b FETCH 1 BODY[]\r\n")
		return err
	})
	jd.served()
	during := jd.settled(t)
	grown(t, "while nobody reads", before, during, many, maxPending)
	for range 3 {
		jd.login("mail.a.example", "alice@a.example").fetches()
	}
	all(t, 8, func(i int) error { return crowd[i].hears("b OK") })
	all(t, many, func(i int) error { return crowd[i].Close() })
	eventually(t, "nothing is left of them", func() bool { return jd.descriptors(t) < own+8 })
	part()
	jd.served()
	eventually(t, "memory is given back", func() bool { return raceEnabled || jd.memory(t)-before < (during-before)/4 })
}

// settled is the memory when it grows no more.
func (p *process) settled(t testing.TB) (memory int64) {
	t.Helper()
	eventually(t, "memory grows no more", func() bool {
		last := memory
		time.Sleep(500 * time.Millisecond)
		memory = p.memory(t)
		return memory <= last
	})
	return memory
}

// TestSlowBesideFast: who reads a little now and then keeps nobody up. On each of jackdaw's loops there are some of them; a fast
// one has got many letters before any of them has one, and they get theirs.
func TestSlowBesideFast(t *testing.T) {
	t.Parallel()
	jd := startJackdaw(t, quickBackend("store", quickStore(t)))
	slow := jd.crowdOf(16)
	all(t, len(slow), func(i int) error {
		_, err := io.WriteString(slow[i], "b FETCH 1 BODY[]\r\n")
		return err
	})
	fast := jd.login("mail.a.example", "alice@a.example")
	for range 20 {
		fast.fetches()
		fast.ask("NOOP")
		all(t, len(slow), func(i int) error {
			_, err := slow[i].in.Discard(1000)
			return err
		})
	}
	all(t, len(slow), func(i int) error { return slow[i].hears("b OK") })
}

// TestParked: a thousand sessions at rest live through a reload, and each hears a word when jackdaw stops.
func TestParked(t *testing.T) {
	t.Parallel()
	crowded.Lock()
	defer crowded.Unlock()
	address := quickStore(t)
	jd := startJackdaw(t, quickBackend("store", address))
	many := fewer(1000)
	crowd := jd.crowdOf(many)
	jd.reload(quickBackend("store", address), quickBackend("another", quickStore(t)), "[[route]]\nto = \"store\"\n")
	jd.logged(t, "reloaded")
	jd.served()
	all(t, many, func(i int) error { return crowd[i].says("b NOOP", "b OK") })
	jd.signal(syscall.SIGTERM)
	all(t, many, func(i int) error {
		if err := crowd[i].hears("* BYE"); err != nil {
			return err
		}
		if _, err := crowd[i].in.ReadByte(); !errors.Is(err, io.EOF) { // and not without close_notify
			return fmt.Errorf("behind the word: %v", err)
		}
		return nil
	})
	<-jd.done
	if jd.end != nil || jd.count("cut off") > 0 {
		t.Errorf("jackdaw ended with %v", jd.end)
	}
}
