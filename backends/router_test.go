package backends

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

func networks(prefixes ...string) configs.Networks {
	var n configs.Networks
	for _, p := range prefixes {
		n.Prefixes = append(n.Prefixes, netip.MustParsePrefix(p))
	}
	return n
}

// at makes the way to an IMAP store on a TCP address.
func at(address string) configs.Access {
	return configs.Access{Addresses: []configs.Address{{Network: "tcp", Address: address}}, TLS: configs.TLSNone, User: "{user}", Login: configs.LoginSame}
}

func backend(name string, imap configs.Access) configs.Backend {
	return configs.Backend{Name: name, Access: map[configs.Service]configs.Access{configs.IMAP: imap}}
}

// prepared makes a router that asks no store.
func prepared(t *testing.T, config *configs.Config) *Router {
	t.Helper()
	r, err := PrepareRouter(config, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Retire(nil) })
	return r
}

// asked makes a query of "local@domain" or "local".
func asked(user string, change ...func(*Query)) Query {
	q := Query{Service: configs.IMAPS, Peer: Peer{Client: netip.MustParseAddr("192.0.2.1"), Listener: "imaps", SNI: "mail.example"}}
	q.User.Local, q.User.Domain, _ = strings.Cut(user, "@")
	for _, c := range change {
		c(&q)
	}
	return q
}

