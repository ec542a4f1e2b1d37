package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jackdaw/backends"
	"jackdaw/configs"
)

// visit is a session with a client in the same bubble of time, and a store that nobody can reach.
type visit struct {
	t      *testing.T
	client net.Conn
	read   *bufio.Reader
	logs   bytes.Buffer
	stop   func() // as the server does it
	done   chan struct{}
}

func newVisit(t *testing.T, change func(*configs.Config)) *visit {
	config := testConfig()
	config.Listen.Listeners[0].PlaintextFrom = configs.Networks{Unix: true} // a pipe has no network, as a unix socket
	change(config)
	access := testAccess
	access.Addresses = []configs.Address{{Network: "unix", Address: "/nonexistent"}}
	v := &visit{t: t, done: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(context.Background())
	v.stop = func() { cancel(errShutdown) }
	t.Cleanup(v.stop)
	settings := testSettings(testSetup(t, config, access), &v.logs)
	var raw net.Conn
	v.client, raw = net.Pipe()
	v.read = bufio.NewReader(v.client)
	go func() {
		serveSession(ctx, settings, raw)
		close(v.done)
	}()
	return v
}

// hears expects a line, which begins so, after this time.
func (v *visit) hears(after time.Duration, beginning string) {
	v.t.Helper()
	asked := time.Now()
	line, err := v.read.ReadString('\n')
	if took := time.Since(asked); !strings.HasPrefix(line, beginning) || took != after {
		v.t.Fatalf("read %q and %v after %v, want %q after %v", line, err, took, beginning, after)
	}
}

// isClosed expects the end after this time.
func (v *visit) isClosed(after time.Duration) {
	v.t.Helper()
	asked := time.Now()
	rest, err := io.ReadAll(v.read)
	if took := time.Since(asked); len(rest) > 0 || err != nil || took != after {
		v.t.Fatalf("read %q and %v after %v, want the end after %v", rest, err, took, after)
	}
	<-v.done
}

// A client has a minute for its login, and not a minute for each octet.
func TestLoginTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(*configs.Config) {})
		v.hears(0, "* OK")
		for range 2 {
			time.Sleep(25 * time.Second)
			say(t, v.client, "a")
		}
		v.hears(10*time.Second, "* BYE Too slow")
		v.isClosed(0)
	})
}

// So it is within a TLS handshake, of which nothing is said in the clear.
func TestLoginTimeoutHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(c *configs.Config) {
			c.Listen.Listeners[0].TLS = configs.TLSImplicit
			c.Limits.LoginTimeout = 20 * time.Second
		})
		say(t, v.client, "\x16\x03")
		time.Sleep(15 * time.Second)
		say(t, v.client, "\x01")
		v.isClosed(5 * time.Second)
	})
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(c *configs.Config) { c.Listen.Listeners[0].TLS = configs.TLSImplicit })
		v.isClosed(handshakeLimit)
	})
}

// A client that takes nothing of the greeting has no longer than others.
func TestLoginTimeoutStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(*configs.Config) {})
		began := time.Now()
		<-v.done
		if took := time.Since(began); took > time.Minute+2*time.Second {
			t.Error("it took", took)
		}
	})
}

// A refusal comes a while after the attempt began, later each time.
func TestFailureDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(c *configs.Config) { c.Limits.FailureDelay = 2 * time.Second })
		v.hears(0, "* OK")
		say(t, v.client, "a LOGIN nobody secret\r\n")
		v.hears(2*time.Second, "a NO [AUTHENTICATIONFAILED]")
		say(t, v.client, "b LOGIN alice secret\r\n") // whose store is down
		v.hears(4*time.Second, "b NO [UNAVAILABLE]")
		say(t, v.client, "c NOOP\r\n")
		v.hears(0, "c OK")
		say(t, v.client, "d LOGIN alice \"\"\r\n")
		v.hears(6*time.Second, "d NO [AUTHENTICATIONFAILED]")
		v.hears(0, "* BYE Too many failed logins")
		v.isClosed(0)
	})
}

