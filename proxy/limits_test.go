package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/configs"
)

// guest is a client of a host.
type guest struct {
	net.Conn
	read *bufio.Reader
}

// joins connects from an address of this machine, and returns the first line.
func joins(t *testing.T, from, address string) (guest, string) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	g := guest{conn, bufio.NewReader(conn)}
	line, _ := g.read.ReadString('\n')
	return g, line
}

// limit returns the state of a limit.
func (h *host) limit(name string) LimitState {
	h.t.Helper()
	all := h.Limits()
	i := slices.IndexFunc(all, func(l LimitState) bool { return l.Name == name })
	if i < 0 {
		h.t.Fatal("no limit", name)
	}
	return all[i]
}

// Who comes when all sessions are there is told so in the words of his protocol, and may come again when one has ended.
func TestSessions(t *testing.T) {
	for service, full := range map[configs.Service]string{
		configs.IMAP:       "* BYE [LIMIT] Too many sessions, try again later\r\n",
		configs.POP3:       "-ERR [SYS/TEMP] Too many sessions, try again later\r\n",
		configs.Submission: "421 4.7.0 Too many sessions, try again later\r\n",
		configs.Sieve:      "BYE (TRYLATER) \"Too many sessions, try again later\"\r\n",
		configs.LMTP:       "421 4.7.0 Too many sessions, try again later\r\n",
		configs.IMAPS:      "", // before TLS there are no words
	} {
		for name, limit := range map[string]configs.Sessions{
			"sessions":                    {All: 2},
			"sessions." + string(service): {By: map[configs.Service]int{service: 2}},
		} {
			t.Run(fmt.Sprint(service, " ", name), func(t *testing.T) {
				h := newHost(t)
				h.setup.Config.Limits.Sessions = limit
				address := "127.0.0.1:" + freePort(t)
				listener := imap("tcp", address)
				listener.Service = service
				if service == configs.IMAPS {
					listener.TLS = configs.TLSImplicit
				}
				dial := func() (guest, string) {
					if service == configs.IMAPS { // which hears nothing
						g := guest{Conn: dialed(t, address)}
						return g, "silence"
					}
					return joins(t, "127.0.0.1", address)
				}
				h.listens(listener)
				first, line := dial()
				_, second := dial()
				await(t, func() bool { return h.limit(name).Now == 2 })
				if line == full || second == full {
					t.Fatalf("greeted with %q and %q", line, second)
				}
				if g, line := joins(t, "127.0.0.1", address); line != full {
					t.Errorf("told %q, want %q", line, full)
				} else if rest, err := io.ReadAll(g.read); len(rest) > 0 || err != nil {
					t.Errorf("behind that came %q, %v", rest, err)
				}
				if l := h.limit(name); l != (LimitState{name, 2, 2, 1}) {
					t.Errorf("the limit is %+v", l)
				}
				first.Close()
				await(t, func() bool { return h.limit(name).Now == 1 })
				if _, line := dial(); line == full {
					t.Errorf("greeted with %q", line)
				}
			})
		}
	}
}

