package backends

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

// silent takes connections and says nothing.
func silent(f *fakeStore) { f.greeting = "" }

func TestLogin(t *testing.T) {
	for name, address := range map[string]configs.Address{"tcp": onLoopback, "unix": onSocket(t)} {
		t.Run(name, func(t *testing.T) {
			store := serve(t, address)
			s, _ := begin(t, way(store.address))
			conn, err := s.Login(context.Background(), visit("alice"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Conn.Close() }()
			if conn.Address != store.address || conn.Capabilities != "IMAP4rev1 QUOTA" || conn.Final != nil {
				t.Errorf("the connection is to %s, with %q", conn.Address, conn.Capabilities)
			}
			// It is the client's now, without any limit of the login's.
			raw, rest, err := conn.Conn.Detach()
			if err != nil || len(rest) > 0 {
				t.Errorf("detached with %q, %v", rest, err)
			}
			if _, err := io.WriteString(raw, "c1 NOOP\r\n"); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 100)
			if n, err := raw.Read(answer); err != nil || string(answer[:n]) != "c1 OK done\r\n" {
				t.Errorf("the store answers %q, %v", answer[:n], err)
			}
		})
	}
}

func TestLoginRefused(t *testing.T) {
	later := func(user, password string) string {
		switch {
		case user == "carol":
			return "NO [UNAVAILABLE] her disk is gone"
		case user == "dave":
			return "drop"
		}
		return honest(user, password)
	}
	store := serve(t, onLoopback, func(f *fakeStore) { f.verify = later })
	s, _ := begin(t, way(store.address))
	for _, test := range []struct {
		user   string
		denied bool
		want   string
	}{
		{"mallory", true, "logging in at " + store.address.Address + `: refused with [AUTHENTICATIONFAILED] "no"`},
		{"carol", false, "logging in at " + store.address.Address + `: refused with [UNAVAILABLE] "her disk is gone"`},
		{"dave", false, "logging in at " + store.address.Address + ": EOF"},
	} {
		if err := login(t, s, test.user); err == nil || Denied(err) != test.denied || err.Error() != test.want {
			t.Errorf("%s's login ends with %v, denied %v; want %q", test.user, err, Denied(err), test.want)
		}
	}
	if s.RefusalTime() <= 0 {
		t.Error("a refusal takes no time")
	}
	if s.Problem() != nil {
		t.Errorf("there is a problem: %v", s.Problem())
	}
}

// Addresses are tried in order, as long as nothing was said that is a secret.
func TestAddresses(t *testing.T) {
	t.Parallel()
	gone := onSocket(t)
	greeting := func(text string) func(*fakeStore) { return func(f *fakeStore) { f.greeting = text } }
	rude := serve(t, onLoopback, greeting("* BYE overload"))
	open := serve(t, onLoopback, greeting("* PREAUTH you are root"))
	hung := serve(t, onLoopback, silent)
	good, spare := serve(t, onLoopback), serve(t, onLoopback)
	for _, test := range []struct {
		what string
		all  []configs.Address
		want configs.Address
	}{
		{"the first", []configs.Address{good.address, spare.address}, good.address},
		{"one is not there", []configs.Address{gone, good.address}, good.address},
		{"one says BYE, one PREAUTH", []configs.Address{rude.address, open.address, good.address}, good.address},
		{"one says nothing", []configs.Address{hung.address, good.address}, good.address},
	} {
		t.Run(test.what, func(t *testing.T) {
			access := way(test.all...)
			access.AcceptsAnyPassword = true // the self-test is of no interest here
			s, _ := begin(t, access)
			conn, err := s.Login(context.Background(), visit("alice"))
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Conn.Close()
			if conn.Address != test.want {
				t.Errorf("the connection is to %s, want %s", conn.Address, test.want)
			}
		})
	}
	for _, store := range []*fakeStore{rude, open, hung, spare} {
		if got := store.logins(); len(got) > 0 {
			t.Errorf("a store that was not to hear anything heard %q", got)
		}
	}
	s, _ := begin(t, way(gone, rude.address))
	err := login(t, s, "alice")
	for _, part := range []string{"connecting to " + gone.String() + ": dial unix", "connecting to " + rude.address.String() + `: greeting is "BYE"`} {
		if err == nil || Denied(err) || !strings.Contains(err.Error(), part) {
			t.Errorf("the error is %v, and does not tell %q", err, part)
		}
	}
}

