package tlsstore

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

// keyLine is a line of a file of ticket keys, another one for each letter.
func keyLine(letter string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, 32))) + "\n"
}

// frontend is what one process has: a store, and tickets.
type frontend struct {
	fixture
	tickets *Tickets
	logs    *observer.ObservedLogs
}

// newFrontend begins with the keys in a file, which it looks at all the time; without one if it is "".
func newFrontend(t *testing.T, dir string, cfg configs.TLS, keys string) frontend {
	t.Helper()
	f := frontend{tickets: NewTickets()}
	f.tickets.interval = 5 * time.Millisecond
	t.Cleanup(f.tickets.Close)
	core, logs := observer.New(zap.InfoLevel)
	f.logs = logs
	f.use(t, keys, zap.New(core))
	cfg.Certificates = []string{dir}
	s := open(Options{TLS: cfg, Tickets: f.tickets, Log: zap.NewNop()}, quick)
	t.Cleanup(s.Close)
	f.fixture = fixture{t, s, dir}
	return f
}

func (f frontend) use(t *testing.T, file string, log *zap.Logger) {
	t.Helper()
	keys, err := ReadTicketKeys(file)
	must(t, err)
	f.tickets.Use(keys, log)
}

// awaitLog waits until a message has been logged that often.
func (f frontend) awaitLog(message string, times int) {
	f.Helper()
	f.await(message, func() bool { return f.logs.FilterMessage(message).Len() >= times })
}

const (
	keysChanged = "ticket keys changed"
	keysStay    = "ticket keys stay as they are"
	keysOpen    = "ticket keys are open to others than their owner; chmod 600 is enough for jackdaw"
)

// resumer is a client that keeps its first session.
func resumer(t *testing.T, server *tls.Config, sni string, version uint16) func(*tls.Config) bool {
	t.Helper()
	return resumerAs(t, server, client(sni), version)
}

func resumerAs(t *testing.T, server, c *tls.Config, version uint16) func(*tls.Config) bool {
	t.Helper()
	cache := new(oneSession)
	c.ClientSessionCache, c.MaxVersion = cache, version
	if _, err := handshake(server, c); err != nil {
		t.Fatal(err)
	}
	kept := cache.session
	return func(server *tls.Config) bool {
		t.Helper()
		cache.session = kept
		state, err := handshake(server, c)
		if err != nil {
			t.Fatal(err)
		}
		return state.DidResume
	}
}

// Frontends that share a file resume each other's sessions, of the same name and under the same terms; an old key does
// until it is taken out of the file.
func TestSharedTicketKeys(t *testing.T) {
	dir, keys := t.TempDir(), filepath.Join(t.TempDir(), "ticket.keys")
	must(t, leafFor(t, "a.example", "b.example").Write(dir, "both"))
	write(t, keys, []byte(keyLine("a")))
	cfg := configs.TLS{Policies: []configs.TLSPolicy{{SNI: []string{"b.example"}, Terms: configs.Terms{MinVersion: tls12}}}}
	one, other, alone := newFrontend(t, dir, cfg, keys), newFrontend(t, dir, cfg, keys), newFrontend(t, dir, cfg, "")
	l := ListenerTLS{}
	var resumes []func(*tls.Config) bool
	for _, version := range versions {
		for _, sni := range []string{"a.example", "b.example"} {
			resumes = append(resumes, resumer(t, one.Config(l), sni, version))
		}
	}
	all := func(about string, server *tls.Config, want bool) {
		t.Helper()
		for i, resumes := range resumes {
			if resumes(server) != want {
				t.Errorf("%s: session %d resumed: %v", about, i, !want)
			}
		}
	}
	all("the same file", other.Config(l), true)
	all("own keys", alone.Config(l), false)

	replace(t, keys, []byte("# rotated\n"+keyLine("b")+"\n"+keyLine("a")))
	one.awaitLog(keysChanged, 1)
	other.awaitLog(keysChanged, 1)
	all("the key is the second", other.Config(l), true)
	for _, version := range versions {
		fresh := resumer(t, one.Config(l), "a.example", version)
		write(t, keys, []byte(keyLine("b"))) // not replaced, but written over
		if !fresh(other.Config(l)) {
			t.Error("a session under the new key is not resumed")
		}
	}
	other.awaitLog(keysChanged, 2)
	all("the key is gone", other.Config(l), false)
}

