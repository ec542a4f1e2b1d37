package tlsstore

import (
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

// renewed returns a certificate for mail.example and the one that follows it.
func renewed(t *testing.T) (first, second devca.Leaf) {
	t.Helper()
	return leafFor(t, "mail.example"), leafFor(t, "mail.example")
}

// Each renewal ends with the second certificate served, and nothing to complain of.
func TestRenewal(t *testing.T) {
	tests := []struct {
		about string
		first layout
		renew layout
		root  string
	}{
		{"rename over", writePair, func(t *testing.T, dir string, leaf devca.Leaf) {
			replace(t, filepath.Join(dir, "mail.key"), leaf.KeyPEM)
			replace(t, filepath.Join(dir, "mail.crt"), leaf.ChainPEM)
		}, ""},
		{"in place", writePair, writePair, ""},
		{"removed and written", writePair, func(t *testing.T, dir string, leaf devca.Leaf) {
			must(t, os.Remove(filepath.Join(dir, "mail.key")))
			must(t, os.Remove(filepath.Join(dir, "mail.crt")))
			writePair(t, dir, leaf)
		}, ""},
		{"certbot", certbot, func(t *testing.T, dir string, leaf devca.Leaf) { certbotRenewal(t, dir, "2", leaf) }, "live"},
		{"certbot's archive, in place", certbot, func(t *testing.T, dir string, leaf devca.Leaf) { certbotRenewal(t, dir, "1", leaf) }, "live"},
		{"kubernetes", kubernetes, kubernetesUpdate, ""},
		{"symlink to a release", release("v1"), release("v2"), "current"},
		{"symlink to a release, single files", release("v1"), release("v2"), "current/mail.pem"},
		{"directory replaced", plain(inDirectory), func(t *testing.T, dir string, leaf devca.Leaf) {
			must(t, os.Rename(filepath.Join(dir, "sub"), filepath.Join(t.TempDir(), "away")))
			plain(inDirectory)(t, dir, leaf)
		}, ""},
		{"configured directory replaced", plain(inDirectory), func(t *testing.T, dir string, leaf devca.Leaf) {
			must(t, os.RemoveAll(filepath.Join(dir, "sub")))
			plain(inDirectory)(t, dir, leaf)
		}, "sub/deep"},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			first, second := renewed(t)
			dir := t.TempDir()
			tt.first(t, dir, first)
			root := filepath.Join(dir, tt.root)
			f := openFixture(t, dir, configs.TLS{Certificates: []string{root}}, quick)
			f.mustShow("mail.example", first)
			tt.renew(t, dir, second)
			f.awaitShow("mail.example", second)
			f.await("no problems", func() bool { return len(f.Problems()) == 0 })
			third := leafFor(t, "mail.example") // what has been replaced is watched as well
			tt.renew(t, dir, third)
			f.awaitShow("mail.example", third)
		})
	}
}

func writePair(t *testing.T, dir string, leaf devca.Leaf) { must(t, leaf.Write(dir, "mail")) }

func inDirectory(leaf devca.Leaf) map[string][]byte {
	return map[string][]byte{"sub/deep/mail.crt": leaf.ChainPEM, "sub/deep/mail.key": leaf.KeyPEM}
}

func release(version string) layout {
	return func(t *testing.T, dir string, leaf devca.Leaf) {
		write(t, filepath.Join(dir, version, "mail.pem"), append(leaf.KeyPEM, leaf.ChainPEM...))
		relink(t, version, filepath.Join(dir, "current"))
	}
}

