package proxy

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"jackdaw/configs"
)

// Where nobody is at work the server's stop is heard at once, whatever was said so far.
func TestStopBetweenMessages(t *testing.T) {
	for what, said := range map[string][]string{"": nil, "after MAIL": {"MAIL FROM:<>", "250"},
		"after RCPT": {"MAIL FROM:<>", "250", "RCPT TO:<a@store1.example>", "250"}} {
		m := newMailer(t, unchanged, newLMTPStore(t, "store1", nil))
		m.sends(said...)
		time.Sleep(20 * time.Millisecond) // so that the session waits for more
		began := time.Now()
		m.stop()
		m.hears("421 4.3.2 Server is shutting down, try again")
		if rest, err := io.ReadAll(m.read); len(rest) > 0 || err != nil || time.Since(began) > stopLimit/2 {
			t.Errorf("%s: %q and %v after %v", what, rest, err, time.Since(began))
		}
		<-m.done
	}
}

// A message that is on its way comes to its end, by DATA and by BDAT.
func TestStopInMessage(t *testing.T) {
	for what, rest := range map[string]string{"DATA\r\n": "x\r\n.\r\n", "BDAT 3\r\nx\r\n": "BDAT 3 LAST\r\ny\r\n"} {
		s := newLMTPStore(t, "store1", nil)
		m := newMailer(t, unchanged, s)
		m.sends("MAIL FROM:<>", "250", "RCPT TO:<a@store1.example>", "250")
		m.says(what)
		m.line()
		m.stop()
		time.Sleep(10 * time.Millisecond)
		for _, octet := range []byte(rest) {
			m.says(string(octet))
		}
		m.hears("250 2.0.0 TO:<a@store1.example>", "421 4.3.2")
		<-m.done
		if got := s.got(); len(got) != 1 {
			t.Errorf("%q: the store has got %+v", what, got)
		}
	}
}

// It has not long for that: a client that does not go on is cut off, and a store that does not answer spoils its own mail.
func TestStopCutsOff(t *testing.T) {
	defer func(before time.Duration) { stopLimit = before }(stopLimit)
	stopLimit = 100 * time.Millisecond
	good, hung := newLMTPStore(t, "store1", nil), newLMTPStore(t, "store2", map[string]string{"end": "hang"})
	m := newMailer(t, unchanged, good, hung)
	m.begins("a@store2.example", "b@store1.example")
	m.says(letter1)
	m.stop()
	m.hears("451 4.3.2 Server is shutting down", "250 2.0.0 TO:<b@store1.example>", "421 4.3.2")
	<-m.done

	m = newMailer(t, unchanged, good)
	m.begins("a@store1.example")
	m.says("x\r\n")
	m.stop()
	began := time.Now()
	m.hears("421 4.3.2")
	if took := time.Since(began); took < stopLimit || took > stopLimit+2*lastWords {
		t.Errorf("cut off after %v", took)
	}
	<-m.done
	if got := good.got(); len(got) != 1 {
		t.Errorf("the store has got %+v", got)
	}
	const reason = "message did not come to its end: shutting down"
	if lines := m.logged("delivery"); len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0]["error"]), reason) {
		t.Errorf("the log has %v", lines)
	}
}

// A client that takes nothing holds up nobody's stop.
func TestStopWithDeafClient(t *testing.T) {
	defer func(before time.Duration) { stopLimit = before }(stopLimit)
	stopLimit = 100 * time.Millisecond
	hung := newLMTPStore(t, "store1", map[string]string{"RCPT": "hang"})
	m := newMailer(t, unchanged, hung)
	m.sends("MAIL FROM:<>", "250")
	m.says("RCPT TO:<a@store1.example>\r\n")
	m.stop()
	select {
	case <-m.done:
	case <-time.After(patience):
		t.Error("the session does not end")
	}
}

// A store that hangs holds up no other: what the others say is heard, as far as the order allows.
func TestStoreHangs(t *testing.T) {
	for _, when := range []string{"RCPT", "DATA", "end"} {
		good, hung := newLMTPStore(t, "store1", nil), newLMTPStore(t, "store2", nil)
		m := newMailer(t, unchanged, good, hung)
		hung.set(when, "hang")
		m.says("MAIL FROM:<>\r\nRCPT TO:<a@store1.example>\r\nRCPT TO:<b@store2.example>\r\n")
		m.hears("250", "250 2.1.5 OK")
		if when != "RCPT" {
			m.hears("250 2.1.5 OK")
			m.sends("DATA", "354")
			m.says(letter1)
			m.hears("250 2.0.0 TO:<a@store1.example>")
		}
		hung.down() // the session waits for it
		m.closes()
	}
}

// Idle is a client that says nothing for the time of its service, at a command and within a message.
func TestMailerIdle(t *testing.T) {
	idle := func(c *configs.Config) { c.Limits.IdleTimeout[configs.LMTP] = 300 * time.Millisecond }
	s := newLMTPStore(t, "store1", nil)
	m := newMailer(t, idle, s)
	for range 3 {
		time.Sleep(150 * time.Millisecond)
		m.sends("NOOP", "250")
	}
	m.hears("421 4.4.2 Idle for too long")
	<-m.done

	m = newMailer(t, idle, s)
	m.begins("a@store1.example")
	for range 3 {
		time.Sleep(150 * time.Millisecond)
		m.says("x\r\n")
	}
	m.hears("421 4.4.2 Idle for too long")
	<-m.done
	if got := s.got(); len(got) != 0 {
		t.Errorf("the store has got %+v", got)
	}
}

// A store that takes longer than the client may be idle is waited for, and what it says is heard.
func TestSlowStoreIsNoIdleClient(t *testing.T) {
	s := newLMTPStore(t, "store1", nil)
	s.pause = make(chan struct{})
	m := newMailer(t, func(c *configs.Config) { c.Limits.IdleTimeout[configs.LMTP] = 100 * time.Millisecond }, s)
	m.begins("a@store1.example")
	m.says(letter1)
	time.AfterFunc(400*time.Millisecond, func() { close(s.pause) })
	m.hears("250 2.0.0 TO:<a@store1.example>")
	m.sends("NOOP", "250")
}

// A store that takes nothing holds up the others for a while, and then goes without the message.
func TestStoreHoldsUp(t *testing.T) {
	defer func(limit time.Duration, rate int64) { holdLimit, minRate = limit, rate }(holdLimit, minRate)
	holdLimit, minRate = 200*time.Millisecond, 1<<30
	fast, slow := newLMTPStore(t, "store1", nil), newLMTPStore(t, "store2", nil)
	slow.pause = make(chan struct{})
	m := newMailer(t, unchanged, fast, slow)
	m.begins("a@store2.example", "b@store1.example")
	letter := strings.Repeat("x", 1<<20) + "\r\n.\r\n" // more than fits on the way to it
	m.says(letter)
	m.hears("451 4.4.2 Connection to the store was lost", "250 2.0.0 TO:<b@store1.example>")
	m.sends("RSET", "250")
	for _, line := range m.logged("delivery") {
		if line["backend"] == "store2" && !strings.Contains(fmt.Sprint(line["error"]), errHolds.Error()) {
			t.Error(line)
		}
	}
	// Whom nobody waits for has all the time that it needs.
	m.begins("a@store2.example")
	time.AfterFunc(3*holdLimit, func() { close(slow.pause) })
	m.says(letter)
	m.hears("250 2.0.0 TO:<a@store2.example>")
	if got := slow.got(); len(got) != 1 || got[0].size != len(letter) {
		t.Errorf("the slow store has got %+v", got)
	}
}
