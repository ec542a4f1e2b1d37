package backends

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
)

// run makes the router of one run, whose end is told to it.
func run(t *testing.T, config *configs.Config, old *Router) (*Router, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	r, err := NewRouter(config, old, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	return r, logs
}

// remembering is a configuration with a store whose state is kept in a directory.
func remembering(dir string, store *fakeStore) *configs.Config {
	access := way(store.address)
	access.AcceptsAnyPassword = true
	return &configs.Config{State: dir, Backends: []configs.Backend{backend("a", access), backend("b", access)}, Routes: []configs.Route{{To: "a"}}}
}

// What was drained stays drained, after a reload and after a restart.
func TestDrainOutlivesRestart(t *testing.T) {
	store, dir := serve(t, onLoopback), t.TempDir()
	r, _ := run(t, remembering(dir, store), nil)
	if err := r.Drain("a", true); err != nil {
		t.Fatal(err)
	}
	next, _ := run(t, remembering(dir, store), r)
	r.Retire(next)
	wantsPlaces(t, next, "anna: a: backend is drained")
	next.Retire(nil)

	r, logs := run(t, remembering(dir, store), nil)
	wantsPlaces(t, r, "anna: a: backend is drained")
	if logged(logs, "backend is drained since an earlier run") != 1 {
		t.Errorf("the log has %v", logs.All())
	}
	if err := r.Drain("a", false); err != nil {
		t.Fatal(err)
	}
	r.Retire(nil)
	r, _ = run(t, remembering(dir, store), nil)
	wantsPlaces(t, r, "anna: a")
	r.Retire(nil)
	if left, err := filepath.Glob(filepath.Join(dir, "*.new-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Until a store has been reached, clients are promised what it could do in the last run.
func TestCapabilitiesOutliveRestart(t *testing.T) {
	store, dir := serve(t, onLoopback), t.TempDir()
	config := remembering(dir, store)
	known := func(r *Router) string {
		caps, known := r.Announced(configs.IMAPS, Peer{})
		if !known {
			return "nothing"
		}
		return writeCaps(caps)
	}
	r, _ := run(t, config, nil)
	eventually(t, "it is known what the store can do", func() bool { return known(r) == "IMAP4REV1;SASL-IR | PLAIN" })
	r.Retire(nil)
	store.close()
	r, logs := run(t, config, nil)
	if got := known(r); got != "IMAP4REV1;SASL-IR | PLAIN" {
		t.Errorf("known is %s", got)
	}
	store.set(func(f *fakeStore) { f.caps = "IMAP4rev1 IDLE AUTH=PLAIN" })
	store.listen(t)
	eventually(t, "what it can do now is learned", func() bool { return known(r) == "IMAP4REV1;IDLE | PLAIN" })
	if logged(logs, "learned capabilities") == 0 {
		t.Error("the log does not tell")
	}
	r.Retire(nil)

	config.Backends = config.Backends[1:] // a backend that is no more is forgotten
	config.Routes[0].To = "b"
	r, _ = run(t, config, nil)
	store.set(func(f *fakeStore) { f.caps = "IMAP4rev1 AUTH=PLAIN" })
	s := r.services[serviceKey{"b", configs.IMAP}]
	if err := s.Ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Retire(nil)
	data, err := os.ReadFile(filepath.Join(dir, capabilitiesFile))
	if err != nil || strings.Contains(string(data), `"a imap"`) || !strings.Contains(string(data), `"b imap"`) {
		t.Errorf("kept is %s, %v", data, err)
	}
}

// A directory that is not there, and files that make no sense, keep nobody from starting; the log tells.
func TestMemoryIsBroken(t *testing.T) {
	store, dir := serve(t, onLoopback), t.TempDir()
	for _, file := range []string{drainedFile, capabilitiesFile} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("["), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, logs := run(t, remembering(dir, store), nil)
	if logged(logs, "reading what was kept from the last run") != 2 {
		t.Errorf("the log has %v", logs.All())
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := r.Drain("a", true); err != nil || logged(logs, "keeping what is to outlive a restart") != 1 {
		t.Errorf("drained with %v, and the log has %v", err, logs.All())
	}
	wantsPlaces(t, r, "anna: a: backend is drained")
	r.Retire(nil)
	r, logs = run(t, remembering(dir, store), nil)
	if logged(logs, "no directory for what is to outlive a restart: drained backends, and what stores can do") != 1 {
		t.Errorf("the log has %v", logs.All())
	}
	wantsPlaces(t, r, "anna: a")
	r.Retire(nil)
}

// States tell of all that operators want to know.
func TestStates(t *testing.T) {
	store, gone := serve(t, onLoopback), onSocket(t)
	host(t, "stores.example", "127.0.0.1")
	a := probed(store.address, gone)
	b := probed(tcp("stores.example", on(store)), tcp("no.example", "143"))
	config := &configs.Config{Routes: []configs.Route{{User: []string{"bob"}, To: "b"}, {To: "a"}}, Backends: []configs.Backend{backend("a", a), backend("b", b)}}
	config.Backends[0].Access[configs.Sieve] = way(gone)
	config.Backends[0].MaxSessions, config.Backends[0].MaxLogins = 7, 5
	r, _ := run(t, config, nil)
	defer r.Retire(nil)
	place, err := r.Place(t.Context(), asked("alice"))
	if err != nil {
		t.Fatal(err)
	}
	defer place.Release()
	conn, err := place.Login(t.Context(), visit("alice"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Conn.Close() }()
	if err := r.Drain("b", true); err != nil {
		t.Fatal(err)
	}
	want := `[{"name":"a","drained":false,"slow":false,"sessions":1,"logins":0,"waiting":0,"most":{"sessions":7,"logins":5},"services":[` +
		`{"protocol":"imap","down":false,"addresses":[{"address":"STORE","state":"up"},{"address":"GONE","state":"down","error":"dial"}],` +
		`"logins":{"ok":1,"refused":0,"temporary":0}},` +
		`{"protocol":"sieve","down":true,"problem":"connecting","addresses":[{"address":"GONE","state":"down","error":"dial"}],` +
		`"logins":{"ok":0,"refused":0,"temporary":0}}]},` +
		`{"name":"b","drained":true,"slow":false,"sessions":0,"logins":0,"waiting":0,"most":{"sessions":0,"logins":0},"services":[` +
		`{"protocol":"imap","down":false,"addresses":[{"address":"NAME","host":"STORE","state":"up"},` +
		`{"address":"no.example:143","state":"down","error":"lookup"}],"logins":{"ok":0,"refused":0,"temporary":0}}]}]`
	want = strings.NewReplacer("STORE", store.address.String(), "GONE", gone.String(), "NAME", "stores.example:"+on(store)).Replace(want)
	got := ""
	eventually(t, "all was looked at", func() bool {
		data, err := json.Marshal(plainly(t, r.States()))
		if err != nil {
			t.Fatal(err)
		}
		got = strings.ReplaceAll(string(data), `,"seconds":0`, "")
		return !strings.Contains(got, "unknown")
	})
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// plainly leaves out of states what is never the same twice, after a look at it.
func plainly(t *testing.T, states []BackendState) []BackendState {
	for _, b := range states {
		for i := range b.Services {
			s := &b.Services[i]
			s.Problem, _, _ = strings.Cut(s.Problem, " ")
			for j := range s.Addresses {
				a := &s.Addresses[j]
				a.Error, _, _ = strings.Cut(a.Error, " ")
				if known := a.State != "unknown"; known == a.Since.IsZero() || known == a.Checked.IsZero() {
					t.Errorf("%s is %s since %v, known since %v", a.Address, a.State, a.Since, a.Checked)
				}
				if a.State == "up" && a.Seconds <= 0 {
					t.Errorf("a look at %s took %v s", a.Address, a.Seconds)
				}
				*a = AddressState{Address: a.Address, Host: a.Host, State: a.State, Error: a.Error}
			}
		}
	}
	return states
}

// BenchmarkStates reads what is known of 1,000 backends with 5 services each.
func BenchmarkStates(b *testing.B) {
	config := new(configs.Config)
	access := make(map[configs.Service]configs.Access)
	for _, protocol := range configs.Protocols() {
		access[protocol] = at("127.0.0.1:1")
	}
	for i := range 1000 {
		config.Backends = append(config.Backends, configs.Backend{Name: fmt.Sprint("store", i), Access: access})
	}
	r, err := PrepareRouter(config, nil, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	defer r.Retire(nil)
	for b.Loop() {
		if len(r.States()) != 1000 {
			b.Fatal("not all are told of")
		}
	}
}
