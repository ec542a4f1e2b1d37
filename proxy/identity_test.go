package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"jackdaw/backends"
	"jackdaw/configs"
)

func TestExternalName(t *testing.T) {
	for _, test := range []struct {
		names     string
		email, cn string
	}{
		{"alice@example.org", "alice@example.org", ""},
		{"alice", "", "alice"},
		{"alice alice@example.org", "alice@example.org", "alice"},
		{"alice@example.org bob@example.org alice", "", "alice"},
		{"alice bob alice@example.org", "alice@example.org", ""},
		{"alice alice", "", ""},
		{"", "", ""},
	} {
		leaf := clientLeaf(t, strings.Fields(test.names)).TLS.Leaf
		state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
		for place, want := range map[configs.ClientUser]string{configs.ClientUserEmail: test.email, configs.ClientUserCN: test.cn} {
			state.VerifiedChains = [][]*x509.Certificate{{leaf}}
			if got := externalName(state, place); got != want {
				t.Errorf("%q, %s: %q, want %q", test.names, place, got, want)
			}
			state.VerifiedChains = nil
			if got := externalName(state, place); got != "" {
				t.Errorf("%q, %s: %q without anybody who vouches", test.names, place, got)
			}
		}
	}
}

// sessionFrom is a session of a client of a TCP listener, with a store that nobody can reach.
func sessionFrom(t *testing.T, client string, change func(*configs.Config, *configs.Access)) *session {
	config, access := testConfig(), testAccess
	access.Addresses = []configs.Address{{Network: "unix", Address: "/nonexistent"}}
	change(config, &access)
	ours, theirs := net.Pipe()
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
	})
	s := newSession(t.Context(), testSettings(testSetup(t, config, access), io.Discard), ours)
	s.peer.Client = netip.MustParseAddr(client)
	return s
}

