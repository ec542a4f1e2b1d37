package backends

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"go.uber.org/zap"

	"jackdaw/configs"
)

// hosts are the names that tests have made up: each has its addresses, or hangs without one.
var hosts sync.Map

func lookupTest(ctx context.Context, network, host string) ([]netip.Addr, error) {
	addresses, ok := hosts.Load(host)
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if all := addresses.([]netip.Addr); all != nil {
		return all, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// host makes up a name for addresses.
func host(t *testing.T, name string, addresses ...string) {
	var all []netip.Addr
	for _, a := range addresses {
		all = append(all, netip.MustParseAddr(a))
	}
	hosts.Store(name, all)
	t.Cleanup(func() { hosts.Delete(name) })
}

func tcp(host, port string) configs.Address {
	return configs.Address{Network: "tcp", Address: net.JoinHostPort(host, port)}
}

// on is the port of a store.
func on(f *fakeStore) string {
	_, port, _ := net.SplitHostPort(f.address.Address)
	return port
}

// open is a login without a self-test before it, and what it wants of the service is of no interest.
func open(t *testing.T, s *Service) (configs.Address, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, p, err := s.open(ctx, Opening{})
	if err == nil {
		_ = conn.Close()
	}
	return p.address, err
}

func TestResolve(t *testing.T) {
	host(t, "two.example", "2001:db8::1", "2001:db8::2", "2001:db8::3", "::ffff:192.0.2.1")
	host(t, "hung.example")
	for text, want := range map[string]string{
		"192.0.2.1:143":     "[192.0.2.1:143]",
		"[2001:db8::1]:143": "[[2001:db8::1]:143]",
		"two.example:143": "[two.example:143 ([2001:db8::1]:143) two.example:143 (192.0.2.1:143) " +
			"two.example:143 ([2001:db8::2]:143) two.example:143 ([2001:db8::3]:143)]",
		"no.example:143":   "[no.example:143] lookup no.example: no such host",
		"hung.example:143": "[hung.example:143] store is too slow: context deadline exceeded",
	} {
		s := unstarted(t, way(configs.Address{Network: "tcp", Address: text}))
		paths := s.resolve(t.Context(), false)
		got := fmt.Sprint(paths)
		if err := s.unresolved(paths[0]); err != nil {
			got += " " + err.Error()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	socket := configs.Address{Network: "unix", Address: "/run/imap:143"}
	if paths := unstarted(t, way(socket)).resolve(t.Context(), false); !slices.Equal(paths, []path{{socket, socket}}) {
		t.Errorf("%s: %v", socket, paths)
	}
}

// What a name server has said is good for a while, and longer when it is gone.
func TestResolveAgain(t *testing.T) {
	s := unstarted(t, way(tcp("moves.example", "143")))
	leads := func(anew bool, want string) {
		t.Helper()
		if got := fmt.Sprint(s.resolve(t.Context(), anew)); got != "["+want+"]" {
			t.Errorf("resolved to %s, want %s", got, want)
		}
	}
	leads(false, "moves.example:143")
	host(t, "moves.example", "192.0.2.1")
	leads(true, "moves.example:143 (192.0.2.1:143)")
	host(t, "moves.example", "192.0.2.2")
	leads(false, "moves.example:143 (192.0.2.1:143)")
	leads(true, "moves.example:143 (192.0.2.2:143)")
	hosts.Delete("moves.example")
	leads(true, "moves.example:143 (192.0.2.2:143)")
}

// No login waits for a name server that has answered once and is hung now; when it is back, the next ones hear what it says.
func TestResolveHung(t *testing.T) {
	host(t, "stays.example", "192.0.2.1")
	s := unstarted(t, way(tcp("stays.example", "143")))
	leads := func() string { return fmt.Sprint(s.resolve(t.Context(), false)) }
	const first, second = "[stays.example:143 (192.0.2.1:143)]", "[stays.example:143 (192.0.2.2:143)]"
	if got := leads(); got != first {
		t.Fatalf("resolved to %s", got)
	}
	aged := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		known := s.hosts[s.Access.Addresses[0]]
		known.at = time.Now().Add(-resolvedFor)
		s.hosts[s.Access.Addresses[0]] = known
	}
	host(t, "stays.example")
	aged()
	began := time.Now()
	for range 3 {
		if got := leads(); got != first {
			t.Errorf("resolved to %s", got)
		}
	}
	if took := time.Since(began); took >= dialLimit {
		t.Errorf("logins waited %v for a name server that is hung", took)
	}
	s.tasks.Wait() // it has been asked, in vain
	if err := s.hosts[s.Access.Addresses[0]].err; err == nil {
		t.Error("it was not asked")
	}
	host(t, "stays.example", "192.0.2.2")
	aged()
	leads()
	eventually(t, "the new address", func() bool { return leads() == second })
}

// A question that comes to nothing in the end does not undo what another has heard in the meantime.
func TestResolveOvertaken(t *testing.T) {
	host(t, "moves.example", "192.0.2.1")
	s := unstarted(t, way(tcp("moves.example", "143")))
	s.resolve(t.Context(), false)
	host(t, "moves.example")
	var hung sync.WaitGroup
	hung.Go(func() { s.resolve(t.Context(), true) })
	time.Sleep(dialLimit / 10) // it is being asked
	host(t, "moves.example", "192.0.2.2")
	s.resolve(t.Context(), true)
	hung.Wait()
	if got := fmt.Sprint(s.resolve(t.Context(), false)); got != "[moves.example:143 (192.0.2.2:143)]" {
		t.Errorf("resolved to %s", got)
	}
}

// A host's addresses are ways like others: each is tried, and remembered by itself.
func TestHostWithAddresses(t *testing.T) {
	t.Parallel()
	hung := serve(t, tcp("127.0.0.2", "0"), silent)
	good := serve(t, tcp("127.0.0.3", on(hung)))
	name := tcp("farm.example", on(hung))
	host(t, "farm.example", "127.0.0.1", "127.0.0.2", "127.0.0.3")
	s := unstarted(t, way(tcp("no.example", "143"), name))
	for range 2 { // at the first address nobody listens, and the second says nothing: neither is asked a second time
		if address, err := open(t, s); err != nil || address != name {
			t.Fatalf("it leads to %v, %v", address, err)
		}
	}
	if hung.connections() != 1 || good.connections() != 2 {
		t.Errorf("asked %d times and %d times", hung.connections(), good.connections())
	}
	eventually(t, "nothing is left open", func() bool { return hung.left() && good.left() })
	good.close()
	_, err := open(t, s)
	for _, want := range []string{
		"connecting to no.example:143: lookup no.example: no such host",
		"connecting to " + name.Address + " (127.0.0.1:" + on(hung) + "): dial tcp 127.0.0.1:",
		"connecting to " + name.Address + " (127.0.0.2:" + on(hung) + "): store is too slow: reading the greeting: ",
		"connecting to " + name.Address + " (127.0.0.3:" + on(hung) + "): dial tcp 127.0.0.3:",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, and does not tell %q", err, want)
		}
	}
}

// The name is what TLS is checked for, whatever the address.
func TestHostUnderTLS(t *testing.T) {
	store := serve(t, tcp("127.0.0.2", "0"), func(f *fakeStore) {
		f.mode, f.tls = configs.TLSImplicit, certificate(t, "store.example")
	})
	host(t, "store.example", "127.0.0.2")
	host(t, "other.example", "127.0.0.2")
	for name, want := range map[string]string{"store.example": "", "other.example": "not other.example"} {
		s := unstarted(t, way(tcp(name, on(store))))
		s.Access.TLS, s.Access.TLSCA = configs.TLSImplicit, ""
		var err error
		if s.tls, err = clientTLS(s.Access); err != nil {
			t.Fatal(err)
		}
		s.tls[s.Access.Addresses[0]].RootCAs = authority().Pool()
		_, err = open(t, s)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An address that has failed is tried last, for a while, where nobody looks when it is up again.
func TestFailedComesLast(t *testing.T) {
	first, second := serve(t, onLoopback), serve(t, onLoopback)
	first.close()
	s := unstarted(t, way(first.address, second.address))
	leads := func(want configs.Address) {
		t.Helper()
		if got, err := open(t, s); err != nil || got != want {
			t.Fatalf("it leads to %v, %v; want %v", got, err, want)
		}
	}
	leads(second.address)
	first.listen(t)
	leads(second.address) // the first is not asked again so soon
	s.mu.Lock()
	s.paths[path{first.address, first.address}].seen = time.Now().Add(-avoidFor - time.Second)
	s.mu.Unlock()
	leads(first.address)
	leads(first.address)

	second.close()
	first.close()
	if _, err := open(t, s); err == nil {
		t.Fatal("nobody is there")
	}
	first.listen(t)
	leads(first.address) // where all have failed, all are tried
}

// What has not failed by itself is not held against an address: a client may go, or have no time left.
func TestClientLeavesAddress(t *testing.T) {
	gone := errors.New("client has gone")
	address := func(f *fakeStore) configs.Address { return f.address }
	name := func(f *fakeStore) configs.Address { return tcp("hung.farm.example", on(f)) }
	for what, test := range map[string]struct {
		address func(*fakeStore) configs.Address
		cause   error
		failed  int
	}{
		"a client has gone":              {address, gone, 0},
		"a client of a host has gone":    {name, gone, 0},
		"the store is too slow":          {address, errSlow, 1},
		"the first of hosts is too slow": {name, errSlow, 1},
	} {
		t.Run(what, func(t *testing.T) {
			hung := serve(t, onLoopback, silent)
			host(t, "hung.farm.example", "127.0.0.1", "127.0.0.2")
			spare := serve(t, tcp("127.0.0.2", on(hung)))
			s := unstarted(t, way(test.address(hung), spare.address))
			ctx, cancel := context.WithCancelCause(context.Background())
			go func() {
				for hung.connections() == 0 {
					time.Sleep(time.Millisecond)
				}
				cancel(test.cause)
			}()
			if _, _, _, err := s.open(ctx, Opening{}); !errors.Is(err, test.cause) {
				t.Errorf("it ends with %v", err)
			}
			if spare.connections() > 0 {
				t.Error("another address is asked afterwards")
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			failed := 0
			for _, c := range s.paths {
				if c.err != nil {
					failed++
				}
			}
			if failed != test.failed {
				t.Errorf("%d have failed, want %d", failed, test.failed)
			}
		})
	}
}

// What is known of addresses outlives a reload that does not change their backend.
func TestHealthOutlivesReload(t *testing.T) {
	first, second := serve(t, onLoopback), serve(t, onLoopback)
	first.close()
	access := way(first.address, second.address)
	access.AcceptsAnyPassword = true
	config := &configs.Config{Backends: []configs.Backend{{Name: "store1", Access: map[configs.Service]configs.Access{configs.IMAP: access}}}}
	var routers []*Router
	for range 2 {
		var old *Router
		if routers != nil {
			old = routers[0]
		}
		r, err := NewRouter(config, old, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		routers = append(routers, r)
		s := r.Services()[0]
		eventually(t, "both were looked at", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, c := range s.paths {
				if c.seen.IsZero() {
					return false
				}
			}
			return len(s.paths) == 2
		})
		s.mu.Lock()
		if c := s.paths[path{first.address, first.address}]; !c.down {
			t.Error("the first is up")
		}
		s.mu.Unlock()
	}
	routers[0].Retire(routers[1])
	routers[1].Retire(nil)
}

// Connections come from the source addresses of their family, in turn.
func TestSources(t *testing.T) {
	address := func(all ...string) (list []netip.Addr) {
		for _, a := range all {
			list = append(list, netip.MustParseAddr(a))
		}
		return list
	}
	s := unstarted(t, way(tcp("127.0.0.1", "143")))
	s.Access.Source = address("192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "192.0.2.3")
	for _, test := range []struct{ to, want string }{
		{"127.0.0.1:143", "[192.0.2.1 192.0.2.2 192.0.2.3]"},
		{"[::1]:143", "[2001:db8::1 2001:db8::2]"},
		{"127.0.0.1:143", "[192.0.2.2 192.0.2.3 192.0.2.1]"},
		{"[::1]:143", "[2001:db8::2 2001:db8::1]"},
		{"127.0.0.1:143", "[192.0.2.3 192.0.2.1 192.0.2.2]"},
		{"127.0.0.1:143", "[192.0.2.1 192.0.2.2 192.0.2.3]"},
		{"[::1]:143", "[2001:db8::1 2001:db8::2]"},
	} {
		if got := fmt.Sprint(s.sources(configs.Address{Network: "tcp", Address: test.to})); got != test.want {
			t.Errorf("to %s from %s, want %s", test.to, got, test.want)
		}
	}
	s.turns[1].Store(^uint32(0)) // a counter has an end
	if got := s.sources(tcp("127.0.0.1", "143")); len(got) != 3 {
		t.Errorf("from %v", got)
	}

	store := serve(t, onLoopback)
	socket := serve(t, onSocket(t))
	for _, test := range []struct {
		to     *fakeStore
		source []netip.Addr
		want   string // where they come from, of two
		err    string
	}{
		{to: store, source: address("127.0.0.5", "127.0.0.6"), want: "[127.0.0.5 127.0.0.6]"},
		{to: store, source: address("192.0.2.1", "::1", "127.0.0.6"), want: "[127.0.0.6 127.0.0.6]"}, // the first is not of this host
		{to: store, source: address("192.0.2.1"), err: "cannot assign requested address"},
		{to: store, source: address("::1"), err: "no source address is of its family"},
		{to: socket, source: address("::1"), want: "[ ]"},
	} {
		s := unstarted(t, way(test.to.address))
		s.Access.Source = test.source
		test.to.set(func(f *fakeStore) { f.conns = nil })
		var errs []error
		for n := range 2 {
			_, err := open(t, s)
			errs = append(errs, err)
			eventually(t, "it has come", func() bool { return err != nil || len(test.to.from()) > n })
		}
		err := errors.Join(errs...)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("from %s: %v, want %q", test.source, err, test.err)
			}
		} else if got := fmt.Sprint(test.to.from()); got != test.want || err != nil {
			t.Errorf("from %s: %s, %v; want %s", test.source, got, err, test.want)
		}
	}
}

// Each step has its time, and its name in the error.
func TestStepLimits(t *testing.T) {
	t.Parallel()
	hung := serve(t, onLoopback, silent)
	deaf := serve(t, onLoopback, func(f *fakeStore) { f.greeting = "* OK ready"; f.caps = "hang" })
	host(t, "slow.example")
	implicit := way(hung.address)
	implicit.TLS = configs.TLSImplicit
	for what, test := range map[string]struct {
		access configs.Access
		want   string
	}{
		"lookup":       {way(tcp("slow.example", "143")), "connecting to slow.example:143: store is too slow: "},
		"TLS":          {implicit, "connecting to " + hung.address.Address + ": TLS: store is too slow: "},
		"greeting":     {way(hung.address), "connecting to " + hung.address.Address + ": store is too slow: reading the greeting: "},
		"capabilities": {way(deaf.address), "connecting to " + deaf.address.Address + ": store is too slow: CAPABILITY: "},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			_, err := open(t, unstarted(t, test.access))
			if err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, errSlow) {
				t.Errorf("%v, want %q", err, test.want)
			}
			if took := time.Since(began); took > openLimit+2*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	t.Run("PROXY header", func(t *testing.T) {
		t.Parallel()
		access := way(hung.address)
		access.ClientInfo = configs.ClientInfoProxy
		ours, theirs := net.Pipe() // which nobody reads
		defer ours.Close()
		defer theirs.Close()
		_, _, err := unstarted(t, access).prepare(t.Context(), ours, hung.address, Opening{})
		if want := "PROXY header: store is too slow: "; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	})
	t.Cleanup(func() { eventually(t, "nothing is left open", hung.left) })
}

// A PROXY header is the first thing that a store hears, of a client or of ourselves.
func TestClientInfoProxy(t *testing.T) {
	for _, mode := range []configs.TLSMode{configs.TLSNone, configs.TLSStartTLS, configs.TLSImplicit} {
		t.Run(string(mode), func(t *testing.T) {
			store := serve(t, onLoopback, func(f *fakeStore) {
				f.proxied, f.mode, f.tls, f.caps = true, mode, certificate(t, "127.0.0.1"), "IMAP4rev1 SASL-IR ID AUTH=PLAIN"
			})
			access := way(store.address)
			access.ClientInfo, access.TLS = configs.ClientInfoProxy, mode
			s := unstarted(t, access)
			if mode != configs.TLSNone {
				s.tls[store.address].RootCAs = authority().Pool()
			}
			v := visit("alice")
			v.Peer = *visitor
			v.Peer.TLS = 0
			conn, err := s.Login(context.Background(), v)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Conn.Close()
			store.mu.Lock()
			defer store.mu.Unlock()
			if got := store.headers[1:]; got[0] != "local" || got[1] != "192.0.2.7:50000 to 198.51.100.1:995, for mail.example.org" {
				t.Errorf("the headers are %q", store.headers)
			}
		})
	}
}

func TestOnBehalf(t *testing.T) {
	access := configs.Access{LoginUser: "proxy", LoginPassword: "own"}
	for form, want := range map[configs.LoginForm]string{
		configs.LoginAuthzid: "alice\x00proxy\x00own",
		configs.LoginMaster:  "\x00alice*proxy\x00own",
	} {
		client, err := OnBehalf(access, form, "alice")
		if err != nil || !isOnBehalf(client) {
			t.Fatalf("%s: %v, %v", form, client, err)
		}
		if name, first, err := client.Start(); name != "PLAIN" || string(first) != want || err != nil {
			t.Errorf("%s: %s %q %v", form, name, first, err)
		}
	}
	if client, err := OnBehalf(access, configs.LoginXCLIENT, "alice"); err != nil || !isOnBehalf(client) {
		t.Errorf("xclient: %v, %v", client, err)
	}
	for _, form := range []configs.LoginForm{configs.LoginSame, ""} {
		if client, err := OnBehalf(access, form, "alice"); err != ErrNoEntry {
			t.Errorf("%q: %v, %v", form, client, err)
		}
	}
	for _, client := range []sasl.Client{&Plain{Authzid: "alice", User: "proxy", Password: "own"}, &mechanism{}} {
		if isOnBehalf(client) {
			t.Errorf("%v is on the proxy's word", client)
		}
	}
}

// Where the store is entered on the proxy's word, it need not prove that it refuses passwords, and no name is tried with a
// wrong one. If it refuses the proxy, that is no wrong password of the client's.
func TestLoginOnBehalf(t *testing.T) {
	store := serve(t, onLoopback, func(f *fakeStore) {
		f.verify = func(user, password string) string {
			if user == "proxy" && password == "own" {
				return granted
			}
			return refused
		}
	})
	access := way(store.address)
	access.ExternalLogin, access.LoginUser = configs.LoginAuthzid, "proxy"
	for password, want := range map[string]string{"own": "", "old": "on the proxy's word: logging in at " + store.address.Address + ": refused with"} {
		access.LoginPassword = password
		s := unstarted(t, access)
		client, err := OnBehalf(access, access.ExternalLogin, "alice")
		if err != nil {
			t.Fatal(err)
		}
		conn, err := s.Login(context.Background(), Visit{User: "alice", Client: client, Peer: *visitor})
		if err == nil {
			_ = conn.Conn.Close()
		}
		s.tasks.Wait() // all that it does beside
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) || Denied(err) {
			t.Errorf("with %q: %v, denied %v", password, err, Denied(err))
		}
	}
	if got := store.logins(); !slices.Equal(got, []string{"alice proxy own", "alice proxy old"}) && !slices.Equal(got, []string{"alice proxy old", "alice proxy own"}) {
		t.Errorf("the store heard %q", got)
	}
}

// A store that lets anybody in by any password may still be entered on the proxy's word, and by no password.
func TestLoginOnBehalfWithDistrust(t *testing.T) {
	store := serve(t, onLoopback, func(f *fakeStore) { f.verify = careless })
	s := unstarted(t, way(store.address))
	if err := login(t, s, "alice"); err == nil {
		t.Error("a password is shown to a store that takes any")
	}
	client, _ := OnBehalf(configs.Access{LoginUser: "proxy", LoginPassword: "own"}, configs.LoginMaster, "alice")
	conn, err := s.Login(context.Background(), Visit{User: "alice", Client: client})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Conn.Close()
}