// Whatever half of the second pair arrives first, the first pair serves until the second is complete.
func TestHalfPairKeepsTheOld(t *testing.T) {
	first, second := renewed(t)
	tests := []struct {
		about  string
		half   func(dir string)
		broken string
	}{
		{"key before chain", func(dir string) { write(t, dir+"/mail.key", second.KeyPEM) }, "mail.crt"},
		{"chain before key", func(dir string) { write(t, dir+"/mail.crt", second.ChainPEM) }, "mail.crt"},
		{"chain half-written", func(dir string) { write(t, dir+"/mail.crt", second.ChainPEM[:700]) }, "mail.crt"},
		{"chain emptied", func(dir string) { write(t, dir+"/mail.crt", nil) }, "mail.crt"},
		{"key half-written", func(dir string) { write(t, dir+"/mail.key", second.KeyPEM[:70]) }, "mail.crt"},
		{"chain removed", func(dir string) { must(t, os.Remove(dir+"/mail.crt")) }, "mail.crt"},
		{"key removed", func(dir string) { must(t, os.Remove(dir+"/mail.key")) }, "mail.crt"},
	}
	for _, tt := range tests {
		t.Run(tt.about, func(t *testing.T) {
			f := newFixture(t, pemFiles("mail", first))
			tt.half(f.dir)
			f.awaitProblem(tt.broken)
			f.mustShow("mail.example", first)
			if n := len(f.Problems()); n != 1 {
				t.Errorf("%d problems, want one: %v", n, f.Problems())
			}
			if c := f.Certificates(); len(c) != 1 || !c[0].Serving || c[0].Reason == "" {
				t.Errorf("%+v", c)
			}
			must(t, second.Write(f.dir, "mail"))
			f.awaitShow("mail.example", second)
			f.await("no problems", func() bool { return len(f.Problems()) == 0 })
			if n := len(f.Certificates()); n != 1 {
				t.Errorf("%d certificates", n)
			}
		})
	}
}

// While fullchain.pem is broken, cert.pem still has the certificate, but clients need the intermediate, too.
func TestBrokenChainKeepsTheLongOne(t *testing.T) {
	first, _ := renewed(t)
	f := newFixture(t, map[string][]byte{
		"cert.pem": leafPEM(first), "privkey.pem": first.KeyPEM, "fullchain.pem": first.ChainPEM,
	})
	write(t, filepath.Join(f.dir, "privkey.pem"), first.KeyPEM[:50])
	f.awaitProblem("fullchain.pem")
	if n := len(f.Problems()); n != 1 {
		t.Errorf("%d problems, want one: %v", n, f.Problems())
	}
	write(t, filepath.Join(f.dir, "privkey.pem"), first.KeyPEM)
	f.await("no problems", func() bool { return len(f.Problems()) == 0 })
	write(t, filepath.Join(f.dir, "fullchain.pem"), first.ChainPEM[:len(first.ChainPEM)-50])
	f.awaitProblem("fullchain.pem")
	if n := len(f.shown("mail.example")); n != 2 {
		t.Errorf("shown a chain of %d", n)
	}
	must(t, os.Remove(filepath.Join(f.dir, "fullchain.pem")))
	f.await("the short chain", func() bool { return len(f.shown("mail.example")) == 1 })
}

func TestRenewalWithTheSameKey(t *testing.T) {
	first, second := renewed(t)
	f := newFixture(t, map[string][]byte{"mail.pem": append(first.ChainPEM, first.KeyPEM...), "second.key": second.KeyPEM})
	f.awaitProblem("second.key")
	write(t, filepath.Join(f.dir, "mail.pem"), second.ChainPEM)
	f.awaitShow("mail.example", second)
	if c := f.Certificates(); len(c) != 1 {
		t.Errorf("%+v", c)
	}
}

func TestRemovedCertificateServesUntilGraceEnds(t *testing.T) {
	first, _ := renewed(t)
	short := quick
	short.grace = time.Second
	dir := filepath.Join(t.TempDir(), "certs")
	must(t, os.Mkdir(dir, 0o700))
	must(t, first.Write(dir, "mail"))
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, short)
	must(t, os.RemoveAll(dir))
	f.awaitProblem("mail.crt")
	f.mustShow("mail.example", first)
	f.await("the end of grace", func() bool { return f.shown("mail.example") == nil })
	if c := f.Certificates(); len(c) != 0 {
		t.Errorf("%+v", c)
	}
	must(t, os.Mkdir(dir, 0o700))
	must(t, first.Write(dir, "mail"))
	f.awaitShow("mail.example", first)
	f.await("no problems", func() bool { return len(f.Problems()) == 0 })
}