func dialed(t *testing.T, address string) net.Conn {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// A client has so many sessions, and others are not his; exempt are those whom the operator has named, and those who may log in
// without TLS.
func TestSessionsPerClient(t *testing.T) {
	h := newHost(t)
	h.setup.Config.Limits.SessionsPerClient = 2
	h.setup.Config.Limits.Exempt = network("127.0.0.4/32")
	address := "127.0.0.1:" + freePort(t)
	listener := imap("tcp", address)
	listener.PlaintextFrom = network("127.0.0.5/32")
	h.listens(listener)
	for i, from := range []string{"127.0.0.2", "127.0.0.3"} {
		first, _ := joins(t, from, address)
		joins(t, from, address)
		if _, line := joins(t, from, address); line != "* BYE [LIMIT] Too many sessions, try again later\r\n" {
			t.Errorf("%s is told %q", from, line)
		}
		first.Close()
		await(t, func() bool { return h.limit(limitPerClient).Now == i })
		if _, line := joins(t, from, address); !strings.HasPrefix(line, "* OK") {
			t.Errorf("%s is told %q", from, line)
		}
	}
	for _, from := range []string{"127.0.0.4", "127.0.0.5"} {
		for range 3 {
			if _, line := joins(t, from, address); !strings.HasPrefix(line, "* OK") {
				t.Errorf("%s is told %q", from, line)
			}
		}
	}
	if l := h.limit(limitPerClient); l != (LimitState{limitPerClient, 2, 2, 2}) {
		t.Errorf("the limit is %+v", l)
	}
}

// A network cannot have all the sessions, as long as nobody has logged in there; what ends is given back.
func TestSessionsPerNetwork(t *testing.T) {
	h := newHost(t)
	h.setup.Config.Limits.Sessions = configs.Sessions{All: 80}
	address := "127.0.0.1:" + freePort(t)
	h.listens(imap("tcp", address))
	first, _ := joins(t, "127.0.1.1", address)
	for i := range 19 {
		joins(t, fmt.Sprint("127.0.1.", i+2), address)
	}
	if _, line := joins(t, "127.0.1.30", address); !strings.HasPrefix(line, "* BYE [LIMIT]") {
		t.Errorf("the 21st of eighty is told %q", line)
	}
	if _, line := joins(t, "127.0.2.1", address); !strings.HasPrefix(line, "* OK") {
		t.Errorf("another network is told %q", line)
	}
	first.Close()
	await(t, func() bool { return h.limit(limitSessions).Now == 20 })
	if _, line := joins(t, "127.0.1.30", address); !strings.HasPrefix(line, "* OK") {
		t.Errorf("when there is room it is told %q", line)
	}
	if l := h.limit(limitPerNetwork); l != (LimitState{limitPerNetwork, 20, 1, 1}) {
		t.Errorf("the limit is %+v", l)
	}
}

// person is a session of a user who has proved who he is.
func (l *limits) person(user string, most int) (*session, error) {
	s := &session{settings: &settings{limits: configs.Limits{SessionsPerUser: most}, log: zap.NewNop()}, user: user}
	return s, l.user(s)
}

// A user has so many sessions, over all services; a session counts once, and is given back once.
func TestSessionsPerUser(t *testing.T) {
	l := newLimits(zap.NewNop())
	first, err := l.person("alice@a.example", 2)
	if err != nil || l.user(first) != nil {
		t.Fatal(err)
	}
	if _, err := l.person("alice@a.example", 2); err != nil {
		t.Error(err)
	}
	if _, err := l.person("alice@a.example", 2); err != errUserFull {
		t.Error("the third of two:", err)
	}
	if _, err := l.person("bob@a.example", 2); err != nil {
		t.Error("another user:", err)
	}
	l.release(first, holdsAll)
	l.release(first, holdsAll)
	if _, err := l.person("alice@a.example", 2); err != nil {
		t.Error("when there is room:", err)
	}
	if _, err := l.person("alice@a.example", 2); err != errUserFull {
		t.Error("the third of two:", err)
	}
}

// Each protocol says by itself that a user has too many sessions: no client is to ask for the password again.
func TestSessionsPerUserInWords(t *testing.T) {
	const sentence = "Too many sessions of this user, try again later"
	for service, want := range map[configs.Service]string{
		configs.IMAP:       " NO [LIMIT] " + sentence,
		configs.POP3:       "-ERR [IN-USE] " + sentence,
		configs.Submission: "454 4.7.0 " + sentence,
		configs.Sieve:      `NO (TRYLATER) "` + sentence + `"`,
	} {
		client, raw := tcpPair(t)
		config := testConfig()
		config.Listen.Listeners[0].Service = service
		s := newSession(t.Context(), testSettings(testSetup(t, config, testAccess), io.Discard), raw)
		d := s.protocol().dialogue(s)
		if err := d.Refuse(fmt.Errorf("store1: %w", errUserFull)); err != nil {
			t.Error(err)
		}
		_ = s.conn.Flush()
		s.cancel(nil)
		raw.Close()
		if line, err := io.ReadAll(client); string(line) != want+"\r\n" || err != nil {
			t.Errorf("%s: %q, %v; want %q", service, line, err, want)
		}
		client.Close()
	}
}

// A client is one IPv4 address, or the /64 of an IPv6 address; a network is the /24, or the /48.
func TestSubnet(t *testing.T) {
	for _, c := range []struct {
		a, b         string
		client, wide bool
	}{
		{"192.0.2.1", "192.0.2.1", true, true},
		{"192.0.2.1", "::ffff:192.0.2.1", true, true},
		{"192.0.2.1", "192.0.2.2", false, true},
		{"192.0.2.1", "192.0.3.1", false, false},
		{"2001:db8::1", "2001:db8::ffff:1", true, true},
		{"2001:db8::1", "2001:db8:0:1::1", false, true},
		{"2001:db8::1", "2001:db8:1::1", false, false},
		{"192.0.2.1", "::c000:201", false, false},
		{"fe80::1%eth0", "fe80::2%eth1", true, true},
	} {
		a, b := subnetOf(netip.MustParseAddr(c.a)), subnetOf(netip.MustParseAddr(c.b))
		if (a == b) != c.client || (a.wide() == b.wide()) != c.wide {
			t.Errorf("%s and %s: one client %v, one network %v", c.a, c.b, a == b, a.wide() == b.wide())
		}
	}
}

// Two descriptors are a session, and there is always a reserve.
func TestSessionsFor(t *testing.T) {
	for descriptors, want := range map[uint64]int{16: 4, 1024: 448, 20_000: 9343, 524_288: 245_728, 1 << 63: 15_728_608} {
		if got := sessionsFor(descriptors); got != want || got < 1 {
			t.Errorf("%d descriptors are %d sessions, want %d", descriptors, got, want)
		}
	}
	if sessionsPossible() < 1 {
		t.Error("this system allows nothing")
	}
}

// minutely lets so many logins fail in a minute.
func minutely(n int) configs.Rate { return configs.Rate{Count: n, Per: time.Minute} }

// says is a login with a password.
func says(user, secret string) *Attempt { return &Attempt{User: user, Secret: secret} }

// Of many failures the client is turned away for a while, and longer if it goes on; with time all is forgiven.
func TestFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, rate := newFailures(), minutely(3)
		for n := 1; n <= 3; n++ {
			if recent, tooMany := f.failed(1, says("alice", fmt.Sprint(n)), rate, time.Now()); recent != n || tooMany {
				t.Error("failure", n, "is number", recent, tooMany)
			}
		}
		if f.barred(1, rate, time.Now()) {
			t.Error("barred before there were too many")
		}
		if _, tooMany := f.failed(1, says("bob", "4"), rate, time.Now()); !tooMany || !f.barred(1, rate, time.Now()) {
			t.Error("not barred")
		}
		if f.barred(2, rate, time.Now()) || f.count(rate, time.Now()) != 1 {
			t.Error("somebody else is barred, too")
		}
		time.Sleep(time.Minute)
		if f.barred(1, rate, time.Now()) {
			t.Error("barred for more than a minute")
		}
		if _, tooMany := f.failed(1, says("bob", "5"), rate, time.Now()); !tooMany || !f.barred(1, rate, time.Now()) {
			t.Error("not barred at once when it goes on")
		}
		time.Sleep(2 * time.Minute)
		if recent, tooMany := f.failed(1, says("bob", "6"), rate, time.Now()); recent != 1 || tooMany {
			t.Error("nothing is forgiven:", recent, tooMany)
		}
	})
}

