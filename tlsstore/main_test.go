package tlsstore

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick makes a change visible at once. Nothing is found by a scan at an interval, only by watching.
var quick = tuning{
	notifier: fsnotify.NewWatcher,
	quiet:    10 * time.Millisecond,
	patience: 100 * time.Millisecond,
	poll:     10 * time.Millisecond,
	rescan:   time.Hour,
	grace:    time.Hour,
	cache:    800,
	verify:   100,
}

var testCA = sync.OnceValues(devca.New)

func issue(t testing.TB, o devca.Options) devca.Leaf {
	t.Helper()
	ca, err := testCA()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func leafFor(t testing.TB, names ...string) devca.Leaf {
	t.Helper()
	return issue(t, devca.Options{Names: names})
}

// fixture is a store with a directory of its own.
type fixture struct {
	*testing.T
	*Store
	dir string
}

// newFixture opens a store. What files holds is written before, under names that may have directories in them.
func newFixture(t *testing.T, files map[string][]byte) fixture {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		write(t, filepath.Join(dir, name), data)
	}
	return openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, quick)
}

func openFixture(t *testing.T, dir string, cfg configs.TLS, how tuning) fixture {
	t.Helper()
	s := open(Options{TLS: cfg, Tickets: NewTickets(), Log: zap.NewNop()}, how)
	t.Cleanup(s.Close)
	return fixture{t, s, dir}
}

// pemFiles is the leaf as devca.Leaf.Write would write it.
func pemFiles(name string, leaf devca.Leaf) map[string][]byte {
	return map[string][]byte{name + ".crt": leaf.ChainPEM, name + ".key": leaf.KeyPEM}
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace does what careful programs do: it writes another file and renames it over the old one.
func replace(t testing.TB, path string, data []byte) {
	t.Helper()
	write(t, path+".new", data)
	must(t, os.Rename(path+".new", path))
}

// relink replaces a symlink as certbot and Kubernetes do.
func relink(t testing.TB, target, path string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.Symlink(target, path+".new"))
	must(t, os.Rename(path+".new", path))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return data
}

func pointer(s string) *string { return &s }

// handshake connects the two and returns what the client knows then. A socket has room for what both say at once, which a
// pipe has not.
func handshake(server, client *tls.Config) (tls.ConnectionState, error) {
	near, far, err := sockets()
	if err != nil {
		return tls.ConnectionState{}, err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer near.Close()
	wg.Go(func() {
		conn := tls.Server(far, server)
		conn.Write([]byte("!"))
		conn.Close()
	})
	conn := tls.Client(near, client)
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = io.ReadFull(conn, make([]byte, 1)) // the tickets of TLS 1.3 come before what is read
	return conn.ConnectionState(), err
}

func sockets() (near, far net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	if far, err = l.Accept(); err != nil {
		near.Close()
	}
	return near, far, err
}

// client returns a configuration that takes any certificate, as the tests look at it themselves.
func client(sni string) *tls.Config { return &tls.Config{ServerName: sni, InsecureSkipVerify: true} }

// shown returns the certificates that a client of that name is shown, or nil.
func (f fixture) shown(sni string) [][]byte {
	state, err := handshake(f.Config(ListenerTLS{}), client(sni))
	if err != nil {
		return nil
	}
	var chain [][]byte
	for _, cert := range state.PeerCertificates {
		chain = append(chain, cert.Raw)
	}
	return chain
}

func (f fixture) shows(sni string, leaf devca.Leaf) bool {
	chain := f.shown(sni)
	return len(chain) > 0 && bytes.Equal(chain[0], leaf.TLS.Certificate[0])
}

// mustShow fails unless the leaf is shown now.
func (f fixture) mustShow(sni string, leaf devca.Leaf) {
	f.Helper()
	if !f.shows(sni, leaf) {
		f.Errorf("%s is not shown its certificate; problems: %v", sni, f.Problems())
	}
}

// awaitShow fails unless the leaf is shown soon.
func (f fixture) awaitShow(sni string, leaf devca.Leaf) {
	f.Helper()
	f.await("certificate for "+sni, func() bool { return f.shows(sni, leaf) })
}

func (f fixture) await(what string, done func() bool) {
	f.Helper()
	for deadline := time.Now().Add(5 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatalf("waited in vain for: %s; problems: %v", what, f.Problems())
		}
	}
}

// awaitProblem waits until the file has a problem.
func (f fixture) awaitProblem(file string) {
	f.Helper()
	f.await("problem with "+file, func() bool { return f.hasProblem(file) })
}

func (f fixture) hasProblem(file string) bool {
	for _, p := range f.Problems() {
		if p.File == filepath.Join(f.dir, file) {
			return true
		}
	}
	return false
}

func (f fixture) mustHaveNoProblems() {
	f.Helper()
	if p := f.Problems(); len(p) > 0 {
		f.Errorf("problems: %v", p)
	}
}
