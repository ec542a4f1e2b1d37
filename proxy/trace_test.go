package proxy

import (
	"context"
	"errors"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"jackdaw/configs"
)

// traced collects what a trace says of the sessions of a player, without times and ids.
type traced struct {
	p     *player
	mu    sync.Mutex
	lines []string
	end   func()
}

func (p *player) trace(which Tracing) *traced {
	t := &traced{p: p}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	begun := p.server.beginTrace(which) // what is said from here on is told
	tasks.Go(func() {
		if err := p.server.follow(ctx, begun, t.note); err != nil {
			p.t.Error(err)
		}
	})
	t.end = func() { cancel(); tasks.Wait() }
	p.t.Cleanup(t.end)
	return t
}

var tracedLine = regexp.MustCompile(`^20[0-9-]{8}T[0-9:.]{12}Z [A-Z2-7]{16} ([CSPB]: .*)\n$`)

func (t *traced) note(line string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := tracedLine.FindStringSubmatch(line)
	if found == nil {
		t.p.t.Errorf("traced is %q", line)
		return nil
	}
	t.lines = append(t.lines, found[1])
	return nil
}

// has waits for the lines that there must be, and no others.
func (t *traced) has(want string) {
	t.p.t.Helper()
	lines := strings.Split(strings.TrimSpace(want), "\n")
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		t.mu.Lock()
		got := slices.Clone(t.lines)
		t.mu.Unlock()
		if slices.Equal(got, lines) {
			return
		}
		if time.Now().After(end) {
			t.p.t.Fatalf("traced is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
		}
	}
}

// The dialogues with client and store are written down from the first byte on, although it comes out late whose they are. What is said
// after the login is not.
func TestTraceUser(t *testing.T) {
	p := newPlayer(t)
	p.play("TestTraceUser", `# A client behind a proxy, which has said nothing yet.
= plaintext
= proxy_from
= store * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready
= begin
`)
	trace := p.trace(Tracing{User: "alice"})
	other := p.trace(Tracing{User: "carol"})
	p.play("TestTraceUser", `# It logs in at the second try.
C* proxy 127.0.0.1:4321 127.0.0.2:143
S* * OK
C: a LOGIN bob secret
	B: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready
	P: J3 AUTHENTICATE PLAIN base64(\x00bob\x00secret)
	B: J3 NO wrong
	P* closed
S: a NO [AUTHENTICATIONFAILED] Authentication failed
C: secret pasted
S* secret BAD
C: b AUTHENTICATE PLAIN
S: + 
C: base64(\x00alice\x00secret)
	B: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready
	P: J3 AUTHENTICATE PLAIN base64(\x00alice\x00secret)
	B: J3 OK [CAPABILITY IMAP4rev1] in
S: b OK [CAPABILITY IMAP4rev1] Logged in
C: c SELECT INBOX
	P: c SELECT INBOX
`)
	trace.has(`
S: * OK [CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN] proxy.example.net ready
C: a LOGIN (hidden)
B: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready
P: J3 AUTHENTICATE PLAIN (hidden)
B: J3 NO wrong
S: a NO [AUTHENTICATIONFAILED] Authentication failed
C: (hidden)
S: (hidden) BAD command unknown or not possible before login
C: b AUTHENTICATE PLAIN (hidden)
S: (hidden)
C: (hidden)
B: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready
P: J3 AUTHENTICATE PLAIN (hidden)
B: J3 OK [CAPABILITY IMAP4rev1] in
S: b OK [CAPABILITY IMAP4rev1] Logged in
`)
	if len(other.lines) != 0 {
		t.Errorf("of another user is traced %q", other.lines)
	}
	p.end()
}

