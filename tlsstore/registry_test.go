package tlsstore

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
	"jackdaw/internal/devca"
)

// lazy trusts every private key that lies beside its chain, and never verifies one by itself.
func lazy() tuning {
	how := quick
	how.verify = 0
	return how
}

// At the start a private key is believed to be that of the chain beside it. Where that is wrong, the handshake that finds
// out has the right one sought everywhere.
func TestTrustedKeyIsSomebodyElses(t *testing.T) {
	dir, a, b := t.TempDir(), leafFor(t, "a.example"), leafFor(t, "b.example")
	write(t, filepath.Join(dir, "a", "fullchain.pem"), a.ChainPEM)
	write(t, filepath.Join(dir, "a", "privkey.pem"), b.KeyPEM)
	write(t, filepath.Join(dir, "b", "fullchain.pem"), b.ChainPEM)
	write(t, filepath.Join(dir, "b", "privkey.pem"), a.KeyPEM)
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, lazy())
	f.await("both", func() bool {
		forA, forB := f.shows("a.example", a), f.shows("b.example", b)
		return forA && forB
	})
	f.await("no problems", func() bool { return len(f.Problems()) == 0 })
}

// A key that nobody has the certificate of is found out in the background, if no handshake has been there before.
func TestKeysAreVerifiedInTheBackground(t *testing.T) {
	dir, other := t.TempDir(), leafFor(t, "other.example")
	for i := range 20 {
		must(t, leafFor(t, fmt.Sprintf("mail%d.example", i)).Write(dir, fmt.Sprint(i)))
	}
	write(t, filepath.Join(dir, "7.key"), other.KeyPEM)
	slow := quick
	slow.verify = 3
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, slow)
	f.awaitProblem("7.crt")
	f.awaitProblem("7.key")
	if n := len(f.Problems()); n != 2 {
		t.Errorf("%d problems: %v", n, f.Problems())
	}
	if n := len(f.Certificates()); n != 19 {
		t.Errorf("%d certificates", n)
	}
}

func TestThoroughOpenKnowsEveryKey(t *testing.T) {
	dir := t.TempDir()
	must(t, leafFor(t, "mail.example").Write(dir, "mail"))
	write(t, filepath.Join(dir, "mail.key"), leafFor(t, "mail.example").KeyPEM)
	s := open(Options{TLS: configs.TLS{Certificates: []string{dir}}, Tickets: NewTickets(), Log: zap.NewNop(), Thorough: true}, lazy())
	defer s.Close()
	if len(s.Certificates()) > 0 || len(s.Problems()) != 2 {
		t.Errorf("certificates %+v, problems %v", s.Certificates(), s.Problems())
	}
}

// However many certificates have been shown, only so many stay in memory.
func TestCacheIsBounded(t *testing.T) {
	dir := t.TempDir()
	leaves := make(map[string]devca.Leaf)
	for i := range 12 {
		name := fmt.Sprintf("mail%d.example", i)
		leaves[name] = leafFor(t, name)
		must(t, leaves[name].Write(dir, name))
	}
	how := lazy()
	how.cache = 4
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, how)
	for range 2 {
		for name, leaf := range leaves {
			f.mustShow(name, leaf)
		}
	}
	loaded := 0
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.registry.pairs {
		if p.loaded.Load() != nil {
			loaded++
		}
	}
	if loaded != how.cache {
		t.Errorf("%d pairs in memory, want %d", loaded, how.cache)
	}
}

// What was never shown is not in memory, and cannot serve once its file is broken: the next best does, and the log says so.
func TestUnusedCertificateIsNotKept(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	dir, exact, wildcard := t.TempDir(), leafFor(t, "mail.example"), leafFor(t, "*.example")
	must(t, exact.Write(dir, "exact"))
	must(t, wildcard.Write(dir, "wildcard"))
	s := open(Options{TLS: configs.TLS{Certificates: []string{dir}}, Tickets: NewTickets(), Log: zap.New(core)}, lazy())
	defer s.Close()
	f := fixture{t, s, dir}
	replace(t, filepath.Join(dir, "exact.crt"), exact.ChainPEM[:500])
	f.awaitShow("mail.example", wildcard)
	f.awaitProblem("exact.crt")
	if n := logs.FilterMessageSnippet("cannot be kept").Len(); n != 1 {
		t.Errorf("logged %d times", n)
	}
	replace(t, filepath.Join(dir, "exact.crt"), exact.ChainPEM)
	f.awaitShow("mail.example", exact)
	f.mustHaveNoProblems()
}