// Once a password was said no other address hears it: the first may have let the user in.
func TestNoAddressAfterSecret(t *testing.T) {
	for what, answer := range map[string]string{"drop": "drop", "bye": "OK\r\n* BYE", "bad": "BAD what", "later": "NO [UNAVAILABLE] later", "no": refused} {
		t.Run(what, func(t *testing.T) {
			first := serve(t, onLoopback, func(f *fakeStore) {
				f.verify = func(user, password string) string {
					if user == "alice" {
						return strings.Replace(answer, "OK", "LATER", 1)
					}
					return refused
				}
			})
			second := serve(t, onLoopback)
			s, _ := begin(t, way(first.address, second.address))
			if err := login(t, s, "alice"); err == nil {
				t.Error("alice is let in")
			}
			if first.count(alice) != 1 || second.count(alice) != 0 {
				t.Errorf("the first heard %q, and the second %q", first.logins(), second.logins())
			}
		})
	}
}

// unstarted makes a service that does nothing unasked.
func unstarted(t *testing.T, access configs.Access) *Service {
	t.Helper()
	s, err := newService("store1", configs.IMAP, access, "proxy.example.net", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// inspecting makes a service that is about to inspect its store.
func inspecting(t *testing.T, access configs.Access) *Service {
	t.Helper()
	s := unstarted(t, access)
	s.gate <- struct{}{}
	return s
}

// A login ends when its time is over, also if it came upon an inspection that hangs.
func TestLoginEndsWithContext(t *testing.T) {
	enough := errors.New("enough")
	hang := func(user, password string) string {
		if user == "alice" {
			return "hang"
		}
		return refused
	}
	for _, test := range []struct {
		what    string
		setting func(*fakeStore)
		begin   func(*testing.T, configs.Access) *Service
		reached func(*fakeStore) bool // the place where the login is to end
	}{
		{"in its own inspection's greeting", silent, unstarted, func(f *fakeStore) bool { return f.connections() == 1 }},
		{"in its own inspection's test", func(f *fakeStore) { f.verify = func(string, string) string { return "hang" } }, unstarted,
			func(f *fakeStore) bool { return f.count(theTest) == 1 }},
		{"behind another inspection", silent, inspecting, func(*fakeStore) bool { return true }},
		{"in the login", func(f *fakeStore) { f.verify = hang }, unstarted, func(f *fakeStore) bool { return f.count(alice) == 1 }},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			store := serve(t, onLoopback, test.setting)
			s := test.begin(t, way(store.address))
			ctx, cancel := context.WithCancelCause(context.Background())
			ended := make(chan error, 1)
			go func() {
				_, err := s.Login(ctx, visit("alice"))
				ended <- err
			}()
			eventually(t, "the place is reached", func() bool { return test.reached(store) })
			cancel(enough)
			if err := <-ended; !errors.Is(err, enough) || Denied(err) {
				t.Errorf("the login ended with %v", err)
			}
		})
	}
}

// A store that hangs does not use up all of the client's time.
func TestLoginLimits(t *testing.T) {
	t.Parallel()
	var logins sync.WaitGroup // side by side, for each of them waits
	for what, test := range map[string]struct {
		setting func(*fakeStore)
		want    string
	}{
		"no greeting": {silent, "connecting to ADDRESS: store is too slow: reading the greeting: "},
		"no answer to the test": {func(f *fakeStore) {
			f.verify = func(string, string) string { return "hang" }
		}, "store is too slow"},
		"no answer to the login": {func(f *fakeStore) {
			f.verify = func(user, _ string) string {
				if user == "alice" {
					return "hang"
				}
				return refused
			}
		}, "logging in at ADDRESS: store is too slow: "},
	} {
		store := serve(t, onLoopback, test.setting)
		s, _ := begin(t, way(store.address))
		want := strings.ReplaceAll(test.want, "ADDRESS", store.address.String())
		logins.Go(func() {
			if err := login(t, s, "alice"); !errors.Is(err, errSlow) || !strings.Contains(err.Error(), want) || Denied(err) {
				t.Errorf("%s: the login ended with %v, want %q", what, err, want)
			}
		})
	}
	logins.Wait()
}