// The network's sessions are written down at once, and with the relay also what is said in sessions that were there before.
func TestTraceRelay(t *testing.T) {
	p := newPlayer(t)
	p.play("testdata/imap/trace", "# A client that is in.\n= after login\n")
	p.listed(StateRelay)
	trace := p.trace(Tracing{Client: netip.MustParsePrefix("127.0.0.0/8"), Relay: true})
	p.play("TestTraceRelay", `# It reads, and tries to log in again, of which nobody is to know more.
C: b FETCH 1 FLAGS
	P: b FETCH 1 FLAGS
	B> * 1 FETCH (FLAGS (\\Seen \x07))\r\nb OK done
S: * 1 FETCH (FLAGS (\Seen `+"\a"+`))
	B> \r\n
S: b OK done
C: c LOGIN alice {6}
	P: c LOGIN alice {6}
	B: + go on
S: + go on
C: secret
	P: secret
	B: c BAD already
S: c BAD already
`)
	trace.has(`
C: b FETCH 1 FLAGS
S: * 1 FETCH (FLAGS (\Seen ?))
S: b OK done
C: c LOGIN (hidden)
S: (hidden)
C: (a literal)
C: (hidden)
S: c BAD already
`)
	trace.end()
	p.play("TestTraceRelay", "# Nobody looks any more.\nC: d NOOP\n\tP: d NOOP\n\tB: d OK\nS: d OK\n")
	trace.has(strings.Join(trace.lines, "\n"))
	if slices.Contains(trace.lines, "C: d NOOP") {
		t.Error("what is said is still traced")
	}
	p.end()
}

// Nothing that a client could prove itself with is shown, in whatever pieces it comes.
func TestMask(t *testing.T) {
	for _, test := range []struct {
		protocol configs.Service
		relay    bool
		said     string // C and S, in turn
		want     string
	}{
		{configs.POP3, false, "S +OK ready|C USER alice|S +OK|C PASS secret secret|S -ERR no|C secret|C AUTH PLAIN c2VjcmV0|S +OK in",
			"S: +OK ready|C: USER alice|S: +OK|C: PASS (hidden)|S: -ERR no|C: (hidden)|C: AUTH PLAIN (hidden)|S: +OK in"},
		{configs.POP3, false, "C APOP alice c4c9334bac560ecc979e58001b3e22fb|S -ERR", "C: APOP (hidden)|S: -ERR"},
		{configs.IMAP, false, `C a ID ("name" "x")|C b login "alice" "secret"|C c NOOP|S * CAPABILITY X|S b OK in`,
			`C: a ID ("name" "x")|C: b login (hidden)|C: (hidden)|S: * CAPABILITY X|S: b OK in`},
		{configs.IMAP, false, "C a LOGIN {5+}|C alice {6+}|C secret|S a OK", "C: a LOGIN (hidden)|C: (a literal)|C: (hidden)|C: (a literal)|C: (hidden)|S: a OK"},
		{configs.IMAP, false, "C a AUTHENTICATE SCRAM-SHA-256|S + |C c2VjcmV0|S + c2VjcmV0|C |S a OK in",
			"C: a AUTHENTICATE SCRAM-SHA-256 (hidden)|S: (hidden)|C: (hidden)|S: (hidden)|C: (hidden)|S: a OK in"},
		{configs.Submission, false, "C EHLO x|S 250 x|C AUTH LOGIN|S 334 VXNlcm5hbWU6|C YWxpY2U=|S 334 UGFzc3dvcmQ6|C c2VjcmV0|S 235 in",
			"C: EHLO x|S: 250 x|C: AUTH LOGIN (hidden)|S: (hidden)|C: (hidden)|S: (hidden)|C: (hidden)|S: 235 in"},
		{configs.Sieve, false, `C AUTHENTICATE "SCRAM-SHA-1" "c2VjcmV0"|S "c2VjcmV0"|C {8+}|C c2VjcmV0|S OK (SASL "c2VjcmV0") "in"`,
			`C: AUTHENTICATE "SCRAM-SHA-1" (hidden)|S: (hidden)|C: (hidden)|C: (a literal)|C: (hidden)|S: OK (hidden)`},
		{configs.LMTP, false, "C MAIL FROM:<a@b>|S 250 ok|C DATA|S 354 go on|C AUTH of a letter|C .|S 250 ok|C BDAT 10 LAST|C 12345678|S 250 ok|C RSET",
			"C: MAIL FROM:<a@b>|S: 250 ok|C: DATA|S: 354 go on|C: (a line of a message)|C: .|S: 250 ok|C: BDAT 10 LAST|C: (a literal)|S: 250 ok|C: RSET"},
		{configs.IMAP, true, "C a APPEND INBOX {4}|S + go on|C x\r\n|C |S a OK|C b IDLE|S + idling|C DONE|S b OK",
			"C: a APPEND INBOX {4}|S: + go on|C: (a literal)|C: |C: |S: a OK|C: b IDLE|S: + idling|C: DONE|S: b OK"},
		{configs.IMAP, true, "C a AUTHENTICATE XOAUTH2 c2VjcmV0|S a BAD|C b NOOP", "C: a AUTHENTICATE XOAUTH2 (hidden)|S: a BAD|C: b NOOP"},
	} {
		for _, size := range []int{1, 5, 1 << 10} { // octets that come at once
			m := &mask{protocol: test.protocol, relay: test.relay}
			var got []string
			for _, said := range strings.Split(test.said, "|") {
				who, line, _ := strings.Cut(said, " ")
				for piece := range slices.Chunk([]byte(line+"\r\n"), size) {
					for _, shown := range m.lines(who == "C", piece) {
						got = append(got, who+": "+shown)
					}
				}
			}
			if text := strings.Join(got, "|"); text != test.want {
				t.Errorf("%q in pieces of %d is shown as\n%q, want\n%q", test.said, size, text, test.want)
			}
		}
	}
}

