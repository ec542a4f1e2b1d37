package backends

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"jackdaw/backends/directories"
	"jackdaw/configs"
)

// told is a directory that says what a test wants, and remembers the last question.
type told struct {
	answer directories.Answer
	err    error
	asked  directories.Query
}

func (d *told) Lookup(_ context.Context, q directories.Query) (directories.Answer, error) {
	d.asked = q
	return d.answer, d.err
}

func (d *told) Close() {}

var errWorld = errors.New("connection refused")

func TestPlaceByDirectory(t *testing.T) {
	lookup := configs.Route{Lookup: "accounts", To: "a"}
	rest := configs.Route{To: "b"}
	for _, test := range []struct {
		what   string
		answer directories.Answer
		err    error
		routes []configs.Route
		want   string // backend, name, address; or an error
	}{
		{"a backend's name", directories.Answer{Backend: "b"}, nil, []configs.Route{lookup}, "b alice@x 127.0.0.1:2"},
		{"no backend", directories.Answer{}, nil, []configs.Route{lookup}, "a alice@x 127.0.0.1:1"},
		{"neither has the route", directories.Answer{}, nil, []configs.Route{{Lookup: "accounts"}}, "directory names no backend, and the route has no to"},
		{"another name there", directories.Answer{Backend: "b", User: "robert"}, nil, []configs.Route{lookup}, "b robert 127.0.0.1:2"},
		{"an address", directories.Answer{Backend: "127.0.0.1:2"}, nil, []configs.Route{lookup}, "b alice@x 127.0.0.1:2"},
		{"a host", directories.Answer{Backend: "imap.example"}, nil, []configs.Route{lookup}, "c alice@x imap.example:143"},
		{"a host with a port that means no service", directories.Answer{Backend: "127.0.0.1:9"}, nil, []configs.Route{lookup}, "backend has no such service: 127.0.0.1:9, imap"},
		{"below a wildcard", directories.Answer{Backend: "s1.stores.example"}, nil, []configs.Route{lookup}, "s1.stores.example alice@x s1.stores.example:143"},
		{"below a wildcard, with a port", directories.Answer{Backend: "S2.stores.example:1143"}, nil, []configs.Route{lookup}, "s2.stores.example alice@x s2.stores.example:1143"},
		{"below no wildcard", directories.Answer{Backend: "s1.other.example"}, nil, []configs.Route{lookup}, "no backend is called s1.other.example, or has an address there"},
		{"no name of a host", directories.Answer{Backend: "s1/../x.stores.example"}, nil, []configs.Route{lookup}, "no backend is called s1/../x.stores.example, or has an address there"},
		{"a name that no store may hear", directories.Answer{Backend: "b", User: "a*b"}, nil, []configs.Route{lookup}, "directory's name for the user: unusable user name: a character that no name may have"},
		{"an unknown user goes on", directories.Answer{}, directories.ErrNotFound, []configs.Route{lookup, rest}, "b alice@x 127.0.0.1:2"},
		{"an unknown user at the end", directories.Answer{}, directories.ErrNotFound, []configs.Route{lookup}, "no route for the user"},
		{"a failure goes no further", directories.Answer{}, errWorld, []configs.Route{lookup, rest}, "directory accounts: connection refused"},
		{"a wrong password goes no further", directories.Answer{}, directories.ErrDenied, []configs.Route{lookup, rest}, "directory accounts: the password is wrong"},
		{"a password for whom nobody has verified", directories.Answer{Backend: "b", Password: "x"}, nil, []configs.Route{lookup}, "directory gives a password for a user whom nobody has verified"},
	} {
		t.Run(test.what, func(t *testing.T) {
			r := prepared(t, &configs.Config{Routes: test.routes, Backends: []configs.Backend{
				backend("a", at("127.0.0.1:1")), backend("b", at("127.0.0.1:2")), backend("c", at("imap.example:143")),
				backend("*.stores.example", at("{name}:{port}")),
			}})
			r.directories["accounts"] = &openDirectory{Directory: &told{answer: test.answer, err: test.err}}
			place, err := r.Place(t.Context(), asked("alice@x"))
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = place.Service.Backend + " " + place.Name + " " + place.Service.Access.Addresses[0].Address
			}
			if got != test.want {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

// A store that a directory names twice is one, and is gone with its router.
func TestStoresNamedByDirectories(t *testing.T) {
	r := prepared(t, &configs.Config{Routes: []configs.Route{{Lookup: "accounts"}}, Backends: []configs.Backend{backend("*.stores.example", at("{name}:143"))}})
	d := &told{answer: directories.Answer{Backend: "s1.stores.example"}}
	r.directories["accounts"] = &openDirectory{Directory: d}
	first, err := r.Place(t.Context(), asked("alice@x"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := r.Place(t.Context(), asked("bob@x"))
	if err != nil || first.Service != second.Service {
		t.Errorf("another service, or %v", err)
	}
	if all := r.Reachable(configs.IMAPS, Peer{}); len(all) != 1 || all[0] != first.Service {
		t.Errorf("%d services can be reached", len(all))
	}
	r.Retire(nil)
	d.answer.Backend = "s2.stores.example"
	if _, err := r.Place(t.Context(), asked("alice@x")); !errors.Is(err, errClosed) {
		t.Errorf("after the end: %v", err)
	}
}

// One name is several stores where it has several ports, also behind an address of all.
func TestNamedPorts(t *testing.T) {
	access := at("{name}:143")
	access.Addresses = append(access.Addresses, configs.Address{Network: "tcp", Address: "{name}:{port}"})
	r := prepared(t, &configs.Config{Backends: []configs.Backend{backend("*.stores.example", access)}})
	found := make(map[*Service]bool)
	for range 2 {
		for _, port := range []string{"1143", "2143"} {
			s, err := r.service("s1.stores.example", port, configs.IMAP)
			if err != nil || s.Access.Addresses[1].Address != "s1.stores.example:"+port {
				t.Fatalf("port %s: %v", port, err)
			}
			found[s] = true
			if !slices.Contains(r.Services(), s) {
				t.Errorf("port %s: nobody hears of the store", port)
			}
		}
	}
	if all := r.Services(); len(found) != 2 || len(all) != 2 {
		t.Errorf("%d stores, of which %d are known", len(found), len(all))
	}
}

// However many stores directories name, no more are remembered than the bound allows.
func TestTooManyNamed(t *testing.T) {
	r := prepared(t, &configs.Config{Backends: []configs.Backend{backend("*.stores.example", at("{name}:143"))}})
	s, err := r.service("s0.stores.example", "", configs.IMAP)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(r.named); i < maxNamed; i++ {
		r.named[serviceKey{fmt.Sprint(i), configs.IMAP}] = s
	}
	if again, err := r.service("s0.stores.example", "", configs.IMAP); again != s {
		t.Errorf("one that is known: %v", err)
	}
	if _, err := r.service("s1.stores.example", "", configs.IMAP); err == nil || !strings.Contains(err.Error(), "too many stores") {
		t.Error(err)
	}
	if len(r.named) != maxNamed || len(r.doors.all) != 1 {
		t.Errorf("%d services and %d doors", len(r.named), len(r.doors.all))
	}
}

func withSecret(mechanism, secret string) func(*Query) {
	return func(q *Query) { q.Mechanism, q.Secret = mechanism, secret }
}

// Whoever verifies, nobody is placed whose password nobody has found to be right; who gave none is placed, but not verified.
func TestPlaceVerified(t *testing.T) {
	right, plain := directories.Answer{Verified: true}, withSecret("PLAIN", "secret")
	for _, test := range []struct {
		what      string
		by        configs.Verify
		verifier  *told
		directory *told
		query     Query
		verified  bool
		err       error
		asks      bool // the directory to verify
	}{
		{"the store", configs.VerifyBackend, nil, &told{}, asked("alice@x", plain), false, nil, false},
		{"saslauthd", configs.VerifySaslauthd, &told{answer: right}, &told{}, asked("alice@x", plain), true, nil, false},
		{"saslauthd says no", configs.VerifySaslauthd, &told{err: directories.ErrDenied}, &told{}, asked("alice@x", plain), false, ErrDenied, false},
		{"saslauthd is down", configs.VerifySaslauthd, &told{err: errWorld}, &told{}, asked("alice@x", plain), false, errWorld, false},
		{"saslauthd says nothing", configs.VerifySaslauthd, &told{}, &told{}, asked("alice@x", plain), false, ErrUnverified, false},
		{"a certificate", configs.VerifySaslauthd, &told{err: errWorld}, &told{}, asked("alice@x", withSecret("EXTERNAL", "")), false, nil, false},
		{"the directory", configs.VerifyDirectory, nil, &told{answer: right}, asked("alice@x", plain), true, nil, true},
		{"the directory says no", configs.VerifyDirectory, nil, &told{err: directories.ErrDenied}, asked("alice@x", plain), false, ErrDenied, true},
		{"the directory says nothing", configs.VerifyDirectory, nil, &told{}, asked("alice@x", plain), false, ErrUnverified, true},
		{"nobody to verify", configs.VerifyDirectory, nil, &told{}, asked("alice@x"), false, nil, false},
		{"a directory that verifies unasked", configs.VerifyBackend, nil, &told{answer: right}, asked("alice@x", plain), true, nil, false},
	} {
		t.Run(test.what, func(t *testing.T) {
			r := prepared(t, &configs.Config{Auth: configs.Auth{Verify: test.by}, Routes: []configs.Route{{Lookup: "accounts", To: "a"}},
				Backends: []configs.Backend{backend("a", at("127.0.0.1:1"))}})
			r.directories["accounts"] = &openDirectory{Directory: test.directory}
			if test.verifier != nil {
				r.verifier = &openDirectory{Directory: test.verifier}
			}
			place, err := r.Place(t.Context(), test.query)
			if !errors.Is(err, test.err) || (err == nil) != (test.err == nil) || place.Verified != test.verified {
				t.Errorf("verified: %v, %v; want %v, %v", place.Verified, err, test.verified, test.err)
			}
			if test.directory.asked.Verify != test.asks {
				t.Errorf("directory was asked to verify: %v", test.directory.asked.Verify)
			}
		})
	}
}

// Who has been verified need not show the same again, to be placed once more.
func TestProof(t *testing.T) {
	exchange := func(q *Query) { q.Mechanism, q.Exchange = "SCRAM-SHA-256", &Exchange{Name: "alice@x"} }
	for _, by := range []configs.Verify{configs.VerifyDovecot, configs.VerifyDirectory} {
		r := prepared(t, &configs.Config{Auth: configs.Auth{Verify: by}, Routes: []configs.Route{{Lookup: "accounts", To: "a"}},
			Backends: []configs.Backend{backend("a", at("127.0.0.1:1"))}})
		verifier, directory := &told{answer: directories.Answer{Verified: true, User: "al"}}, &told{}
		if by == configs.VerifyDirectory {
			directory.answer.Verified = true
		} else {
			r.verifier = &openDirectory{Directory: verifier}
		}
		r.directories["accounts"] = &openDirectory{Directory: directory}
		first, err := r.Place(t.Context(), asked("alice@x", exchange))
		if err != nil || !first.Verified || first.Proof == nil {
			t.Fatalf("%s: %+v, %v", by, first, err)
		}
		verifier.err, directory.answer.Verified = errWorld, false
		again, err := r.Place(t.Context(), asked("alice@x", exchange, func(q *Query) { q.Proof = first.Proof }))
		if err != nil || !again.Verified || again.Name != first.Name || directory.asked.Verify {
			t.Errorf("%s: again: %+v, %v", by, again, err)
		}
		if _, err := r.Place(t.Context(), asked("alice@x", exchange)); err == nil {
			t.Errorf("%s: who has shown nothing is placed", by)
		}
	}
}

// A token is shown to nobody but who has to verify it, and is of use for its owner alone.
func TestPlaceByToken(t *testing.T) {
	for _, by := range []configs.Verify{configs.VerifySaslauthd, configs.VerifyDovecot, configs.VerifyDirectory} {
		for owner, right := range map[string]bool{
			"alice@x": true, "Alice%X": true, "alice": true, "alice@y": false, "bob@x": false, "": false, "a*b": false,
		} {
			r := prepared(t, &configs.Config{Auth: configs.Auth{Verify: by}, Routes: []configs.Route{{Lookup: "accounts", To: "a"}},
				Users:    configs.Users{Separators: "@%", Lowercase: true, DefaultRealm: "x"},
				Backends: []configs.Backend{backend("a", at("127.0.0.1:1"))}})
			verifier, directory := &told{err: errWorld}, &told{answer: directories.Answer{User: "al"}}
			tokens := &told{answer: directories.Answer{User: owner, Verified: true}}
			r.directories["accounts"], r.tokens = &openDirectory{Directory: directory}, &openDirectory{Directory: tokens}
			if by != configs.VerifyDirectory {
				r.verifier = &openDirectory{Directory: verifier}
			}
			place, err := r.Place(t.Context(), asked("alice@x", withSecret("XOAUTH2", "secret")))
			if right && (err != nil || !place.Verified || place.Name != "al") || !right && !errors.Is(err, ErrDenied) {
				t.Errorf("%s: the token of %q: %+v, %v", by, owner, place, err)
			}
			if directory.asked.Secret != "" || directory.asked.Verify || verifier.asked.Secret != "" || tokens.asked.Secret != "secret" {
				t.Errorf("%s: the token was shown to others: %+v", by, directory.asked)
			}
			if _, err := r.Place(t.Context(), asked("alice@x", withSecret("PLAIN", "secret"))); err == nil {
				t.Errorf("%s: a password was verified as a token", by)
			}
		}
	}
}

// A directory that refuses may want the client to wait for the answer.
func TestDirectoryWantsDelay(t *testing.T) {
	r := prepared(t, &configs.Config{Routes: []configs.Route{{Lookup: "accounts"}}, Backends: []configs.Backend{backend("a", at("127.0.0.1:1"))}})
	r.directories["accounts"] = &openDirectory{Directory: &told{answer: directories.Answer{Wait: 3 * time.Second}, err: directories.ErrDenied}}
	_, err := r.Place(t.Context(), asked("alice@x", withSecret("PLAIN", "secret")))
	if late, ok := errors.AsType[*Late](err); !ok || late.Wait != 3*time.Second || !errors.Is(err, ErrDenied) {
		t.Errorf("got %v", err)
	}
}

// What a verifier says of a user holds where the directory says nothing else, and where it names a store nobody else is asked.
func TestVerifierPlaces(t *testing.T) {
	for _, test := range []struct {
		what                string
		verifier, directory directories.Answer
		want                string
	}{
		{"a name", directories.Answer{User: "al"}, directories.Answer{Backend: "b"}, "b al"},
		{"another name by the directory", directories.Answer{User: "al"}, directories.Answer{Backend: "b", User: "bert"}, "b bert"},
		{"a store", directories.Answer{Backend: "127.0.0.1:1"}, directories.Answer{Backend: "b", User: "bert"}, "a alice@x"},
	} {
		r := prepared(t, &configs.Config{Auth: configs.Auth{Verify: configs.VerifyDovecot}, Routes: []configs.Route{{Lookup: "accounts"}},
			Backends: []configs.Backend{backend("a", at("127.0.0.1:1")), backend("b", at("127.0.0.1:2"))}})
		test.verifier.Verified = true
		r.verifier = &openDirectory{Directory: &told{answer: test.verifier}}
		r.directories["accounts"] = &openDirectory{Directory: &told{answer: test.directory}}
		place, err := r.Place(t.Context(), asked("alice@x", withSecret("PLAIN", "secret")))
		if err != nil || place.Service.Backend+" "+place.Name != test.want {
			t.Errorf("%s: %+v, %v; want %s", test.what, place, err, test.want)
		}
	}
}

// A route that verifies nobody lets nobody in where directories verify.
func TestRouteWithoutDirectory(t *testing.T) {
	r := prepared(t, &configs.Config{Auth: configs.Auth{Verify: configs.VerifyDirectory}, Routes: []configs.Route{{To: "a"}},
		Backends: []configs.Backend{backend("a", at("127.0.0.1:1"))}})
	if _, err := r.Place(t.Context(), asked("alice@x", withSecret("PLAIN", "secret"))); !errors.Is(err, ErrUnverified) {
		t.Errorf("placed: %v", err)
	}
}

// A reload keeps the directories that are configured as before, and closes the others.
func TestReloadKeepsDirectories(t *testing.T) {
	file := func(path string) map[string]configs.Directory {
		return map[string]configs.Directory{"accounts": {Kind: configs.DirectoryFile, Path: path, Line: len(path)}}
	}
	path := t.TempDir() + "/users"
	router := func(old *Router, d map[string]configs.Directory) *Router {
		r, err := NewRouter(&configs.Config{Directories: d}, old, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := router(nil, file(path))
	second := router(first, file(path))
	first.Retire(second)
	if second.directories["accounts"] != first.directories["accounts"] {
		t.Error("the directory was opened anew")
	}
	third := router(second, file(path+"2"))
	second.Retire(third)
	if third.directories["accounts"] == second.directories["accounts"] {
		t.Error("the directory was kept")
	}
	third.Retire(nil)
}

// A reload keeps who verifies passwords and who verifies tokens, each as long as it is configured as before.
func TestReloadKeepsVerifiers(t *testing.T) {
	auth := configs.Auth{Verify: configs.VerifyDovecot, Socket: t.TempDir() + "/none", Scram: []string{}, Timeout: time.Second,
		Tokens: configs.Tokens{Keys: "http://127.0.0.1:1/keys", Issuer: "https://id.example", Audience: "mail", Timeout: time.Second}}
	router := func(old *Router) *Router {
		r, err := NewRouter(&configs.Config{Auth: auth}, old, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		if old != nil {
			old.Retire(r)
		}
		return r
	}
	first := router(nil)
	second := router(first)
	if second.verifier != first.verifier || second.tokens != first.tokens {
		t.Error("verifiers were opened anew")
	}
	auth.Tokens.Audience = "other"
	third := router(second)
	if third.verifier != second.verifier || third.tokens == second.tokens {
		t.Error("other tokens have changed the verifier of passwords, or were not taken up")
	}
	auth.Timeout = time.Minute
	fourth := router(third)
	if fourth.verifier == third.verifier || fourth.tokens != third.tokens {
		t.Error("another verifier of passwords has changed that of tokens, or was not taken up")
	}
	fourth.Retire(nil)
}

// A directory that names a store which nobody knows is mistaken: its user hears of no wrong password.
func TestUnknownStoreByDirectory(t *testing.T) {
	r := prepared(t, &configs.Config{Routes: []configs.Route{{Lookup: "accounts"}}, Backends: []configs.Backend{backend("a", at("127.0.0.1:1"))}})
	d := &told{answer: directories.Answer{Backend: "10.9.9.9:143"}}
	r.directories["accounts"] = &openDirectory{Directory: d}
	if _, err := r.Place(t.Context(), asked("alice@x")); err == nil || errors.Is(err, ErrNoService) || errors.Is(err, ErrNotFound) {
		t.Error("a store that nobody knows:", err)
	}
	d.answer.Backend = "a"
	if _, err := r.Place(t.Context(), asked("alice@x", func(q *Query) { q.Service = configs.Sieve })); !errors.Is(err, ErrNoService) {
		t.Error("a store without the service:", err)
	}
}

// What a directory calls a user is where mail for the user goes, with the detail behind it.
func TestAddressByDirectory(t *testing.T) {
	a := at("127.0.0.1:1")
	a.User = "{local}"
	for name, want := range map[string]string{"": "alice+box", "robert@y": "robert+box@y", "bob": "bob+box"} {
		r := prepared(t, &configs.Config{Routes: []configs.Route{{Lookup: "accounts", To: "a"}}, Backends: []configs.Backend{backend("a", a)}})
		r.directories["accounts"] = &openDirectory{Directory: &told{answer: directories.Answer{User: name}}}
		place, err := r.Place(t.Context(), asked("alice@x"))
		if err != nil {
			t.Fatal(err)
		}
		address, err := place.Address(Mailbox{User: User{"alice", "x"}, Detail: "+box"})
		if got := strings.Trim(address.String(), "<>"); got != want || err != nil {
			t.Errorf("%q: %s, %v; want %s", name, got, err, want)
		}
	}
}