// Slow failures are forgiven one by one.
func TestFailuresForgiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFailures()
		for n := range 100 {
			if recent, tooMany := f.failed(1, says("alice", fmt.Sprint(n)), minutely(3), time.Now()); recent != 1 || tooMany {
				t.Fatal("failure", n, "is number", recent, tooMany)
			}
			time.Sleep(20 * time.Second)
		}
	})
}

// The same wrong password is no new failure, as long as it is remembered; for another user or client it is one, and so is what nobody
// can compare.
func TestFailuresAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, rate := newFailures(), minutely(20)
		fails := func(client subnet, a *Attempt) int {
			recent, _ := f.failed(client, a, rate, time.Now())
			return recent
		}
		for range 3 {
			if fails(1, says("alice", "old")) != 1 {
				t.Error("the same is new")
			}
		}
		if fails(1, says("alice", "other")) != 2 || fails(1, says("bob", "old")) != 3 || fails(2, says("alice", "old")) != 1 {
			t.Error("something new is not new")
		}
		for n := range 2 {
			if fails(2, says("carol", "")) != n+2 {
				t.Error("what cannot be compared is not new")
			}
		}
		time.Sleep(rememberWrong / 2)
		if fails(1, says("alice", "old")) != 0 {
			t.Error("it is forgotten too early")
		}
		time.Sleep(2*rememberWrong + time.Second)
		if fails(1, says("alice", "old")) != 1 {
			t.Error("it is never forgotten")
		}
	})
}

// However many clients fail, the memory is bounded, and what is latest is known.
func TestFailuresBounded(t *testing.T) {
	f := newFailures()
	for i := range 3 * mostRecent {
		f.failed(subnet(i), says("alice", "secret"), minutely(1), time.Now())
		f.failed(subnet(i), says("bob", "secret"), minutely(1), time.Now())
	}
	if n := len(f.clients.young) + len(f.clients.old); n > 2*mostRecent {
		t.Error(n, "clients are remembered")
	}
	if n := len(f.said.young) + len(f.said.old); n > 2*mostRecent {
		t.Error(n, "passwords are remembered")
	}
	if !f.barred(3*mostRecent-1, minutely(1), time.Now()) {
		t.Error("the last one is forgotten")
	}
}