func TestIdentify(t *testing.T) {
	for _, test := range []struct {
		what        string
		from        string
		external    string
		attempt     Attempt
		user, actor string // "" where it is refused
	}{
		{what: "a name", attempt: Attempt{User: "Alice"}, user: "alice@realm.example"},
		{what: "her own", attempt: Attempt{User: "Alice", Authzid: "alice%realm.example"}, user: "alice@realm.example"},
		{what: "her own, not completed", attempt: Attempt{User: "alice@realm.example", Authzid: "ALICE"}, user: "alice@realm.example"},
		{what: "another", attempt: Attempt{User: "alice", Authzid: "bob"}},
		{what: "another domain's", attempt: Attempt{User: "alice", Authzid: "alice@b.example"}},
		{what: "a star", attempt: Attempt{User: "alice*bob"}},
		{what: "a star for another", attempt: Attempt{User: "alice", Authzid: "alice*bob"}},

		{what: "another", from: "192.0.2.7", attempt: Attempt{User: "Bob", Authzid: "Alice"}, user: "alice@realm.example", actor: "bob"},
		{what: "with domains", from: "192.0.2.7", attempt: Attempt{User: "bob%b.example", Authzid: "alice@c.example"}, user: "alice@c.example", actor: "bob@b.example"},
		{what: "one who is no pair", from: "192.0.2.7", attempt: Attempt{User: "alice", Authzid: "alice"}, user: "alice@realm.example"},
		{what: "a star", from: "192.0.2.7", attempt: Attempt{User: "Alice*Bob"}, user: "alice@realm.example", actor: "bob"},
		{what: "a star with domains", from: "192.0.2.7", attempt: Attempt{User: "alice@c.example*bob@b.example"}, user: "alice@c.example", actor: "bob@b.example"},
		{what: "of no network", from: "2001:db8::1", attempt: Attempt{User: "alice*bob"}},
		{what: "two stars", from: "192.0.2.7", attempt: Attempt{User: "alice*bob*carol"}},
		{what: "nobody", from: "192.0.2.7", attempt: Attempt{User: "*bob"}},
		{what: "by nobody", from: "192.0.2.7", attempt: Attempt{User: "alice*"}},
		{what: "a star and another", from: "192.0.2.7", attempt: Attempt{User: "alice*bob", Authzid: "carol"}},
		{what: "another with a star", from: "192.0.2.7", attempt: Attempt{User: "bob", Authzid: "alice*carol"}},
		{what: "by a name that is none", from: "192.0.2.7", attempt: Attempt{User: "alice*b\u200bob"}},
		{what: "by somebody who is none", from: "192.0.2.7", attempt: Attempt{User: "b\x00ob", Authzid: "alice"}},
		{what: "by two domains", from: "192.0.2.7", attempt: Attempt{User: "alice*bob@a.example@b.example"}},

		{what: "a certificate", external: "alice@b.example", attempt: Attempt{External: true}, user: "alice@b.example"},
		{what: "a certificate's bare name", external: "Alice", attempt: Attempt{External: true}, user: "alice@default.example"},
		{what: "it is not completed by whom it was asked for", external: "alice", attempt: Attempt{External: true, Authzid: "alice@realm.example"}},
		{what: "a certificate and its own name", external: "alice@b.example", attempt: Attempt{External: true, Authzid: "Alice@B.example"}, user: "alice@b.example"},
		{what: "a certificate and another", external: "alice@b.example", attempt: Attempt{External: true, Authzid: "bob@b.example"}},
		{what: "also from there", from: "192.0.2.7", external: "alice@b.example", attempt: Attempt{External: true, Authzid: "bob@b.example"}},
		{what: "a certificate's star", from: "192.0.2.7", external: "alice*bob", attempt: Attempt{External: true}},
		{what: "no certificate", attempt: Attempt{External: true}},
		{what: "no certificate but a name", attempt: Attempt{External: true, Authzid: "alice@b.example"}},
		{what: "a name of the client's own", external: "alice@b.example", attempt: Attempt{External: true, User: "bob@b.example"}, user: "alice@b.example"},
	} {
		if test.from == "" {
			test.from = "198.51.100.1"
		}
		s := sessionFrom(t, test.from, func(c *configs.Config, _ *configs.Access) {
			c.Users.ImpersonateFrom = network("192.0.2.0/24")
			c.Users.DefaultRealm = "default.example"
			c.Listen.Listeners[0].Realm = "realm.example"
		})
		s.external = test.external
		user, actor, err := s.identify(&test.attempt)
		if user.String() != test.user || actor.String() != test.actor || (err == nil) != (test.user != "") || err != nil && !byUs(err) {
			t.Errorf("%s: %q by %q, %v; want %q by %q", test.what, user, actor, err, test.user, test.actor)
		}
		if err == nil && (s.user != test.user || s.actor != test.actor) {
			t.Errorf("%s: the log has %q by %q", test.what, s.user, s.actor)
		}
		if err != nil && s.actor != "" {
			t.Errorf("%s: refused, the log has %q by %q", test.what, s.user, s.actor)
		}
	}
}

// From the other side of a proxy that speaks for nobody, nobody impersonates.
func TestIdentifyUnproven(t *testing.T) {
	s := sessionFrom(t, "192.0.2.7", func(c *configs.Config, _ *configs.Access) { c.Users.ImpersonateFrom = network("192.0.2.0/24") })
	s.peer.Unproven = true
	for _, a := range []Attempt{{User: "alice*bob"}, {User: "alice", Authzid: "bob"}} {
		if user, _, err := s.identify(&a); err == nil {
			t.Errorf("%+v is %v", a, user)
		}
	}
}

