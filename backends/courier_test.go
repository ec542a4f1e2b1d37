package backends

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
	"jackdaw/internal/wire"
)

// mailStore is an LMTP store that plays one conversation after the other, one for each connection.
func mailStore(t *testing.T, change func(*configs.Access), talks ...string) (*Service, *observer.ObservedLogs) {
	t.Helper()
	address := onSocket(t)
	listener, err := net.Listen(address.Network, address.Address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, talk := range talks {
			conn, err := listener.Accept()
			if err != nil {
				t.Errorf("nobody came to hear %q", talk)
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			if err := playStore(conn, talk, nil); err != nil {
				t.Error(err)
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		select {
		case <-done:
		case <-time.After(patience / 10):
		}
		_ = listener.Close()
		<-done
	})
	access := way(address)
	if change != nil {
		change(&access)
	}
	core, logs := observer.New(zap.InfoLevel)
	s, err := newService("store1", configs.LMTP, access, "proxy.example.net", zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s, logs
}

const lmtpGreeting = "B: 220 store1\nP: LHLO client.example\nB: 250-store1\nB: 250-SIZE\nB: 250 8BITMIME\n"

var mailClient = Peer{Hello: "client.example"}

// The proxy's own name is said to a store that asks for it, and is no client's fault if that is wrong.
func TestConnectAuth(t *testing.T) {
	admin := func(a *configs.Access) { a.LoginUser, a.LoginPassword = "lmtp", "secret" }
	const asks = "B: 220 store1\nP: LHLO client.example\nB: 250-store1\nB: 250 AUTH PLAIN\n"
	for _, test := range []struct {
		what, talk, err string
		change          func(*configs.Access)
	}{
		{"asked for", asks + "P: AUTH PLAIN AGxtdHAAc2VjcmV0\nB: 235 in\n", "", admin},
		{"refused", asks + "P: AUTH PLAIN AGxtdHAAc2VjcmV0\nB: 535 5.7.8 no\n", `refused with [535] "5.7.8 no"`, admin},
		{"not asked for", lmtpGreeting, "", admin},
		{"asked for in other ways", strings.Replace(asks, "PLAIN", "LOGIN GSSAPI", 1), "", admin},
		{"not there", asks, "", nil},
	} {
		t.Run(test.what, func(t *testing.T) {
			s, _ := mailStore(t, test.change, test.talk)
			c, err := s.Connect(t.Context(), mailClient)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) || Denied(err) {
				t.Errorf("the error is %v, denied %v", err, Denied(err))
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Error("a secret is in the error")
			}
			if c != nil {
				c.Close()
			}
		})
	}
}

// A store is told of the client, and what it says before and after that is one thing to learn.
func TestConnectLearnsOnce(t *testing.T) {
	hello := "P: LHLO client.example\nB: 250-store1\nB: 250-8BITMIME\n"
	s, logs := mailStore(t, nil,
		"B: 220 store1\nP: LHLO proxy.example.net\nB: 250-store1\nB: 250-8BITMIME\nB: 250 XCLIENT ADDR PROTO HELO\nP: QUIT\nB: 221 bye",
		"B: 220 store1\n"+hello+"B: 250 XCLIENT ADDR PROTO HELO\nP: XCLIENT ADDR=[UNAVAILABLE] PROTO=LMTP HELO=client.example\nB: 220 store1\n"+
			"P: LHLO client.example\nB: 250-store1\nB: 250 8BITMIME\nP: QUIT\nB: 221 bye")
	if err := s.Ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := s.Connect(t.Context(), mailClient)
	if err != nil {
		t.Fatal(err)
	}
	c.Leave()
	if n := logged(logs, "learned capabilities"); n != 1 {
		t.Errorf("learned %d times", n)
	}
}

// begun is a message with one recipient.
func begun(t *testing.T, s *Service) *Courier {
	t.Helper()
	c, reply, err := s.Begin(t.Context(), nil, mailClient, wire.Path{}, nil)
	if err != nil || !reply.Positive() {
		t.Fatal(reply, err)
	}
	t.Cleanup(c.Close)
	if reply, err := c.Rcpt(t.Context(), wire.Path{Local: "alice"}, nil); err != nil || reply.Code != 250 {
		t.Fatal(reply, err)
	}
	return c
}

const begunTalk = lmtpGreeting + "P: MAIL FROM:<>\nB: 250 OK\nP: RCPT TO:<alice>\nB: 251 OK\n"

func TestCourier(t *testing.T) {
	s, _ := mailStore(t, nil, begunTalk+"P: DATA\nB: 354 OK\nP: x\nP: .\nB: 250 2.0.0 Saved\n"+
		"P: MAIL FROM:<bob@b.example> SIZE=1\nB: 250 OK\nP: RSET\nB: 250 OK\nP: QUIT\nB: 221 bye")
	ctx := t.Context()
	c := begun(t, s)
	if reply, err := c.Data(ctx); reply.Code != 354 || err != nil {
		t.Fatal(reply, err)
	}
	if err := c.Write(ctx, []byte("x\r\n.\r\n")); err != nil {
		t.Fatal(err)
	}
	if reply, err := c.Verdict(ctx); reply.Line() != "250 2.0.0 Saved" || err != nil {
		t.Fatal(reply, err)
	}
	if !c.Fit() {
		t.Error("not fit for another message")
	}
	params := []Parameter{{Name: "SIZE", Value: "1", Needs: "SIZE"}, {Name: "BODY", Value: "7BIT", Needs: "NONE", Optional: true}}
	again, _, err := s.Begin(ctx, c, mailClient, wire.Path{Local: "bob", Domain: "b.example"}, params)
	if again != c || err != nil {
		t.Fatal("another connection", err)
	}
	never := []Parameter{{Name: "NOTIFY", Value: "NEVER", Needs: "DSN"}}
	if reply, err := c.Rcpt(ctx, wire.Path{Local: "alice"}, never); !errors.Is(err, ErrBroken) {
		t.Error(reply, err)
	}
	if err := c.Chunk(1, true); !errors.Is(err, ErrBroken) {
		t.Error(err)
	}
	if err := c.Reset(ctx); err != nil {
		t.Error(err)
	}
	c.Leave()
}

// Each step has its time. What has failed is not tried again.
func TestCourierStalls(t *testing.T) {
	defer func(stall, reset, verdict time.Duration) {
		stallLimit, resetLimit, verdictLimit = stall, reset, verdict
	}(stallLimit, resetLimit, verdictLimit)
	stallLimit, resetLimit, verdictLimit = 50*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond
	big := make([]byte, 4<<20)
	for what, step := range map[string]func(*Courier) error{
		"RCPT":           func(c *Courier) error { _, err := c.Rcpt(t.Context(), wire.Path{Local: "bob"}, nil); return err },
		"DATA":           func(c *Courier) error { _, err := c.Data(t.Context()); return err },
		"BDAT":           func(c *Courier) error { _, err := c.Taken(t.Context()); return err },
		"sending":        func(c *Courier) error { return c.Write(t.Context(), big) },
		"end of message": func(c *Courier) error { _, err := c.Verdict(t.Context()); return err },
		"RSET":           func(c *Courier) error { return c.Reset(t.Context()) },
	} {
		t.Run(what, func(t *testing.T) {
			s, _ := mailStore(t, nil, begunTalk+"B* hang")
			c := begun(t, s)
			began := time.Now()
			err := step(c)
			if took := time.Since(began); !errors.Is(err, errSlow) || took < stallLimit || took > patience/2 {
				t.Errorf("%v after %v", err, took)
			}
			if again := step(c); again != err || c.Fit() {
				t.Errorf("once more: %v", again)
			}
		})
	}
}

// What is given up ends at once, whatever it waits for.
func TestCourierGivesUp(t *testing.T) {
	s, _ := mailStore(t, nil, begunTalk+"B* hang")
	c := begun(t, s)
	why := errors.New("given up")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	if _, err := c.Verdict(ctx); !errors.Is(err, why) {
		t.Error(err)
	}
}

// A kept connection that is of no use is replaced, and only once.
func TestBegin(t *testing.T) {
	const kept = lmtpGreeting + "P: MAIL FROM:<>\nB: 250 OK\nP: RCPT TO:<alice>\nB: 250 OK\nP: DATA\nB: 354 OK\nP: .\nB: 250 OK\n"
	const fresh = lmtpGreeting + "P: MAIL FROM:<>\n"
	for what, test := range map[string]struct{ first, second, err string }{
		"closed":          {kept + "B* close", fresh + "B: 250 OK", ""},
		"says goodbye":    {kept + "P: MAIL FROM:<>\nB: 421 4.4.2 idle", fresh + "B: 250 OK", ""},
		"is confused":     {kept + "P: MAIL FROM:<>\nB: 503 5.5.1 again?", fresh + "B: 250 OK", ""},
		"talks nonsense":  {kept + "P: MAIL FROM:<>\nB: what", fresh + "B: 250 OK", ""},
		"does not answer": {kept + "B* hang", fresh + "B: 250 OK", ""},
		"so the next":     {kept + "P: MAIL FROM:<>\nB: 421 4.4.2 idle", fresh + "B: 421 4.4.2 idle", "store closes the connection"},
	} {
		t.Run(what, func(t *testing.T) {
			defer func(before time.Duration) { stallLimit = before }(stallLimit)
			stallLimit = 200 * time.Millisecond
			s, _ := mailStore(t, nil, test.first, test.second)
			first := begun(t, s)
			ctx := t.Context()
			_, _ = first.Data(ctx)
			_ = first.Write(ctx, []byte(".\r\n"))
			if reply, err := first.Verdict(ctx); !reply.Positive() {
				t.Fatal(reply, err)
			}
			c, reply, err := s.Begin(ctx, first, mailClient, wire.Path{}, nil)
			switch {
			case err != nil:
				if test.err == "" || !strings.Contains(err.Error(), test.err) {
					t.Error(err)
				}
			case c == first || !reply.Positive() || test.err != "":
				t.Error(reply)
			}
			if c != nil {
				c.Close()
			}
		})
	}
	// A verdict is a verdict.
	s, _ := mailStore(t, nil, lmtpGreeting+"P: MAIL FROM:<>\nB: 550 5.7.1 no\nP: MAIL FROM:<>\nB: 552 5.3.4 no")
	c, reply, err := s.Begin(t.Context(), nil, mailClient, wire.Path{}, nil)
	if reply.Code != 550 || err != nil {
		t.Fatal(reply, err)
	}
	again, reply, err := s.Begin(t.Context(), c, mailClient, wire.Path{}, nil)
	if again != c || reply.Code != 552 || err != nil {
		t.Error(reply, err)
	}
	again.Close()
}

// Nobody's password is shown to a store of LMTP, so it has no test to pass.
func TestMailIsNotTested(t *testing.T) {
	s, _ := mailStore(t, nil, "B: 220 store1\nP: LHLO proxy.example.net\nB: 250-store1\nB: 250 AUTH PLAIN\nP: QUIT\nB: 221 bye")
	if err := s.inspect(t.Context()); err != nil || s.Problem() != nil || !s.trusted() {
		t.Error(err, s.Problem())
	}
}

// A store may say anything: its replies end, and what the client hears of them is one printable line.
func FuzzCourier(f *testing.F) {
	f.Add("250 OK\r\n250 OK\r\n354 OK\r\n250 2.0.0 Saved\r\n")
	f.Add("250 OK\r\n550-5.1.1 a\r\n550 5.1.1 b\r\n503 what\r\n421 bye\r\n")
	f.Fuzz(func(t *testing.T, says string) {
		raw := &deaf{says: says}
		c := &Courier{conn: wire.New(raw)}
		ctx := context.Background()
		for _, ask := range []func() (wire.Reply, error){
			func() (wire.Reply, error) { return c.mail(ctx, wire.Path{Local: "a b"}, nil) },
			func() (wire.Reply, error) { return c.Rcpt(ctx, wire.Path{Local: "a", Domain: "b"}, nil) },
			func() (wire.Reply, error) { return c.Data(ctx) },
			func() (wire.Reply, error) { return c.Verdict(ctx) },
		} {
			reply, err := ask()
			line := reply.Line()
			unprintable := strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' })
			if err == nil && (len(line) > 510 || len(line) < 3 || unprintable) {
				t.Errorf("a client would hear %q", line)
			}
			if err == nil && reply.Code != 250 && reply.Code != 354 && reply.Code < 400 {
				t.Errorf("a client would hear %d", reply.Code)
			}
		}
		if got := raw.got.String(); !strings.HasPrefix("MAIL FROM:<\"a b\">\r\nRCPT TO:<a@b>\r\nDATA\r\n", got) {
			t.Errorf("said %q", got)
		}
	})
}
