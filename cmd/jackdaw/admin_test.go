package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
	"jackdaw/internal/devca"
	"jackdaw/internal/inherit"
	"jackdaw/tlsstore"
)

// adminFixture is an admin that knows one certificate, for mail.example, and the log that it writes.
type adminFixture struct {
	*admin
	t     *testing.T
	dir   string
	certs *certificates
	logs  *observer.ObservedLogs
}

func newAdminFixture(t *testing.T) *adminFixture {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	dir, err := os.MkdirTemp("", "admin") // t.TempDir may be too long for a socket
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	ca, err := devca.New()
	must(t, err)
	leaf, err := ca.Issue(devca.Options{Names: []string{"mail.example"}})
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "certs"), 0o700))
	must(t, leaf.Write(filepath.Join(dir, "certs"), "mail"))
	config := &configs.Config{TLS: configs.TLS{Certificates: []string{filepath.Join(dir, "certs")}}}
	certs := &certificates{Store: openCerts(config)}
	t.Cleanup(certs.Close)
	core, logs := observer.New(zapcore.WarnLevel)
	f := &adminFixture{admin: newAdmin(zap.New(core), new(tlsstore.Counts), inherit.NewSockets()), t: t, dir: dir, certs: certs, logs: logs}
	t.Cleanup(f.end)
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *adminFixture) at(name string) string { return filepath.Join(f.dir, name) }

// serve has the admin listen at a path.
func (f *adminFixture) serve(name string) { f.apply(f.at(name), f.certs) }

// mustAnswer asks for the certificates at a path.
func (f *adminFixture) mustAnswer(name string) {
	f.t.Helper()
	report, err := certsQuestion{socket: f.at(name)}.report(f.t.Context())
	must(f.t, err)
	if len(report.Certificates) != 1 || !slices.Equal(report.Certificates[0].Names, []string{"mail.example"}) {
		f.t.Errorf("the answer is %+v", report)
	}
}

// mustBeGone looks for nothing at a path.
func (f *adminFixture) mustBeGone(name string) {
	f.t.Helper()
	if _, err := os.Lstat(f.at(name)); !errors.Is(err, fs.ErrNotExist) {
		f.t.Errorf("%s is there still (%v)", name, err)
	}
}

// mustWarn looks for the one warning since it was called last.
func (f *adminFixture) mustWarn(of string) {
	f.t.Helper()
	all := f.logs.TakeAll()
	if len(all) != 1 || all[0].Level != zapcore.WarnLevel || !strings.Contains(all[0].ContextMap()["error"].(string), of) {
		f.t.Errorf("logged %v, want one warning of %q", all, of)
	}
}

func (f *adminFixture) file(name string) fs.FileInfo {
	f.t.Helper()
	info, err := os.Lstat(f.at(name))
	must(f.t, err)
	return info
}

// A socket answers from apply to close. It lets in the owner and the group of the process.
func TestAdminSocket(t *testing.T) {
	f := newAdminFixture(t)
	f.serve("sock")
	f.mustAnswer("sock")
	if mode := f.file("sock").Mode(); mode != fs.ModeSocket|0o660 {
		t.Errorf("the socket's mode is %v", mode)
	}
	f.close()
	f.mustBeGone("sock")
	f.close() // nothing happens
	if n := f.logs.Len(); n != 0 {
		t.Errorf("logged %v", f.logs.All())
	}
}

// A reload leaves the socket alone, unless it is to be elsewhere.
func TestAdminReload(t *testing.T) {
	f := newAdminFixture(t)
	f.serve("sock")
	before := f.file("sock")
	f.serve("sock")
	if !os.SameFile(before, f.file("sock")) {
		t.Error("the socket was made anew")
	}
	f.mustAnswer("sock")
	f.serve("other")
	f.mustBeGone("sock")
	f.mustAnswer("other")
	f.apply("", f.certs)
	f.mustBeGone("other")
	f.serve("sock")
	f.mustAnswer("sock")
}

// The socket of a process that has died is replaced.
func TestAdminStaleSocket(t *testing.T) {
	f := newAdminFixture(t)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: f.at("sock")})
	must(t, err)
	dead.SetUnlinkOnClose(false)
	must(t, dead.Close())
	f.serve("sock")
	f.mustAnswer("sock")
}

// The socket of a process that lives is not, until it has gone.
func TestAdminLiveSocket(t *testing.T) {
	f := newAdminFixture(t)
	other := newAdmin(zap.NewNop(), new(tlsstore.Counts), inherit.NewSockets())
	defer other.end()
	other.apply(f.at("sock"), f.certs)
	f.serve("sock")
	f.mustWarn("another process listens on ")
	f.mustAnswer("sock")
	f.close()
	f.mustAnswer("sock") // still the other's
	other.close()
	f.serve("sock")
	f.mustAnswer("sock")
}

// What is no socket stays where it is, be it what others would find a socket by.
func TestAdminPathTaken(t *testing.T) {
	f := newAdminFixture(t)
	must(t, os.WriteFile(f.at("file"), nil, 0o600))
	must(t, os.Mkdir(f.at("dir"), 0o700))
	must(t, os.Symlink("nowhere", f.at("link")))
	for _, name := range []string{"file", "dir", "link"} {
		before := f.file(name)
		f.serve(name)
		f.mustWarn("is no socket")
		if !os.SameFile(before, f.file(name)) {
			t.Errorf("%s was replaced", name)
		}
	}
}

// A directory that is missing costs the socket, until it is there at a reload.
func TestAdminDirectoryMissing(t *testing.T) {
	f := newAdminFixture(t)
	f.serve("run/sock")
	f.mustWarn("no such file or directory")
	must(t, os.Mkdir(f.at("run"), 0o700))
	f.serve("run/sock")
	f.mustAnswer("run/sock")
}

func TestAdminDirectoryNotWritable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root writes everywhere")
	}
	f := newAdminFixture(t)
	must(t, os.Mkdir(f.at("run"), 0o500))
	f.serve("run/sock")
	f.mustWarn("permission denied")
}

// A socket that somebody has removed is made anew at a reload; one that somebody has put in its place is left to them.
func TestAdminSocketRemoved(t *testing.T) {
	f := newAdminFixture(t)
	f.serve("sock")
	must(t, os.Remove(f.at("sock")))
	f.serve("sock")
	f.mustAnswer("sock")

	must(t, os.Remove(f.at("sock")))
	other := newAdmin(zap.NewNop(), new(tlsstore.Counts), inherit.NewSockets())
	defer other.end()
	other.apply(f.at("sock"), f.certs)
	f.close()
	f.mustAnswer("sock")
}