// Symlinks that lead nowhere are part of the same loss, and not two more.
func TestSymlinksOutliveTheirTargets(t *testing.T) {
	first, second := renewed(t)
	dir := t.TempDir()
	kubernetes(t, dir, first)
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, quick)
	must(t, os.Remove(filepath.Join(dir, "..data")))
	f.awaitProblem("tls.crt")
	f.mustShow("mail.example", first)
	if n := len(f.Problems()); n != 1 {
		t.Errorf("%d problems, want one: %v", n, f.Problems())
	}
	kubernetesUpdate(t, dir, second)
	f.awaitShow("mail.example", second)
}

// A directory may come long after the start, with all directories above it.
func TestMissingDirectoryComes(t *testing.T) {
	first, _ := renewed(t)
	dir := filepath.Join(t.TempDir(), "a", "b", "certs")
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, quick)
	f.awaitProblem("")
	must(t, os.MkdirAll(dir, 0o700))
	must(t, first.Write(dir, "mail"))
	f.awaitShow("mail.example", first)
}

// While only the directory above exists, that may be replaced as well.
func TestDirectoryAboveIsReplaced(t *testing.T) {
	first, _ := renewed(t)
	above := filepath.Join(t.TempDir(), "a")
	dir := filepath.Join(above, "b", "certs")
	must(t, os.Mkdir(above, 0o700))
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, quick)
	must(t, os.Remove(above))
	must(t, os.MkdirAll(dir, 0o700))
	must(t, first.Write(dir, "mail"))
	f.awaitShow("mail.example", first)
}

func TestRescanWhereWatchingIsImpossible(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	blind := quick
	blind.notifier = func() (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") }
	first, second := renewed(t)
	dir := t.TempDir()
	must(t, first.Write(dir, "mail"))
	s := open(Options{TLS: configs.TLS{Certificates: []string{dir}}, Tickets: NewTickets(), Log: zap.New(core)}, blind)
	defer s.Close()
	f := fixture{t, s, dir}
	f.mustShow("mail.example", first)
	must(t, second.Write(dir, "mail"))
	f.awaitShow("mail.example", second)
	if n := logs.FilterMessageSnippet("cannot be watched").Len(); n != 1 {
		t.Errorf("logged %d times", n)
	}
}

// A watch that fails is as good as none: here the notifier was closed behind the store's back.
func TestRescanWhereAWatchFails(t *testing.T) {
	var notifier *fsnotify.Watcher
	failing := quick
	failing.notifier = func() (*fsnotify.Watcher, error) {
		var err error
		if notifier, err = fsnotify.NewWatcher(); err == nil {
			err = notifier.Close()
		}
		return notifier, err
	}
	first, second := renewed(t)
	dir := t.TempDir()
	must(t, first.Write(dir, "mail"))
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, failing)
	must(t, second.Write(dir, "mail"))
	f.awaitShow("mail.example", second)
}

// Changes that never stop do not keep a new certificate waiting.
func TestPatienceEnds(t *testing.T) {
	first, second := renewed(t)
	restless := quick
	restless.quiet, restless.patience = time.Hour, 50*time.Millisecond
	dir := t.TempDir()
	must(t, first.Write(dir, "mail"))
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, restless)
	must(t, second.Write(dir, "mail"))
	f.awaitShow("mail.example", second)
}

// No handshake fails, and every client is shown one of the certificates, while files change in every way.
func TestHandshakesWhileFilesChange(t *testing.T) {
	first, second := renewed(t)
	f := newFixture(t, pemFiles("mail", first))
	server := f.Config(ListenerTLS{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := handshake(server, &tls.Config{ServerName: "mail.example", InsecureSkipVerify: true}); err != nil {
					t.Errorf("a handshake failed: %v", err)
					return
				}
				f.Certificates()
				f.Match("mail.example")
			}
		})
	}
	for range 5 {
		for _, leaf := range []devca.Leaf{second, first} {
			must(t, os.Remove(filepath.Join(f.dir, "mail.crt")))
			must(t, leaf.Write(f.dir, "mail"))
			f.awaitShow("mail.example", leaf)
		}
	}
	close(stop)
	wg.Wait()
}