// A client that asks for a certificate which is not in memory, while its files are replaced in steps, waits for the new one.
func TestHandshakeWhileColdFilesChange(t *testing.T) {
	how := lazy()
	how.cache, how.quiet = 1, 500*time.Millisecond // far more than the files are apart
	dir, first, second := t.TempDir(), leafFor(t, "mail.example"), leafFor(t, "mail.example")
	must(t, first.Write(dir, "mail"))
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, how)
	for _, leaf := range []devca.Leaf{second, first, second} {
		replace(t, filepath.Join(dir, "mail.key"), leaf.KeyPEM)
		shown := make(chan bool)
		go func() { shown <- f.shows("mail.example", leaf) }()
		time.Sleep(20 * time.Millisecond)
		replace(t, filepath.Join(dir, "mail.crt"), leaf.ChainPEM)
		if !<-shown {
			t.Errorf("the handshake failed, or went on with the former certificate; problems: %v", f.Problems())
		}
		f.mu.Lock()
		f.cache.forget(func(*pair) bool { return true })
		f.mu.Unlock()
	}
}

// One renewal among many is found without a look at the others.
func TestChangeCostsNoSearch(t *testing.T) {
	dir, plain := t.TempDir(), t.TempDir()
	first, second := leafFor(t, "mail.example"), leafFor(t, "mail.example")
	for i := range 50 {
		name := fmt.Sprintf("mail%d.example", i)
		certbotTree(t, dir, name, "1", leafFor(t, name))
		must(t, leafFor(t, name).Write(plain, fmt.Sprint(i)))
	}
	must(t, first.Write(plain, "17"))
	third, fourth := leafFor(t, "other.example"), leafFor(t, "other.example")
	certbotTree(t, dir, "other.example", "1", third)
	f := openFixture(t, dir, configs.TLS{Certificates: []string{filepath.Join(dir, "live"), plain}}, quick)
	searches := func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.tree.searches
	}
	before := searches()
	replace(t, filepath.Join(plain, "17.key"), second.KeyPEM)
	replace(t, filepath.Join(plain, "17.crt"), second.ChainPEM)
	f.awaitShow("mail.example", second)
	certbotTree(t, dir, "other.example", "2", fourth)
	f.awaitShow("other.example", fourth)
	must(t, os.Remove(filepath.Join(plain, "17.key")))
	f.await("a problem", func() bool { return len(f.Problems()) == 1 })
	must(t, leafFor(t, "new.example").Write(plain, "new"))
	f.await("new.example", func() bool { return f.shown("new.example") != nil })
	if n := searches() - before; n != 0 {
		t.Errorf("%d searches", n)
	}
}

// Watches for the targets of symlinks come last only where there are many directories.
func TestSymlinkTurnsAmongManyDirectories(t *testing.T) {
	dir, first, second := t.TempDir(), leafFor(t, "mail.example"), leafFor(t, "mail.example")
	for i := range few {
		must(t, os.MkdirAll(filepath.Join(dir, "live", fmt.Sprint(i)), 0o700))
	}
	certbotTree(t, dir, "mail.example", "1", first)
	f := openFixture(t, dir, configs.TLS{Certificates: []string{filepath.Join(dir, "live")}}, quick)
	f.mustShow("mail.example", first)
	certbotTree(t, dir, "mail.example", "2", second)
	f.awaitShow("mail.example", second)
	write(t, filepath.Join(dir, "archive", "mail.example", "privkey2.pem"), first.KeyPEM)
	write(t, filepath.Join(dir, "archive", "mail.example", "fullchain2.pem"), first.ChainPEM)
	f.awaitShow("mail.example", first)
}

func certbotTree(t *testing.T, dir, name, version string, leaf devca.Leaf) {
	t.Helper()
	for file, data := range map[string][]byte{"privkey": leaf.KeyPEM, "fullchain": leaf.ChainPEM} {
		write(t, filepath.Join(dir, "archive", name, file+version+".pem"), data)
		relink(t, "../../archive/"+name+"/"+file+version+".pem", filepath.Join(dir, "live", name, file+".pem"))
	}
}

// Hosters there are that have one private key for all.
func TestOneKeyForMany(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	write(t, filepath.Join(dir, "the.key"), block("PRIVATE KEY", der))
	for i := range 40 {
		name := fmt.Sprintf("mail%d.example", i)
		write(t, filepath.Join(dir, "certs", name+".crt"), block("CERTIFICATE", selfSigned(t, key, name)))
	}
	f := openFixture(t, dir, configs.TLS{Certificates: []string{dir}}, quick)
	f.mustHaveNoProblems()
	if n := len(f.Certificates()); n != 40 {
		t.Errorf("%d certificates", n)
	}
	must(t, os.Rename(filepath.Join(dir, "the.key"), filepath.Join(dir, "moved.key")))
	f.await("the key in its new place", func() bool {
		list := f.Certificates()
		return len(f.Problems()) == 0 && len(list) == 40 &&
			!slices.ContainsFunc(list, func(c Certificate) bool { return !strings.HasSuffix(c.KeyFile, "moved.key") })
	})
}