// What the proxy itself has is for those alone who have proved to it who they are. All others sound like a wrong password, in
// words and in time.
func TestCredentials(t *testing.T) {
	for _, test := range []struct {
		what            string
		login, external configs.LoginForm
		attempt         Attempt
		want            string
		err             error
	}{
		{"a password", configs.LoginSame, configs.LoginAuthzid, Attempt{User: "alice", Secret: "hers"}, "\x00alice\x00hers", nil},
		{"a certificate", configs.LoginSame, configs.LoginAuthzid, Attempt{External: true}, "alice\x00proxy\x00own", nil},
		{"a certificate, for a master", configs.LoginSame, configs.LoginMaster, Attempt{External: true}, "\x00alice*proxy\x00own", nil},
		{"no way for a certificate", configs.LoginSame, configs.LoginSame, Attempt{External: true}, "", backends.ErrNoEntry},
		{"no way for a password", configs.LoginAuthzid, configs.LoginAuthzid, Attempt{User: "alice", Secret: "hers"}, "", backends.ErrUnverified},
		{"no way for the master's", configs.LoginMaster, configs.LoginSame, Attempt{User: "alice", Secret: "own"}, "", backends.ErrUnverified},
		{"nor by another name", configs.LoginXCLIENT, configs.LoginXCLIENT, Attempt{User: "bob", Authzid: "alice", Secret: "hers"}, "", backends.ErrUnverified},
		{"nor for a token", configs.LoginMaster, configs.LoginSame, Attempt{Mechanism: "XOAUTH2", User: "alice", Secret: "hers"}, "", backends.ErrUnverified},
		{"nor for SCRAM", configs.LoginMaster, configs.LoginSame, Attempt{Mechanism: "SCRAM-SHA-1", User: "alice", First: []byte("n,,n=alice,r=x")}, "", backends.ErrUnverified},
		{"nor for nothing", configs.LoginSame, configs.LoginAuthzid, Attempt{User: "alice"}, "", errEmptyPassword},
	} {
		s := sessionFrom(t, "192.0.2.7", func(c *configs.Config, a *configs.Access) {
			c.Users.ImpersonateFrom = network("192.0.2.0/24")
			a.Login, a.ExternalLogin, a.LoginUser, a.LoginPassword = test.login, test.external, "proxy", "own"
		})
		s.external = "alice"
		if test.attempt.Mechanism == "" {
			test.attempt.Mechanism = "PLAIN"
		}
		_, client, err := s.place(t.Context(), &test.attempt)
		if err != test.err || err != nil && (!byUs(err) || reasonFor(err) != ReasonDenied) {
			t.Errorf("%s: %v, want %v", test.what, err, test.err)
		}
		if err != nil {
			continue
		}
		if _, first, err := client.Start(); string(first) != test.want || err != nil {
			t.Errorf("%s: the store is told %q, %v; want %q", test.what, first, err, test.want)
		}
	}
}

// FuzzIdentify lets a client call itself anything, from where it may act as others and from where it may not. Who acts as
// another does so as two names, neither of which can be taken for a pair or for more than one name.
func FuzzIdentify(f *testing.F) {
	for _, name := range []string{"alice", "Alice@A.example", "alice*bob", "a*b*c", "*", "alice%a.example*bob", "", "\x00", "al\u200bice", "a@b@c", " *", "ſ*K"} {
		f.Add(name, "", true)
		f.Add(name, "carol", true)
		f.Add("carol", name, true)
		f.Add(name, name, false)
	}
	config := testConfig()
	config.Users.ImpersonateFrom = network("192.0.2.0/24")
	config.Users.DefaultRealm = "default.example"
	settings := &settings{names: backends.NewNames(config.Users), impersonateFrom: config.Users.ImpersonateFrom}
	f.Fuzz(func(t *testing.T, name, authzid string, may bool) {
		s := &session{settings: settings, peer: backends.Peer{Client: netip.MustParseAddr("198.51.100.1")}}
		if may {
			s.peer.Client = netip.MustParseAddr("192.0.2.7")
		}
		a := Attempt{Mechanism: "PLAIN", User: name, Authzid: authzid, Secret: "secret"}
		user, actor, err := s.identify(&a)
		if err != nil {
			if !byUs(err) || user.Local != "" || actor.Local != "" {
				t.Fatalf("%v by %v with %v", user, actor, err)
			}
			return
		}
		if !may && (actor.Local != "" || strings.Contains(name, "*")) {
			t.Fatalf("%v by %v", user, actor)
		}
		client, err := a.client(user.Form("{user}"), actor.Form("{user}"), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, first, _ := client.Start()
		parts := strings.Split(string(first), "\x00")
		if len(parts) != 3 || parts[2] != "secret" || strings.ContainsAny(string(first), "\r\n\t") || strings.Count(string(first), "*") > 1 {
			t.Fatalf("the store is told %q", first)
		}
		if as, by, pair := strings.Cut(parts[1], "*"); pair && (!may || as == "" || by == "" || parts[0] != "") || parts[0] != "" && !may {
			t.Fatalf("the store is told %q", first)
		}
	})
}