func TestPlace(t *testing.T) {
	sni := func(s string) func(*Query) { return func(q *Query) { q.Peer.SNI = s } }
	from := func(s string) func(*Query) { return func(q *Query) { q.Peer.Client = netip.MustParseAddr(s) } }
	unix := func(q *Query) { q.Peer.Client = netip.Addr{} }
	listener := func(s string) func(*Query) { return func(q *Query) { q.Peer.Listener = s } }
	service := func(s configs.Service) func(*Query) { return func(q *Query) { q.Service = s } }
	a, b := configs.Route{To: "a"}, configs.Route{To: "b"}
	with := func(r configs.Route, set func(*configs.Route)) configs.Route {
		set(&r)
		return r
	}
	for _, test := range []struct {
		what   string
		routes []configs.Route
		query  Query
		want   string // backend and name, or an error
		steps  string // the mismatches on the way
	}{
		{"a user", []configs.Route{with(a, func(r *configs.Route) { r.User = []string{"alice"} }), b}, asked("alice@x"), "a alice@x", "-"},
		{"a user without a domain", []configs.Route{with(a, func(r *configs.Route) { r.User = []string{"alice"} }), b}, asked("alice"), "a alice", "-"},
		{"another user", []configs.Route{with(a, func(r *configs.Route) { r.User = []string{"alice"} }), b}, asked("bob@x"), "b bob@x", "user -"},
		{"one of several users", []configs.Route{with(a, func(r *configs.Route) { r.User = []string{"alice", "b*"} }), b}, asked("bob@x"), "a bob@x", "-"},
		{"a user in a domain", []configs.Route{with(a, func(r *configs.Route) { r.User = []string{"alice@x"} }), b}, asked("alice@x"), "a alice@x", "-"},
		{"a user in another domain", []configs.Route{with(a, func(r *configs.Route) { r.User = []string{"alice@x"} }), b}, asked("alice@y"), "b alice@y", "user -"},
		{"a user in no domain", []configs.Route{with(a, func(r *configs.Route) { r.User = []string{"alice@*"} }), b}, asked("alice"), "b alice", "user -"},
		{"a domain", []configs.Route{with(a, func(r *configs.Route) { r.Domain = []string{"x", "*.x"} }), b}, asked("alice@y.x"), "a alice@y.x", "-"},
		{"another domain", []configs.Route{with(a, func(r *configs.Route) { r.Domain = []string{"*.x"} }), b}, asked("alice@x"), "b alice@x", "domain -"},
		{"a domain, and none", []configs.Route{with(a, func(r *configs.Route) { r.Domain = []string{"x"} }), b}, asked("alice"), "b alice", "domain -"},
		{"a name", []configs.Route{with(a, func(r *configs.Route) { r.SNI = []string{"*.b"} }), b}, asked("alice", sni("imap.b")), "a alice", "-"},
		{"another name", []configs.Route{with(a, func(r *configs.Route) { r.SNI = []string{"*.b"} }), b}, asked("alice", sni("imap.c")), "b alice", "sni -"},
		{"a name, and none", []configs.Route{with(a, func(r *configs.Route) { r.SNI = []string{"imap.b"} }), b}, asked("alice", sni("")), "b alice", "sni -"},
		{"a listener", []configs.Route{with(a, func(r *configs.Route) { r.Listener = []string{"webmail"} }), b}, asked("alice", listener("webmail")), "a alice", "-"},
		{"another listener", []configs.Route{with(a, func(r *configs.Route) { r.Listener = []string{"webmail"} }), b}, asked("alice"), "b alice", "listener -"},
		{"a service", []configs.Route{with(a, func(r *configs.Route) { r.Service = []configs.Service{configs.IMAP, configs.IMAPS} }), b}, asked("alice"), "a alice", "-"},
		{"another service", []configs.Route{with(a, func(r *configs.Route) { r.Service = []configs.Service{configs.IMAP} }), b}, asked("alice"), "b alice", "service -"},
		{"a network", []configs.Route{with(a, func(r *configs.Route) { r.Client = networks("192.0.2.0/24") }), b}, asked("alice"), "a alice", "-"},
		{"another network", []configs.Route{with(a, func(r *configs.Route) { r.Client = networks("192.0.2.0/24") }), b}, asked("alice", from("198.51.100.1")), "b alice", "client -"},
		{"a network in IPv6 notation", []configs.Route{with(a, func(r *configs.Route) { r.Client = networks("192.0.2.0/24") }), b}, asked("alice", from("::ffff:192.0.2.1")), "a alice", "-"},
		{"a network, and a socket", []configs.Route{with(a, func(r *configs.Route) { r.Client = networks("0.0.0.0/0") }), b}, asked("alice", unix), "b alice", "client -"},
		{"a socket", []configs.Route{with(a, func(r *configs.Route) { r.Client.Unix = true }), b}, asked("alice", unix), "a alice", "-"},
		{"all conditions", []configs.Route{{To: "a", User: []string{"alice"}, Domain: []string{"x"}, SNI: []string{"mail.*"}, Listener: []string{"imaps"},
			Service: []configs.Service{configs.IMAPS}, Client: networks("192.0.2.1/32")}}, asked("alice@x"), "a alice@x", "-"},
		{"all conditions but one", []configs.Route{{To: "a", User: []string{"alice"}, Domain: []string{"x"}, SNI: []string{"mail.*"}, Listener: []string{"imaps"},
			Service: []configs.Service{configs.IMAPS}, Client: networks("192.0.2.1/32")}, b}, asked("alice@y"), "b alice@y", "domain -"},
		{"the first that matches", []configs.Route{a, b}, asked("alice"), "a alice", "-"},
		{"a refusal", []configs.Route{{User: []string{"cyrus"}, Refuse: "administration is local"}, a}, asked("cyrus"),
			"refused by a route: administration is local", "-"},
		{"a refusal of others", []configs.Route{{User: []string{"cyrus"}, Refuse: "administration is local"}, a}, asked("alice"), "a alice", "user -"},
		{"a refusal after an exception", []configs.Route{{User: []string{"cyrus"}, Client: networks("127.0.0.0/8"), To: "a"},
			{User: []string{"cyrus"}, Refuse: "no"}, b}, asked("cyrus", from("127.0.0.1")), "a cyrus", "-"},
		{"none", []configs.Route{with(a, func(r *configs.Route) { r.User = []string{"alice"} })}, asked("bob"), "no route for the user", "user"},
		{"no routes at all", nil, asked("alice"), "no route for the user", ""},
		{"a backend without the service", []configs.Route{a}, asked("alice", service(configs.Sieve)), "backend has no such service: a, sieve", "-"},
		{"a form of the name", []configs.Route{{To: "c"}}, asked("alice@x"), "c alice%x", "-"},
		{"a form for a bare name", []configs.Route{{To: "c"}}, asked("alice"), "c alice", "-"},
	} {
		t.Run(test.what, func(t *testing.T) {
			c := at("127.0.0.1:1")
			c.User = "{local}%{domain}"
			r := prepared(t, &configs.Config{Routes: test.routes,
				Backends: []configs.Backend{backend("a", at("127.0.0.1:1")), backend("b", at("127.0.0.1:1")), backend("c", c)}})
			place, err := r.Place(t.Context(), test.query)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = place.Service.Backend + " " + place.Name
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			var steps []string
			_, trace, _ := r.Trace(t.Context(), test.query)
			for i, step := range trace {
				if step.Route.To != test.routes[i].To {
					t.Errorf("step %d is of another route", i)
				}
				if step.Mismatch == "" {
					step.Mismatch = "-"
				}
				steps = append(steps, step.Mismatch)
			}
			if got := strings.Join(steps, " "); got != test.steps {
				t.Errorf("the way is %q, want %q", got, test.steps)
			}
		})
	}
}