// A session goes with its name and the authorities of its client, and not with another name's, whichever frontend it comes
// to.
func TestSharedTicketsUnderPolicies(t *testing.T) {
	dir, keys := t.TempDir(), filepath.Join(t.TempDir(), "ticket.keys")
	must(t, leafFor(t, "a.example", "b.example", "c.example").Write(dir, "all"))
	write(t, keys, []byte(keyLine("a")))
	ca, one := authority(t)
	_, two := authority(t)
	clients := ClientCAs{"one": one, "two": two}
	policies := func(a, b configs.TLSPolicy) configs.TLS {
		a.SNI, b.SNI = []string{"a.example"}, []string{"b.example"}
		return configs.TLS{Policies: []configs.TLSPolicy{a, b}, Default: pointer("a.example")}
	}
	asked := func(whom string) configs.TLSPolicy { return configs.TLSPolicy{Terms: configs.Terms{ClientCA: whom}} }
	strict := configs.TLSPolicy{Terms: configs.Terms{MinVersion: tls13, ClientCA: "one"}}
	first := newFrontend(t, dir, policies(asked("one"), asked("")), keys)
	for _, tt := range []struct {
		about       string
		second      configs.TLS
		first, then string // names
		want        bool
	}{
		{"the same", policies(asked("one"), asked("")), "a.example", "a.example", true},
		{"another name with the same authorities", policies(asked("one"), asked("one")), "a.example", "b.example", false},
		{"another name without authorities", policies(asked("one"), asked("")), "a.example", "b.example", false},
		{"a name without a policy", policies(asked("one"), asked("")), "a.example", "c.example", false},
		{"the default by no name", policies(asked("one"), asked("")), "a.example", "", false},
		{"a name without authorities to one with", policies(asked("one"), asked("")), "b.example", "a.example", false},
		{"authorities that came later", policies(asked("one"), asked("one")), "b.example", "b.example", false},
		{"authorities that have gone", policies(asked(""), asked("")), "a.example", "a.example", false},
		{"other terms of other names", policies(asked("one"), asked("two")), "a.example", "a.example", true},
		{"a minimum that the session has", policies(strict, asked("")), "a.example", "a.example", true},
	} {
		second := newFrontend(t, dir, tt.second, keys)
		for _, version := range versions {
			if version == tls.VersionTLS12 && tt.second.Policies[0].MinVersion == tls13 {
				continue
			}
			c := showing(client(tt.first), clientOf(t, ca, devca.Options{}))
			l := ListenerTLS{Clients: clients}
			resumes := resumerAs(t, first.Config(l), c, version)
			c.ServerName = tt.then
			if got := resumes(second.Config(l)); got != tt.want {
				t.Errorf("%s, %s: resumed: %v", tt.about, tls.VersionName(version), got)
			}
		}
	}
}

// What is in a policy by now holds for sessions that began before it.
func TestTicketsAfterChangeOfPolicy(t *testing.T) {
	dir := t.TempDir()
	must(t, leafFor(t, "a.example").Write(dir, "a"))
	tickets := NewTickets()
	opened := func(p configs.TLSPolicy) *tls.Config {
		p.SNI = []string{"a.example"}
		cfg := configs.TLS{Certificates: []string{dir}, Policies: []configs.TLSPolicy{p}}
		s := open(Options{TLS: cfg, Tickets: tickets, Log: zap.NewNop()}, quick)
		t.Cleanup(s.Close)
		return s.Config(ListenerTLS{Service: configs.IMAPS})
	}
	before := opened(configs.TLSPolicy{})
	for about, after := range map[string]struct {
		alert  string
		policy configs.TLSPolicy
	}{
		"a minimum":         {"protocol version", configs.TLSPolicy{Terms: configs.Terms{MinVersion: tls13}}},
		"other services":    {"unrecognized name", configs.TLSPolicy{Services: []configs.Service{configs.Sieve}}},
		"the same services": {"", configs.TLSPolicy{Services: []configs.Service{configs.IMAPS}}},
	} {
		c := client("a.example")
		c.ClientSessionCache, c.MaxVersion = new(oneSession), tls.VersionTLS12
		if _, err := handshake(before, c); err != nil {
			t.Fatal(err)
		}
		if after.alert != "" {
			mustRefuse(t, opened(after.policy), c, after.alert)
		} else if state, err := handshake(opened(after.policy), c); err != nil || !state.DidResume {
			t.Errorf("%s: resumed: %v, %v", about, state.DidResume, err)
		}
	}
}

// A file that cannot be used while the program runs changes nothing, and is spoken of once; then it is used again.
func TestTicketKeysStay(t *testing.T) {
	dir, keys := t.TempDir(), filepath.Join(t.TempDir(), "ticket.keys")
	must(t, leafFor(t, "a.example").Write(dir, "a"))
	write(t, keys, []byte(keyLine("a")))
	f := newFrontend(t, dir, configs.TLS{}, keys)
	resumes := resumer(t, f.Config(ListenerTLS{}), "a.example", tls.VersionTLS13)
	for i, breaks := range []func(){
		func() { must(t, os.Remove(keys)) },
		func() { replace(t, keys, []byte(keyLine("b")[:20])) },
	} {
		breaks()
		f.awaitLog(keysStay, i+1)
		if !resumes(f.Config(ListenerTLS{})) {
			t.Error("a session is not resumed while the file is of no use")
		}
		time.Sleep(20 * f.tickets.interval) // in which it could be said again
		replace(t, keys, []byte(keyLine(string(rune('b'+i)))+keyLine("a")))
		f.awaitLog(keysChanged, i+1)
		if !resumes(f.Config(ListenerTLS{})) {
			t.Error("a session is not resumed with what is in the file again")
		}
	}
	if n := f.logs.FilterMessage(keysStay).Len(); n != 2 {
		t.Errorf("%d warnings, want 2", n)
	}
	for _, entry := range f.logs.All() {
		if text := fmt.Sprint(entry.ContextMap()); strings.Contains(text, keyLine("b")[:10]) {
			t.Errorf("a key is in the log: %s", text)
		}
	}
}