// close ends what hangs, and what comes later. A store that is trusted can still be used: its sessions began before.
func TestClose(t *testing.T) {
	hung := serve(t, onLoopback, silent)
	s, _ := begin(t, way(hung.address))
	eventually(t, "the store is asked", func() bool { return hung.connections() > 0 })
	ended := make(chan error, 1)
	go func() { ended <- login(t, s, "alice") }()
	s.close()
	if err := <-ended; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the login ended with %v", err)
	}
	if err := login(t, s, "alice"); !errors.Is(err, errClosed) {
		t.Errorf("a login afterwards ended with %v", err)
	}
	s.close() // as often as it likes

	store := serve(t, onLoopback)
	s, _ = begin(t, way(store.address))
	eventually(t, "the store is trusted", s.trusted)
	s.close()
	mustLogin(t, s, "alice")
	if store.count(aliceTest) > 0 {
		t.Error("a test has begun afterwards")
	}
}

// What a store says of itself at a login is learned at once.
func TestLearn(t *testing.T) {
	store := serve(t, onLoopback)
	s, logs := begin(t, way(store.address))
	mustLogin(t, s, "alice")
	caps, _ := s.Capabilities()
	if got := writeCaps(caps); got != "IMAP4REV1;SASL-IR | PLAIN" {
		t.Errorf("learned %q", got)
	}
	store.set(func(f *fakeStore) {
		f.caps = "IMAP4rev1 SASL-IR IDLE AUTH=PLAIN AUTH=SCRAM-SHA-1 AUTH=SCRAM-SHA-1-PLUS"
	})
	mustLogin(t, s, "alice")
	caps, _ = s.Capabilities()
	if got := writeCaps(caps); got != "IMAP4REV1;SASL-IR;IDLE | PLAIN" {
		t.Errorf("then learned %q", got)
	}
	mustLogin(t, s, "alice")
	if n := logged(logs, "learned capabilities"); n != 2 {
		t.Errorf("the log tells of it %d times", n)
	}
}

// Ask learns without any login, and without a service that runs.
func TestAsk(t *testing.T) {
	store := serve(t, onLoopback)
	s := unstarted(t, way(store.address))
	if err := s.Ask(context.Background()); err != nil {
		t.Fatal(err)
	}
	if caps, known := s.Capabilities(); !known || !caps.Has("SASL-IR") || len(store.logins()) > 0 {
		t.Errorf("learned %v; the store heard %q", caps, store.logins())
	}
	store.close()
	if err := s.Ask(context.Background()); err == nil {
		t.Error("a store that is gone answers")
	}
}