// The delay begins when all of an attempt is here, so that a client cannot let it pass by being slow.
func TestFailureDelayBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(c *configs.Config) { c.Limits.FailureDelay = 10 * time.Second })
		v.hears(0, "* OK")
		say(t, v.client, "a AUTHENTICATE PLAIN\r\n")
		v.hears(0, "+ ")
		time.Sleep(4 * time.Second)
		say(t, v.client, "AG5vYm9keQBzZWNyZXQ=\r\n")
		v.hears(10*time.Second, "a NO [AUTHENTICATIONFAILED]")
		v.client.Close()
		<-v.done
	})
}

// A delay ends with the time for the login, and with the server; the client hears why.
func TestFailureDelayCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(c *configs.Config) { c.Limits.FailureDelay = time.Hour })
		v.hears(0, "* OK")
		time.Sleep(20 * time.Second)
		say(t, v.client, "a LOGIN nobody secret\r\n")
		v.hears(40*time.Second, "a NO [AUTHENTICATIONFAILED]")
		v.hears(0, "* BYE Too slow")
		v.isClosed(0)
	})
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(c *configs.Config) { c.Limits.FailureDelay = time.Hour })
		v.hears(0, "* OK")
		say(t, v.client, "a LOGIN nobody secret\r\n")
		time.Sleep(time.Second)
		v.stop()
		v.hears(0, "a NO [AUTHENTICATIONFAILED]")
		v.hears(0, "* BYE Server is shutting down")
		v.isClosed(0)
	})
}

// Whom we refuse waits as long as whom the store refuses: else the time would tell which names exist.
func TestRefusalTime(t *testing.T) {
	const slow = 100 * time.Millisecond
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var stores sync.WaitGroup
	stores.Go(func() {
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			say(t, conn, "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] store1 ready\r\n")
			if line, _ := bufio.NewReader(conn).ReadString('\n'); strings.HasPrefix(line, "J3") {
				time.Sleep(slow)
				say(t, conn, "J3 NO no\r\n")
			}
			conn.Close()
		}
	})
	defer stores.Wait()
	defer socket.Close()
	config := testConfig()
	config.Listen.Listeners[0].PlaintextFrom = loopback
	config.Limits.Attempts = 9
	access := testAccess
	access.Addresses = []configs.Address{{Network: "tcp", Address: socket.Addr().String()}}
	settings := testSettings(testSetup(t, config, access), io.Discard)
	client, raw := tcpPair(t)
	done := make(chan struct{})
	go func() {
		serveSession(context.Background(), settings, raw)
		close(done)
	}()
	read := bufio.NewReader(client)
	_, _ = read.ReadString('\n')
	for _, login := range []string{
		"LOGIN alice wrong",    // the store says so
		"LOGIN nobody wrong",   // a route says so
		`LOGIN "al*ice" wrong`, // it is no name
		`LOGIN alice ""`,
		"AUTHENTICATE PLAIN " + encode(`base64(bob\x00alice\x00wrong)`),
	} {
		began := time.Now()
		say(t, client, "a "+login+"\r\n")
		line, err := read.ReadString('\n')
		if took := time.Since(began); took < slow || !strings.HasPrefix(line, "a NO [AUTHENTICATIONFAILED]") {
			t.Errorf("%s: %q and %v after %v", login, line, err, took)
		}
	}
	client.Close()
	<-done
}

// A session that is to end before its login says so.
func TestShutdownBeforeLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(*configs.Config) {})
		v.hears(0, "* OK")
		say(t, v.client, "a LOG")
		synctest.Wait()
		v.stop()
		v.hears(0, "* BYE Server is shutting down")
		v.isClosed(0)
	})
}

// A ManageSieve client is told to try again.
func TestShutdownBeforeSieveLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(c *configs.Config) { c.Listen.Listeners[0].Service = configs.Sieve })
		for line := ""; !strings.HasPrefix(line, "OK"); {
			line, _ = v.read.ReadString('\n')
		}
		v.stop()
		v.hears(0, `BYE (TRYLATER) "Server is shutting down, try again"`)
		v.isClosed(0)
	})
}

// A POP3 client has asked nothing, and is told nothing.
func TestShutdownBeforePOP3Login(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(c *configs.Config) { c.Listen.Listeners[0].Service = configs.POP3 })
		v.hears(0, "+OK proxy.example.net ready")
		v.stop()
		v.isClosed(0)
	})
}