func selfSigned(t *testing.T, key *ecdsa.PrivateKey, name string) []byte {
	t.Helper()
	template := &x509.Certificate{
		DNSNames: []string{name}, SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	return der
}

// threeTier issues a certificate by an intermediate authority that says where it can be found.
func threeTier(t *testing.T, name string) (leaf, key, intermediate []byte) {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	make := func(subject string, template, parent x509.Certificate) *x509.Certificate {
		template.Subject.CommonName = subject
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, &template, &parent, signer.Public(), signer)
		must(t, err)
		cert, err := x509.ParseCertificate(der)
		must(t, err)
		return cert
	}
	authority := x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	middle := make("middle", authority, x509.Certificate{Subject: pkix.Name{CommonName: "root"}})
	server := make(name, x509.Certificate{DNSNames: []string{name}, IssuingCertificateURL: []string{"http://ca.example/middle.der"}}, *middle)
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	must(t, err)
	return block("CERTIFICATE", server.Raw), block("PRIVATE KEY", der), block("CERTIFICATE", middle.Raw)
}

// A certificate without its intermediate is completed from whatever file has that, as soon as it comes; until then it is a
// problem, because browsers may be content and mail clients are not.
func TestChainIsCompletedFromElsewhere(t *testing.T) {
	leaf, key, intermediate := threeTier(t, "mail.example")
	f := newFixture(t, map[string][]byte{"mail.crt": leaf, "mail.key": key})
	if p := f.Problems(); len(p) != 1 || !strings.Contains(p[0].Text, "lacks the intermediate certificate of its issuer, CN=middle") {
		t.Errorf("problems: %v", p)
	}
	if n := len(f.shown("mail.example")); n != 1 {
		t.Errorf("shown a chain of %d", n)
	}
	write(t, filepath.Join(f.dir, "authorities", "middle.pem"), intermediate)
	f.await("the whole chain", func() bool { return len(f.shown("mail.example")) == 2 })
	f.await("no problems", func() bool { return len(f.Problems()) == 0 })
}

// What an authority has issued to us serves until a file of the operator's comes for the name, and again when that goes.
func TestFilesBeforeACME(t *testing.T) {
	dir, acme := t.TempDir(), filepath.Join(t.TempDir(), "certificates")
	how := quick
	how.grace = 10 * time.Millisecond
	s := open(Options{TLS: configs.TLS{Certificates: []string{dir}}, ACME: acme, Tickets: NewTickets(), Log: zap.NewNop()}, how)
	defer s.Close()
	f := fixture{t, s, dir}
	f.mustHaveNoProblems() // although nothing was issued yet
	issued, own := leafFor(t, "mail.example"), issue(t, devca.Options{Names: []string{"mail.example"}, RSA: true, NotAfter: time.Now().Add(time.Hour)})
	write(t, filepath.Join(acme, "mail.example.pem"), slices.Concat(issued.ChainPEM, issued.KeyPEM))
	f.awaitShow("mail.example", issued)
	must(t, own.Write(dir, "mail"))
	f.awaitShow("mail.example", own)
	list := f.Certificates()
	i := slices.IndexFunc(list, func(c Certificate) bool { return c.Source == FromACME })
	if len(list) != 2 || i < 0 || list[i].Serving {
		t.Errorf("%+v", list)
	}
	must(t, os.Remove(filepath.Join(dir, "mail.crt")))
	must(t, os.Remove(filepath.Join(dir, "mail.key")))
	f.awaitShow("mail.example", issued)
}

func TestFilesPassedOver(t *testing.T) {
	leaf, _, intermediate := threeTier(t, "mail.example")
	f := newFixture(t, map[string][]byte{"README": []byte("certificates"), "middle.pem": intermediate, "broken.pem": leaf[:100], ".hidden": leaf})
	must(t, syscall.Mkfifo(filepath.Join(f.dir, "fifo"), 0o600))
	socket, err := net.Listen("unix", filepath.Join(f.dir, "socket"))
	must(t, err)
	defer socket.Close()
	large := filepath.Join(f.dir, "large")
	must(t, os.WriteFile(large, nil, 0o600))
	must(t, os.Truncate(large, 1<<30)) // a file with a hole
	want := map[string]string{
		"README": "no certificate of a server, and no private key", "middle.pem": "an authority's certificate",
		"fifo": "no regular file", "socket": "no regular file", "large": "larger than 1 MiB",
	}
	f.await("what is passed over", func() bool { return len(f.PassedOver()) == len(want) })
	for _, p := range f.PassedOver() {
		if p.Text != want[filepath.Base(p.File)] {
			t.Errorf("%v", p)
		}
	}
	if p := f.Problems(); len(p) != 1 || filepath.Base(p[0].File) != "broken.pem" {
		t.Errorf("problems: %v", p)
	}
}

// A process without descriptors cannot read a file, which says nothing of the file: the certificate serves on.
func TestWithoutDescriptors(t *testing.T) {
	for err, want := range map[error]bool{
		&os.PathError{Op: "open", Path: "mail.pem", Err: syscall.EMFILE}: true,
		&os.PathError{Op: "open", Path: "mail.pem", Err: syscall.EACCES}: false,
		nil: false,
	} {
		if ours(err) != want {
			t.Errorf("%v: %v", err, !want)
		}
	}
}