// A client that fails too often hears of it later and later, until its session ends; who waits meanwhile is not let in either, and who
// comes is told.
func TestFailuresOfSessions(t *testing.T) {
	h := newHost(t)
	h.setup.Config.Limits.FailuresPerClient, h.setup.Config.Limits.Attempts = minutely(2), 9
	address := "127.0.0.1:" + freePort(t)
	h.listens(imap("tcp", address))
	waiting := shielded(t, "127.0.0.2", address)
	g := shielded(t, "127.0.0.2", address)
	g.asks(t, "a LOGIN nobody one", "a NO [AUTHENTICATIONFAILED] Authentication failed")
	g.asks(t, "b LOGIN nobody two", "b NO [AUTHENTICATIONFAILED] Authentication failed")
	g.asks(t, "c LOGIN nobody two", "c NO [AUTHENTICATIONFAILED] Authentication failed")
	g.asks(t, "d LOGIN nobody three", "d NO [AUTHENTICATIONFAILED] Authentication failed")
	g.reads(t, "* BYE Too many failed logins")
	const barred = "* BYE [UNAVAILABLE] Too many failed logins from your network, try again later"
	waiting.asks(t, "a LOGIN nobody four", barred)
	if _, line := joins(t, "127.0.0.2", address); line != barred+"\r\n" {
		t.Errorf("who comes is told %q", line)
	}
	other := shielded(t, "127.0.0.3", address)
	other.asks(t, "a LOGIN nobody one", "a NO [AUTHENTICATIONFAILED] Authentication failed")
	for client, want := range map[string]error{"127.0.0.2": errBarred, "127.0.0.3": nil} {
		peer := backends.Peer{Client: netip.MustParseAddr(client)}
		if err := h.Unwelcome(peer, configs.Listener{Service: configs.IMAP}, h.setup.Config.Limits); err != want {
			t.Errorf("for who asks, %s is turned away by %v, want %v", client, err, want)
		}
	}
	if l := h.limit(limitFailures); l != (LimitState{limitFailures, 2, 1, 2}) {
		t.Errorf("the limit is %+v", l)
	}
}

// What is not the client's mistake is no failure, and exempt clients have none.
func TestFailuresOfOthers(t *testing.T) {
	h := newHost(t)
	h.setup.Config.Limits.FailuresPerClient, h.setup.Config.Limits.Attempts = minutely(1), 9
	h.setup.Config.Limits.Exempt = network("127.0.0.3/32")
	address := "127.0.0.1:" + freePort(t)
	h.listens(imap("tcp", address))
	for _, c := range []struct{ from, login, answer string }{
		{"127.0.0.2", " LOGIN alice secret", " NO [UNAVAILABLE] Temporary failure, try again later"}, // her store is down
		{"127.0.0.3", " LOGIN nobody secret", " NO [AUTHENTICATIONFAILED] Authentication failed"},
	} {
		g := shielded(t, c.from, address)
		for n := range 4 {
			g.asks(t, fmt.Sprint(n, c.login, n), fmt.Sprint(n, c.answer))
		}
	}
}

// Refusals come later, the more there were of late, over all connections of a client.
func TestFailuresDelay(t *testing.T) {
	h := newHost(t)
	h.setup.Config.Limits.FailuresPerClient, h.setup.Config.Limits.FailureDelay = minutely(9), 20*time.Millisecond
	address := "127.0.0.1:" + freePort(t)
	h.listens(imap("tcp", address))
	for n := range 3 {
		g := shielded(t, "127.0.0.2", address)
		began := time.Now()
		g.asks(t, fmt.Sprint("a LOGIN nobody ", n), "a NO [AUTHENTICATIONFAILED] Authentication failed")
		if took, least := time.Since(began), time.Duration(n+1)*20*time.Millisecond; took < least {
			t.Errorf("refusal %d took %v, want at least %v", n, took, least)
		}
	}
}

// shielded joins from an address and begins TLS.
func shielded(t *testing.T, from, address string) guest {
	t.Helper()
	g, line := joins(t, from, address)
	if !strings.HasPrefix(line, "* OK") {
		t.Fatalf("greeted with %q", line)
	}
	g.asks(t, "t STARTTLS", "t OK begin TLS")
	g.Conn = tls.Client(g.Conn, &tls.Config{InsecureSkipVerify: true})
	g.read = bufio.NewReader(g.Conn)
	return g
}

// asks says a line and expects another.
func (g guest) asks(t *testing.T, line, answer string) {
	t.Helper()
	say(t, g.Conn, line+"\r\n")
	g.reads(t, answer)
}

func (g guest) reads(t *testing.T, want string) {
	t.Helper()
	if line, err := g.read.ReadString('\n'); line != want+"\r\n" || err != nil {
		t.Errorf("read %q, %v; want %q", line, err, want)
	}
}
