package orders

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const day = 24 * time.Hour

// fixture is a manager whose clock runs only while all wait, and whose authority is fake.
type fixture struct {
	*Manager
	t    *testing.T
	ca   *fakeCA
	logs *observer.ObservedLogs
}

// inBubble runs a test with a clock of its own. Nothing in it may wait for the network.
func inBubble(t *testing.T, test func(t *testing.T, ca *fakeCA, dir string)) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "acme")
	synctest.Test(t, func(t *testing.T) { test(t, newFakeCA(t), dir) })
}

// run starts a manager that answers http-01, and looks at the cache for the first time.
func run(t *testing.T, ca *fakeCA, dir string, o Options, names ...string) *fixture {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	o.Log, o.transport = zap.New(core), ca
	o.Config.Names, o.Config.Cache, o.Config.Directory = names, dir, base+"directory"
	if o.Config.TLSALPN == (configs.Address{}) {
		o.Config.HTTP = configs.Address{Network: "tcp", Address: ":80"}
	}
	f := &fixture{newManager(o), t, ca, logs}
	f.start()
	t.Cleanup(f.stop)
	synctest.Wait()
	return f
}

// stop ends the manager; nobody listens.
func (f *fixture) stop() {
	f.cancel()
	<-f.done
}

// after lets time pass.
func (f *fixture) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// ask is Ask, with what comes of it.
func (f *fixture) ask(names ...string) {
	for _, name := range names {
		f.Ask(name)
	}
	synctest.Wait()
}

// status is that of a name, which must be known.
func (f *fixture) status(name string) Status {
	f.t.Helper()
	for _, s := range f.Status() {
		if s.Name == name {
			return s
		}
	}
	f.t.Fatalf("%s is not known: %+v", name, f.Status())
	return Status{}
}

// ordered compares what was ordered from the authority so far, by any manager.
func (f *fixture) ordered(want string) {
	f.t.Helper()
	if got := f.ca.ordered(); got != want {
		f.t.Errorf("after %v ordered %q, want %q", time.Since(beginning), got, want)
	}
}

// logged compares how often something was logged.
func (f *fixture) logged(times int, message string) {
	f.t.Helper()
	if n := f.logs.FilterMessageSnippet(message).Len(); n != times {
		f.t.Errorf("%q was logged %d times, want %d: %v", message, n, times, f.logs.All())
	}
}

// beginning is when the clock of every bubble starts.
var beginning = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// keep makes a file in a cache.
func keep(t testing.TB, text string, parts ...string) {
	t.Helper()
	path := filepath.Join(parts...)
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func knows(domains ...string) func(context.Context, string, string) (bool, error) {
	return func(_ context.Context, domain, _ string) (bool, error) {
		return strings.Contains(" "+strings.Join(domains, " ")+" ", " "+domain+" "), nil
	}
}