// A bug that one session meets is in the log, and ends that session alone.
func TestSessionCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(c *configs.Config) { c.Listen.Listeners[0].Service = "nntp" }) // which nobody speaks
		v.isClosed(0)
		if !strings.Contains(v.logs.String(), "session crashed") {
			t.Error("the log knows nothing:", &v.logs)
		}
	})
}

// Each failed login and each session has its line in the log, with what an operator looks for.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(*configs.Config) {})
		v.hears(0, "* OK")
		say(t, v.client, "a LOGIN Nobody@EXAMPLE.org hunter2\r\n")
		v.hears(0, "a NO")
		say(t, v.client, "b LOGIN \"al\tice\" hunter2\r\n")
		v.hears(0, "b NO")
		say(t, v.client, "c LOGOUT\r\n")
		v.hears(0, "* BYE")
		v.hears(0, "c OK")
		v.isClosed(0)
		type line struct{ Msg, Service, Client, User, Mechanism, Session, Reason, Error string }
		var got []line
		for text := range strings.Lines(v.logs.String()) {
			var l line
			if err := json.Unmarshal([]byte(text), &l); err != nil {
				t.Fatal(err)
			}
			if len(got) > 0 && l.Session != got[0].Session {
				t.Error("the session has changed its id:", text)
			}
			got = append(got, l)
		}
		if len(got) != 3 || strings.Contains(v.logs.String(), "hunter2") {
			t.Fatalf("want three lines and no secret:\n%s", &v.logs)
		}
		session := got[0].Session
		want := []line{
			{"login failed", "imap", "unix", "nobody@example.org", "PLAIN", session, "", "refused by a route: nobody is nobody"},
			{"login failed", "imap", "unix", "", "PLAIN", session, "", "unusable user name: a character that no name may have"},
			{"session", "imap", "unix", "", "", session, "client logged out", ""},
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("line %d is\n%+v, want\n%+v", i+1, got[i], want[i])
			}
		}
	})
}

// What a client is told of an error has no words of the error.
func TestReasons(t *testing.T) {
	for err, want := range map[error]Reason{
		backends.ErrNotFound:                   ReasonDenied,
		backends.ErrRefused:                    ReasonDenied,
		backends.ErrName:                       ReasonDenied,
		backends.ErrNoService:                  ReasonDenied,
		backends.ErrUnverified:                 ReasonDenied,
		backends.ErrNoEntry:                    ReasonDenied,
		errScramName:                           ReasonDenied,
		errAuthzid:                             ReasonDenied,
		errEmptyPassword:                       ReasonDenied,
		&backends.Refusal{Denied: true}:        ReasonDenied,
		&backends.Refusal{Code: "UNAVAILABLE"}: ReasonUnavailable,
		io.ErrUnexpectedEOF:                    ReasonUnavailable,
		context.DeadlineExceeded:               ReasonUnavailable,
		&net.OpError{Op: "dial", Err: io.EOF}:  ReasonUnavailable,
		&backends.Refusal{Code: "INUSE"}:       ReasonInUse,
		&backends.Refusal{Code: "IN-USE"}:      ReasonInUse,
		&backends.Refusal{Code: "LOGIN-DELAY"}: ReasonTooSoon,
		&backends.Refusal{Code: "SYS/PERM"}:    ReasonBroken,
		&backends.Refusal{Code: "SYS/TEMP"}:    ReasonUnavailable,
		&backends.Refusal{Code: "LIMIT"}:       ReasonUnavailable,
	} {
		if got := reasonFor(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

// In an exchange that goes on, the delay begins with the client's last word: a faked one must not be over before a real one.
func TestFailureDelayOfExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func([]byte) ([]byte, error) {
			time.Sleep(3 * time.Second)
			return []byte("c=biws,r=x,p=y"), nil
		}
		a, err := begin("SCRAM-SHA-256", []byte("n,,n=nobody,r=x"), slow)
		if err != nil {
			t.Fatal(err)
		}
		if err := new(decoys).play(a, false); err != nil {
			t.Fatal(err)
		}
		if since := time.Since(a.heard); since != 0 {
			t.Errorf("the client was last heard %v ago, and it has just answered", since)
		}
	})
}