// A line without an end costs no more than what is shown of it.
func TestMaskLongLine(t *testing.T) {
	m := &mask{protocol: configs.IMAP, relay: true}
	for range 1000 {
		if shown := m.lines(false, []byte(strings.Repeat("x", 1000))); shown != nil || cap(m.parts[0].text) > 2*maxTraced {
			t.Fatalf("shown is %q, kept are %d octets", shown, cap(m.parts[0].text))
		}
	}
	shown := m.lines(false, []byte("\n"))
	if want := strings.Repeat("x", maxTraced) + " (and 999000 octets)"; !slices.Equal(shown, []string{want}) {
		t.Errorf("shown is %q", shown)
	}
}

// A client of whom nobody knows yet whether he is to be traced costs no more than what is kept of him.
func TestTraceKept(t *testing.T) {
	w := &scribe{id: "A", more: true, room: traceKept}
	m := &mask{protocol: configs.IMAP}
	for range traceKept {
		w.hear(m, "C", true, []byte("a NOOP\r\n"))
	}
	if kept := len(strings.Join(w.kept, "")); kept > traceKept || kept < traceKept-maxTraced {
		t.Errorf("%d octets are kept, of which there may be %d", kept, traceKept)
	}
}

// A trace that cannot be written down any more, on a full disk or by somebody who has gone, ends, and nothing is spent on it from then on.
func TestTraceUnwritten(t *testing.T) {
	s := new(Server)
	one, other := s.beginTrace(Tracing{User: "alice"}), s.beginTrace(Tracing{User: "bob"})
	w := &scribe{id: "A", wanted: []*trace{one, other}}
	m := &mask{protocol: configs.IMAP}
	w.hear(m, "C", true, []byte("a NOOP\r\n"))
	if err := s.follow(t.Context(), one, func(string) error { return syscall.ENOSPC }); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("it ends with %v", err)
	}
	w.hear(m, "C", true, []byte("b NOOP\r\n"))
	if len(one.lines) != 0 || len(other.lines) != 2 || !s.traces.some.Load() {
		t.Errorf("%d lines wait for nobody, and %d for the other trace", len(one.lines), len(other.lines))
	}
	if err := s.follow(t.Context(), other, func(string) error { return syscall.EPIPE }); !errors.Is(err, syscall.EPIPE) || s.traces.some.Load() {
		t.Errorf("sessions still ask who traces them: %v", err)
	}
}

// What was said before the end of a trace is in it, whenever it is written down.
func TestTraceToItsEnd(t *testing.T) {
	s := new(Server)
	begun := s.beginTrace(Tracing{User: "alice"})
	for range 100 {
		begun.put("A C: a NOOP\n")
	}
	over, end := context.WithCancel(t.Context())
	end()
	written := 0
	if err := s.follow(over, begun, func(string) error { written++; return nil }); err != nil || written != 100 {
		t.Errorf("%d of 100 lines are written, %v", written, err)
	}
}

// Whoever does not read a trace holds nobody up, and hears how much is lost.
func TestTraceFull(t *testing.T) {
	full := &trace{lines: make(chan string, 1)}
	full.put("one")
	full.put("two")
	if len(full.lines) != 1 || full.lost.Load() != 1 {
		t.Errorf("%d lines wait, %d are lost", len(full.lines), full.lost.Load())
	}
}