// What a caller asks for are the errors' kinds.
func TestPlaceErrors(t *testing.T) {
	r := prepared(t, &configs.Config{Backends: []configs.Backend{backend("a", at("127.0.0.1:1"))},
		Routes: []configs.Route{{User: []string{"a"}, Refuse: "no"}, {User: []string{"b"}, To: "a"}}})
	sieve := func(q *Query) { q.Service = configs.Sieve }
	for _, test := range []struct {
		query Query
		want  error
	}{{asked("a"), ErrRefused}, {asked("b", sieve), ErrNoService}, {asked("c"), ErrNotFound}} {
		if _, err := r.Place(t.Context(), test.query); !errors.Is(err, test.want) {
			t.Errorf("%s is answered with %v, want %v", test.query.User, err, test.want)
		}
	}
}

func TestSingleBackend(t *testing.T) {
	r := prepared(t, &configs.Config{Backends: []configs.Backend{backend("only", at("127.0.0.1:1"))}})
	if place, err := r.Place(t.Context(), asked("anybody@anywhere")); err != nil || place.Service.Backend != "only" {
		t.Errorf("placed at %v, %v", place, err)
	}
	// Where there are routes, they decide.
	r = prepared(t, &configs.Config{Backends: []configs.Backend{backend("only", at("127.0.0.1:1"))},
		Routes: []configs.Route{{User: []string{"alice"}, To: "only"}}})
	if _, err := r.Place(t.Context(), asked("bob")); !errors.Is(err, ErrNotFound) {
		t.Errorf("placed past the routes: %v", err)
	}
}

func TestWildcardBackend(t *testing.T) {
	wild := backend("*.stores.example", configs.Access{User: "{user}", Login: configs.LoginSame, TLS: configs.TLSNone, Addresses: []configs.Address{
		{Network: "tcp", Address: "{name}:143"}, {Network: "unix", Address: "/run/{name}/{name}"}}})
	wild.Examples = []string{"s1.stores.example"}
	config := &configs.Config{Backends: []configs.Backend{wild, backend("s3.stores.example", at("127.0.0.1:3"))},
		Routes: []configs.Route{{User: []string{"a"}, To: "s1.stores.example"}, {User: []string{"b"}, To: "s2.stores.example"}, {To: "s3.stores.example"}}}
	r := prepared(t, config)
	for user, want := range map[string]string{
		"a": "s1.stores.example:143 unix:/run/s1.stores.example/s1.stores.example",
		"b": "s2.stores.example:143 unix:/run/s2.stores.example/s2.stores.example",
		"c": "127.0.0.1:3", // a backend of that very name comes before the wildcard
	} {
		place, err := r.Place(t.Context(), asked(user))
		if err != nil {
			t.Fatal(err)
		}
		var addresses []string
		for _, a := range place.Service.Access.Addresses {
			addresses = append(addresses, a.String())
		}
		if got := strings.Join(addresses, " "); got != want {
			t.Errorf("%s is led to %s, want %s", user, got, want)
		}
	}
	if wild.Access[configs.IMAP].Addresses[0].Address != "{name}:143" {
		t.Error("the configuration has changed")
	}
	var names []string
	for _, s := range r.Services() {
		names = append(names, s.Backend)
	}
	if want := []string{"s1.stores.example", "s2.stores.example", "s3.stores.example"}; !slices.Equal(names, want) {
		t.Errorf("services are of %q, want %q", names, want)
	}
}