// One file after another, and none: sessions are resumed as long as their keys are used, also those that are made here.
func TestTicketsUse(t *testing.T) {
	dir, first, second := t.TempDir(), filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
	must(t, leafFor(t, "a.example").Write(dir, "a"))
	write(t, first, []byte(keyLine("a")))
	write(t, second, []byte(keyLine("b")))
	f := newFrontend(t, dir, configs.TLS{}, "")
	server, log := f.Config(ListenerTLS{}), zap.NewNop()
	own := resumer(t, server, "a.example", tls.VersionTLS13)
	f.use(t, first, log)
	under := resumer(t, server, "a.example", tls.VersionTLS13)
	if own(server) || !under(server) {
		t.Error("the file's keys are not used")
	}
	f.use(t, second, log)
	replace(t, first, []byte(keyLine("c"))) // which nobody looks at any more
	if under(server) {
		t.Error("the first file's keys are used yet")
	}
	f.use(t, "", log)
	if !own(server) {
		t.Error("the keys that were made here are not used again")
	}
	f.tickets.Close()
	f.tickets.Close() // twice does no harm
	if !own(server) {
		t.Error("the keys do not stay")
	}
}

// Keys that others may read are spoken of when they are first read, and when that begins.
func TestTicketKeysExposed(t *testing.T) {
	dir, keys := t.TempDir(), filepath.Join(t.TempDir(), "ticket.keys")
	write(t, keys, []byte(keyLine("a")))
	f := newFrontend(t, dir, configs.TLS{}, keys)
	must(t, os.Chmod(keys, 0o640))
	f.awaitLog(keysOpen, 1)
	replace(t, keys, []byte(keyLine("b"))) // as private as it should be
	f.awaitLog(keysChanged, 1)
	must(t, os.Chmod(keys, 0o604))
	f.awaitLog(keysOpen, 2)
	if g := newFrontend(t, dir, configs.TLS{}, keys); g.logs.FilterMessage(keysOpen).Len() != 1 {
		t.Error("no word of it at the beginning")
	}
	for mode, exposed := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true, 0o620: true} {
		must(t, os.Chmod(keys, mode))
		k, err := ReadTicketKeys(keys)
		must(t, err)
		if k.Exposed() != exposed {
			t.Errorf("mode %v: exposed: %v", mode, !exposed)
		}
	}
}

func TestReadTicketKeys(t *testing.T) {
	const advice = "; each line is a key as made by: openssl rand -base64 32"
	dir := t.TempDir()
	file := filepath.Join(dir, "ticket.keys")
	for _, tt := range []struct {
		about, data string
		count       int
		want        string
	}{
		{"one", keyLine("a"), 1, ""},
		{"no line end", strings.TrimSpace(keyLine("a")), 1, ""},
		{"two with a comment", "# new\n" + keyLine("b") + "\n\t# old\n" + keyLine("a"), 2, ""},
		{"as Windows writes", strings.ReplaceAll(keyLine("a")+keyLine("b"), "\n", "\r\n"), 2, ""},
		{"nothing", "", 0, file + ": no key in it"},
		{"comments alone", "# none yet\n\n", 0, file + ": no key in it"},
		{"31 bytes", keyLine("a") + base64.StdEncoding.EncodeToString(make([]byte, 31)), 0, file + ":2: no 32 bytes in base64"},
		{"48 bytes", "\n" + base64.StdEncoding.EncodeToString(make([]byte, 48)), 0, file + ":2: no 32 bytes in base64"},
		{"no base64", "# key\n" + strings.Repeat("-", 44), 0, file + ":2: no 32 bytes in base64"},
		{"two in one line", strings.ReplaceAll(keyLine("a")+keyLine("b"), "\n", " "), 0, file + ":1: no 32 bytes in base64"},
	} {
		write(t, file, []byte(tt.data))
		keys, err := ReadTicketKeys(file)
		switch {
		case tt.want != "" && (err == nil || err.Error() != "reading ticket_keys: "+tt.want+advice):
			t.Errorf("%s: %v, want %q", tt.about, err, tt.want)
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.about, err)
		case tt.want == "" && keys.Count() != tt.count:
			t.Errorf("%s: %d keys, want %d", tt.about, keys.Count(), tt.count)
		}
	}
	for path, want := range map[string]string{filepath.Join(dir, "none"): "no such file", dir: "is no regular file"} {
		_, err := ReadTicketKeys(path)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasSuffix(err.Error(), advice) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if keys, err := ReadTicketKeys(""); keys != nil || err != nil {
		t.Error("keys from nowhere", keys, err)
	}
}