// No password goes to a store whose certificate is not the one that is wanted.
func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pem := func(name string, ca *devca.CA) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, ca.PEM, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	stranger, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := pem("ours.pem", authority()), pem("theirs.pem", stranger)
	old, err := authority().Issue(devca.Options{Names: []string{"store.example"}, NotAfter: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	named := certificate(t, "store.example")
	for _, test := range []struct {
		what   string
		server *tls.Config
		name   string // tls_name
		ca     string
		unix   bool
		want   string // "" if alice comes in
	}{
		{what: "a good certificate", server: named, name: "store.example", ca: ours},
		{what: "over a unix socket", server: named, name: "store.example", ca: ours, unix: true},
		{what: "for an address", server: certificate(t, "127.0.0.1"), ca: ours},
		{what: "for another name", server: named, name: "other.example", ca: ours, want: "certificate is valid for store.example, not other.example"},
		{what: "not for the address", server: named, ca: ours, want: "127.0.0.1"},
		{what: "of a stranger", server: named, name: "store.example", ca: theirs, want: "unknown authority"},
		{what: "not of the system's authorities", server: named, name: "store.example", want: "unknown authority"},
		{what: "out of date", server: &tls.Config{Certificates: []tls.Certificate{old.TLS}}, name: "store.example", ca: ours, want: "expired"},
		{what: "old TLS", server: &tls.Config{Certificates: named.Certificates, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10},
			name: "store.example", ca: ours, want: "protocol version"},
	} {
		for _, mode := range []configs.TLSMode{configs.TLSImplicit, configs.TLSStartTLS} {
			t.Run(test.what+" "+string(mode), func(t *testing.T) {
				address := onLoopback
				if test.unix {
					address = onSocket(t)
				}
				store := serve(t, address, func(f *fakeStore) { f.mode, f.tls = mode, test.server })
				access := way(store.address)
				access.TLS, access.TLSName, access.TLSCA = mode, test.name, test.ca
				s, _ := begin(t, access)
				err := login(t, s, "alice")
				if test.want == "" {
					if err != nil {
						t.Errorf("alice is not let in: %v", err)
					}
					mustLogin(t, s, "alice") // with a session ticket
					return
				}
				if err == nil || Denied(err) || !strings.Contains(err.Error(), "TLS: ") || !strings.Contains(err.Error(), test.want) {
					t.Errorf("the login ended with %v, want %q", err, test.want)
				}
				if got := store.logins(); len(got) > 0 {
					t.Errorf("the store heard %q", got)
				}
			})
		}
	}
}

// A store without TLS hears no password where TLS is wanted.
func TestTLSMissing(t *testing.T) {
	for _, mode := range []configs.TLSMode{configs.TLSImplicit, configs.TLSStartTLS} {
		store := serve(t, onLoopback)
		access := way(store.address)
		access.TLS, access.TLSName = mode, "store.example"
		s, _ := begin(t, access)
		if err := login(t, s, "alice"); err == nil || Denied(err) || !strings.Contains(err.Error(), "TLS: ") {
			t.Errorf("%s: the login ended with %v", mode, err)
		}
		if got := store.logins(); len(got) > 0 {
			t.Errorf("%s: the store heard %q", mode, got)
		}
	}
}

// A ManageSieve store is looked at and logged in to in the same way.
func TestSieveService(t *testing.T) {
	address := onSocket(t)
	listener, err := net.Listen(address.Network, address.Address)
	if err != nil {
		t.Fatal(err)
	}
	const greeting = "B: \"SASL\" \"PLAIN\"\nB: \"SIEVE\" \"fileinto\"\nB: OK\n"
	var bad atomic.Pointer[error]
	var ended atomic.Int32 // conversations
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			talk := greeting + "P~ AUTHENTICATE\nB: NO \"no\"\nP: LOGOUT\nB* close" // the tests, whose passwords nobody knows
			switch n {
			case 0: // a look
				talk = greeting + "P: LOGOUT\nB* close"
			case 2:
				talk = greeting + "P: AUTHENTICATE \"PLAIN\" \"" + plain + "\"\nB: OK"
			}
			if err := playStore(conn, talk, nil); err != nil {
				bad.Store(&err)
			}
			_ = conn.Close()
			ended.Add(1)
		}
	}()
	defer func() {
		_ = listener.Close()
		<-done
		if err := bad.Load(); err != nil {
			t.Error(*err)
		}
	}()
	s, err := newService("store1", configs.Sieve, way(address), "proxy.example.net", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	s.start(0)
	defer s.close()
	mustLogin(t, s, "alice")
	eventually(t, "alice's name is tested, too", func() bool { return ended.Load() == 4 })
	if caps, _ := s.Capabilities(); writeCaps(caps) != "SIEVE=fileinto | PLAIN" || s.Problem() != nil {
		t.Errorf("learned %q; the problem is %v", writeCaps(caps), s.Problem())
	}
}