func TestServicesOrder(t *testing.T) {
	both := configs.Backend{Name: "b", Access: map[configs.Service]configs.Access{configs.Sieve: at("127.0.0.1:1"), configs.IMAP: at("127.0.0.1:2")}}
	r := prepared(t, &configs.Config{Backends: []configs.Backend{both, backend("a", at("127.0.0.1:3"))}})
	var got []string
	for _, s := range r.Services() {
		got = append(got, s.Backend+" "+string(s.Protocol))
	}
	if want := []string{"a imap", "b imap", "b sieve"}; !slices.Equal(got, want) {
		t.Errorf("services are %q, want %q", got, want)
	}
}

// What a client is promised is what all stores have in common that it can be led to on its connection.
func TestAnnounced(t *testing.T) {
	config := &configs.Config{
		Backends: []configs.Backend{backend("a", at("127.0.0.1:1")), backend("b", at("127.0.0.1:1")), backend("c", at("127.0.0.1:1")),
			backend("never", at("127.0.0.1:1")), backend("elsewhere", at("127.0.0.1:1"))},
		Routes: []configs.Route{
			{User: []string{"cyrus"}, Refuse: "no"},
			{Domain: []string{"a.example"}, SNI: []string{"*.a"}, To: "a"},
			{SNI: []string{"only.b", "*.a"}, To: "b"},
			{User: []string{"carol"}, To: "c"},
			{Listener: []string{"new"}, To: "never"},
			{Service: []configs.Service{configs.IMAP}, To: "never"},
			{Client: networks("192.0.2.0/24"), To: "a"},
			{To: "elsewhere"},
		},
	}
	r := prepared(t, config)
	for name, caps := range map[string]string{"a": "IDLE;MOVE;QUOTA | PLAIN", "b": "MOVE;IDLE | PLAIN LOGIN", "c": "QUOTA;IDLE | PLAIN", "elsewhere": "X | X"} {
		r.services[serviceKey{name, configs.IMAP}].learn(capsOf(caps))
	}
	for _, test := range []struct {
		what    string
		service configs.Service
		peer    Peer
		want    string // "" if nothing is known
	}{
		{"behind a name", configs.IMAPS, Peer{SNI: "only.b"}, "MOVE;IDLE | PLAIN LOGIN"},
		{"behind a name with two stores", configs.IMAPS, Peer{SNI: "x.a"}, "IDLE;MOVE | PLAIN"},
		{"behind no name", configs.IMAPS, Peer{Client: netip.MustParseAddr("192.0.2.1")}, "QUOTA;IDLE | PLAIN"},
		{"from elsewhere", configs.IMAPS, Peer{}, "|"},
		{"a store that was never reached keeps nothing back", configs.IMAPS, Peer{Listener: "new"}, "QUOTA;IDLE | PLAIN"},
		{"another service", configs.IMAP, Peer{}, "QUOTA;IDLE | PLAIN"},
		{"a service that no store offers", configs.Sieve, Peer{}, ""},
	} {
		common, known := r.Announced(test.service, test.peer)
		if known != (test.want != "") || known && writeCaps(common) != test.want {
			t.Errorf("%s: promised %q, %v; want %q", test.what, writeCaps(common), known, test.want)
		}
	}
	r = prepared(t, config)
	if common, known := r.Announced(configs.IMAPS, Peer{}); known || len(common.List) > 0 {
		t.Errorf("promised %v without knowing a store", common)
	}
}

