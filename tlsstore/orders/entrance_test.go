package orders

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/acme"

	"jackdaw/configs"
)

var loopback = configs.Address{Network: "tcp", Address: "127.0.0.1:0"}

// open starts a manager that listens, and has nothing to order.
func open(t *testing.T, dir string, former *Manager) *Manager {
	t.Helper()
	o := Options{Log: zap.NewNop(), transport: newFakeCA(t)}
	o.Config = configs.ACME{Cache: dir, HTTP: loopback, TLSALPN: loopback}
	m, err := Open(o, former)
	must(t, err)
	t.Cleanup(m.Close)
	return m
}

// get is one request to an entrance for http-01, and its answer.
func get(t *testing.T, e *entrance, request string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", e.bound.String())
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = io.WriteString(conn, request)
	must(t, err)
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	must(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if res.StatusCode == http.StatusOK {
		must(t, err) // of a request that is too long the rest is refused roughly
	}
	return res, string(body)
}

// TestHTTP01: a challenge that is pending is answered, and everything else is not there.
func TestHTTP01(t *testing.T) {
	dir := t.TempDir()
	m := open(t, dir, nil)
	keep(t, "to-ken.thumb", dir, challenges, "to-ken_1")
	keep(t, "secret", dir, challenges, "mail.example.net.pem")
	keep(t, "secret", dir, "account")
	for _, tt := range []struct {
		request string
		status  int
		body    string
	}{
		{"GET /.well-known/acme-challenge/to-ken_1", 200, "to-ken.thumb"},
		{"GET /.well-known/acme-challenge/to-ken%5F1?query", 200, "to-ken.thumb"},
		{"HEAD /.well-known/acme-challenge/to-ken_1", 200, ""},
		{"HEAD /.well-known/acme-challenge/none", 404, ""},
		{"POST /.well-known/acme-challenge/to-ken_1", 404, ""},
		{"GET /.well-known/acme-challenge/none", 404, ""},
		{"GET /.well-known/acme-challenge/", 404, ""},
		{"GET /.well-known/acme-challenge/to-ken_1/", 404, ""},
		{"GET /.well-known/acme-challenge/../acme-challenge/to-ken_1", 404, ""},
		{"GET /.well-known/acme-challenge/..%2Faccount", 404, ""},
		{"GET /.well-known/acme-challenge/mail.example.net.pem", 404, ""},
		{"GET /.well-known/acme-challenge/" + strings.Repeat("a", 3000), 404, ""},
		{"GET /", 404, ""},
		{"OPTIONS *", 404, ""},
		{"GET /" + strings.Repeat("a", 9000), 431, ""},
		{"nonsense", 400, ""},
	} {
		res, body := get(t, m.http, tt.request+" HTTP/1.1\r\nHost: mail.example.net\r\n\r\n")
		if res.StatusCode != tt.status || tt.status == 200 && body != tt.body || !res.Close {
			t.Errorf("%.80s: %s, %q", tt.request, res.Status, body)
		}
	}
}

// pipes is a listener within a bubble.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestSlowStranger: who is slow is not waited for.
func TestSlowStranger(t *testing.T) {
	for _, kind := range []string{http01, tlsALPN01} {
		synctest.Test(t, func(t *testing.T) {
			l := make(pipes)
			e := &entrance{server: newServer(zap.NewNop()), done: make(chan struct{})}
			go e.serve(kind, l, zap.NewNop())
			near, far := net.Pipe()
			l <- far
			var writing sync.WaitGroup
			writing.Go(func() {
				for err := error(nil); err == nil; time.Sleep(time.Second) {
					_, err = near.Write([]byte("\x16"))
				}
			})
			_, err := io.Copy(io.Discard, near)
			must(t, err)
			if d := time.Since(beginning); d > entranceLimit {
				t.Errorf("%s: it took %v", kind, d)
			}
			e.leave(nil)
			near.Close()
			writing.Wait()
		})
	}
}

// shake is a handshake with an entrance for tls-alpn-01, after which the server closes.
func shake(t *testing.T, e *entrance, name string, protocols ...string) (*x509.Certificate, error) {
	t.Helper()
	dialer := net.Dialer{Timeout: 30 * time.Second}
	conn, err := tls.DialWithDialer(&dialer, "tcp", e.bound.String(),
		&tls.Config{ServerName: name, NextProtos: protocols, InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	if n, err := io.Copy(io.Discard, conn); n > 0 || err != nil {
		t.Errorf("after the handshake came %d bytes (%v)", n, err)
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

// TestTLSALPN01: whoever asks as RFC 8737 says sees the certificate with the extension while the challenge is pending.
func TestTLSALPN01(t *testing.T) {
	dir := t.TempDir()
	m := open(t, dir, nil)
	key, _, err := newKey()
	must(t, err)
	o := order{Client: &acme.Client{Key: key}, cache: m.cache, name: "mail.example.net"}
	file, answer, err := o.answer(&acme.Challenge{Type: tlsALPN01, Token: "token"})
	must(t, err)
	must(t, m.cache.write(answer, challenges, file))

	cert, err := shake(t, m.tlsALPN, "Mail.example.net", acme.ALPNProto)
	must(t, err)
	if err := cert.VerifyHostname("mail.example.net"); err != nil {
		t.Error(err)
	}
	id := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}
	found := false
	for _, extension := range cert.Extensions {
		found = found || extension.Critical && extension.Id.Equal(id)
	}
	if !found {
		t.Errorf("the certificate's extensions are %v", cert.Extensions)
	}
	for _, tt := range []struct {
		name      string
		protocols []string
	}{
		{"mail.other.example", []string{acme.ALPNProto}},
		{"", []string{acme.ALPNProto}},
		{"mail.example.net", nil},
		{"mail.example.net", []string{"http/1.1"}},
		{"mail.example.net", []string{acme.ALPNProto, "h2"}},
		{"../challenges/mail.example.net", []string{acme.ALPNProto}},
	} {
		if _, err := shake(t, m.tlsALPN, tt.name, tt.protocols...); err == nil {
			t.Errorf("%q with %q is answered", tt.name, tt.protocols)
		}
	}
	must(t, m.cache.remove(challenges, file))
	if _, err := shake(t, m.tlsALPN, "mail.example.net", acme.ALPNProto); err == nil {
		t.Error("the challenge is over, and still answered")
	}
}

// TestReload: who comes while one manager follows another finds the challenges of both, and then those of the one that
// stays.
func TestReload(t *testing.T) {
	old, new := t.TempDir(), t.TempDir()
	keep(t, "old", old, challenges, "old")
	keep(t, "new", new, challenges, "new")
	answers := func(m *Manager) (all string) {
		for _, token := range []string{"old", "new"} {
			res, body := get(t, m.http, "GET "+challengePrefix+token+" HTTP/1.0\r\n\r\n")
			if res.StatusCode == http.StatusOK {
				all += body + " "
			}
		}
		return all
	}
	first := open(t, old, nil)
	second := open(t, new, first)
	if first.http.bound != second.http.bound || answers(second) != "old new " {
		t.Errorf("both: %q", answers(second))
	}
	second.Close() // the reload has failed after all
	if answers(first) != "old " {
		t.Errorf("the first: %q", answers(first))
	}
	third := open(t, new, first)
	first.Close()
	if answers(third) != "new " {
		t.Errorf("the third: %q", answers(third))
	}
	elsewhere := Options{Log: zap.NewNop(), transport: newFakeCA(t)}
	elsewhere.Config = configs.ACME{Cache: new, TLSALPN: loopback}
	fourth, err := Open(elsewhere, third)
	must(t, err)
	third.Close()
	if _, err := net.Dial("tcp", third.http.bound.String()); err == nil {
		t.Error("an address that nobody wants is listened on")
	}
	fourth.Close()
	fifth, err := Open(elsewhere, third) // whose entrances are closed
	must(t, err)
	if _, err := shake(t, fifth.tlsALPN, "mail.example.net", acme.ALPNProto); !strings.Contains(fmt.Sprint(err), "tls: ") {
		t.Errorf("nobody listens: %v", err)
	}
	fifth.Close()
}

// TestAddressInUse: the error names the thing, and nothing is left over.
func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	o := Options{Log: zap.NewNop()}
	o.Config = configs.ACME{HTTP: loopback, TLSALPN: configs.Address{Network: "tcp", Address: l.Addr().String()}}
	_, err = Open(o, nil)
	want := fmt.Sprintf("listening for tls-alpn-01: listen tcp %s: ", l.Addr())
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// FuzzHTTP01: whatever path a stranger asks for, he gets what lies in the one directory under a plain name, or nothing.
func FuzzHTTP01(f *testing.F) {
	dir := f.TempDir()
	keep(f, "right", dir, challenges, "token")
	keep(f, "wrong", dir, challenges, ".hidden")
	keep(f, "wrong", dir, challenges, "mail.example.net.pem")
	keep(f, "wrong", dir, "token")
	for _, path := range []string{"token", "../token", ".hidden", "mail.example.net.pem", "", "token/", "a\x00b"} {
		f.Add(challengePrefix + path)
	}
	f.Add(challengePrefix + strings.Repeat("a", 300))
	f.Add("/")
	e := &entrance{caches: []*cache{newCache(dir)}}
	f.Fuzz(func(t *testing.T, path string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r)
		answered, right := w.Code == http.StatusOK, path == challengePrefix+"token"
		if answered != right || answered && w.Body.String() != "right" {
			t.Errorf("%q: %d %q", path, w.Code, w.Body)
		}
		if token := strings.TrimPrefix(path, challengePrefix); isToken(token) && !plain(token) {
			t.Errorf("%q is a path", token)
		}
	})
}

// plain tells whether a file of this name lies in the directory that it is looked for in.
func plain(file string) bool {
	return filepath.Base(filepath.Join("/dir", file)) == file && !strings.HasPrefix(file, ".") && len(file) <= 255
}

// FuzzName: a name that a client sends is no path, and comes to the same form whoever writes it.
func FuzzName(f *testing.F) {
	for _, name := range []string{
		"mail.example.net", "MAIL.Example.net", "..", "../a", "a/b", ".hidden", "a\x00b", "bücher.example", "192.0.\xf62.1",
		"xn--bcher-kva.example", "192.0.2.1", "*.example.net", "a..b", "a.", "-a", "a_b", strings.Repeat("a.", 125),
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, sni string) {
		name, ok := dnsName(sni)
		if !ok {
			return
		}
		file := name + ".pem"
		if !plain(file) || isToken(file) {
			t.Errorf("%q is the file %q", sni, file)
		}
		if again, ok := dnsName(name); !ok || again != name {
			t.Errorf("%q becomes %q, and that %q", sni, name, again)
		}
	})
}