func TestRouterRefusalTime(t *testing.T) {
	r := prepared(t, &configs.Config{Backends: []configs.Backend{backend("a", at("127.0.0.1:1")), backend("b", at("127.0.0.1:1")), backend("c", at("127.0.0.1:1"))},
		Routes: []configs.Route{{User: []string{"a"}, To: "a"}, {User: []string{"b"}, To: "b"}, {SNI: []string{"c"}, To: "c"}}})
	for i, name := range []string{"a", "b", "c"} {
		r.services[serviceKey{name, configs.IMAP}].noteRefusal([]time.Duration{2, 5, 9}[i])
	}
	if got := r.RefusalTime(configs.IMAP, Peer{}); got != 5 {
		t.Errorf("the slowest takes %d", got)
	}
	if got := r.RefusalTime(configs.IMAP, Peer{SNI: "c"}); got != 9 {
		t.Errorf("the slowest takes %d with a name", got)
	}
	if got := r.RefusalTime(configs.Sieve, Peer{}); got != 0 {
		t.Errorf("the slowest of none takes %d", got)
	}
}

func TestRouterErrors(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca := func(file string) configs.Access {
		access := at("127.0.0.1:1")
		access.TLS, access.TLSCA = configs.TLSImplicit, file
		return access
	}
	for _, test := range []struct {
		what   string
		config *configs.Config
		want   string
	}{
		{"a name that leads nowhere", &configs.Config{Backends: []configs.Backend{backend("a", at("127.0.0.1:1"))}, Routes: []configs.Route{{To: "b"}}},
			`no backend "b"`},
		{"no CA file", &configs.Config{Backends: []configs.Backend{backend("a", ca(filepath.Join(dir, "none.pem")))}},
			"backend a: reading tls_ca: open " + filepath.Join(dir, "none.pem") + ": no such file or directory"},
		{"an empty CA file", &configs.Config{Backends: []configs.Backend{backend("a", ca(empty))}},
			"backend a: reading tls_ca: no certificate in " + empty},
	} {
		if r, err := NewRouter(test.config, nil, zap.NewNop()); err == nil || err.Error() != test.want || r != nil {
			t.Errorf("%s: got %v, want %q", test.what, err, test.want)
		}
	}
}

// A new configuration keeps what is known of the stores whose access has not changed, and ends the others.
func TestRouterReload(t *testing.T) {
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	secure := at("127.0.0.1:1")
	secure.TLS, secure.TLSCA = configs.TLSStartTLS, file
	changed := at("127.0.0.1:1")
	changed.User = "{local}"
	load := func(old *Router, all ...configs.Backend) *Router {
		r, err := NewRouter(&configs.Config{Backends: all}, old, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Retire(nil) })
		return r
	}
	first := load(nil, backend("same", at("127.0.0.1:1")), backend("changed", at("127.0.0.1:1")), backend("gone", at("127.0.0.1:1")),
		backend("secure", secure))
	first.find(serviceKey{"same", configs.IMAP}).learn(capsOf("IDLE | PLAIN"))
	second := load(first, backend("same", at("127.0.0.1:1")), backend("changed", changed), backend("new", at("127.0.0.1:1")), backend("secure", secure))
	for name, kept := range map[string]bool{"same": true, "changed": false, "gone": false, "new": false, "secure": true} {
		key := serviceKey{name, configs.IMAP}
		if got := first.find(key) != nil && first.find(key) == second.find(key); got != kept {
			t.Errorf("%s is kept: %v, want %v", name, got, kept)
		}
	}
	first.Retire(second)
	for name, ended := range map[string]bool{"same": false, "changed": true, "gone": true, "secure": false} {
		if got := first.find(serviceKey{name, configs.IMAP}).ctx.Err() != nil; got != ended {
			t.Errorf("%s is ended: %v, want %v", name, got, ended)
		}
	}
	for _, s := range second.Services() {
		if s.ctx.Err() != nil {
			t.Errorf("%s is ended, and is needed", s.Backend)
		}
	}
	// Another authority in the same file makes another service.
	other, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, other.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	third := load(second, backend("same", at("127.0.0.1:1")), backend("secure", secure))
	if key := (serviceKey{"secure", configs.IMAP}); third.find(key) == second.find(key) {
		t.Error("the old authority is kept")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := NewRouter(&configs.Config{Backends: []configs.Backend{backend("secure", secure)}}, third, zap.NewNop()); err == nil {
		t.Error("a configuration with an authority that is gone is taken")
	}
	if third.find(serviceKey{"secure", configs.IMAP}).ctx.Err() != nil {
		t.Error("an error has ended what was there")
	}
}
