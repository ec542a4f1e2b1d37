package directories

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"jackdaw/configs"
)

// asked is a question as it reaches a server, for all tests.
var asked = Query{
	User: "anna@a.example", Local: "anna", Domain: "a.example", Service: configs.IMAPS, Mechanism: "PLAIN", Secret: "secret",
	Client: netip.MustParseAddr("192.0.2.5"), Port: 4321, Address: netip.MustParseAddrPort("192.0.2.1:993"), SNI: "mail.a.example",
	Hello: "client.example", TLS: tls.VersionTLS13, Cipher: tls.TLS_AES_128_GCM_SHA256, Attempt: 2,
}

// with changes a copy of a question.
func (q Query) with(change func(*Query)) Query {
	change(&q)
	return q
}

// openHTTP asks a server, without a memory of answers.
func openHTTP(t testing.TB, url string, change func(*configs.Directory)) Directory {
	t.Helper()
	c := configs.Directory{Kind: configs.DirectoryHTTP, URL: url, Timeout: 10 * time.Second}
	if change != nil {
		change(&c)
	}
	d, err := Open("nginx", c, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// serveRaw answers every request with these octets, and tells what it was asked.
func serveRaw(t testing.TB, answer string) (url string, heard func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all strings.Builder
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buffer := make([]byte, 16<<10)
			n, _ := c.Read(buffer)
			mu.Lock()
			all.Write(buffer[:n])
			mu.Unlock()
			_, _ = c.Write([]byte(answer))
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); running.Wait() })
	return "http://" + l.Addr().String() + "/auth?x=1", func() string {
		mu.Lock()
		defer mu.Unlock()
		return all.String()
	}
}

func says(headers ...string) string {
	return "HTTP/1.1 200 OK\r\n" + strings.Join(append(headers, "Content-Length: 0"), "\r\n") + "\r\n\r\n"
}

const placedAt1 = "Auth-Server: 10.0.0.11\r\nAuth-Port: 143"

// What a server hears is what it hears from nginx, with the names of headers written as there.
func TestHTTPQuestion(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Query)
		want   string
	}{
		{"imap over TLS", func(*Query) {}, `
Auth-Login-Attempt: 2
Auth-Method: plain
Auth-Pass: secret
Auth-Port: 993
Auth-Protocol: imap
Auth-SSL: on
Auth-SSL-Cipher: TLS_AES_128_GCM_SHA256
Auth-SSL-Protocol: TLSv1.3
Auth-User: anna@a.example
Client-IP: 192.0.2.5
Client-Port: 4321
X-Auth-Key: key`},
		{"what must be escaped", func(q *Query) {
			*q = Query{User: "a%b c+ü\"\\@a.example", Secret: " p%0d%0aAuth-User: root\x7fß "}
			q.Service, q.Mechanism, q.Attempt = configs.POP3, "LOGIN", 1
		}, `
Auth-Login-Attempt: 1
Auth-Method: plain
Auth-Pass: %20p%250d%250aAuth-User:%20root%7Fß%20
Auth-Port: 0
Auth-Protocol: pop3
Auth-User: a%25b%20c+ü"\@a.example
Client-IP: unix:
Client-Port: 0
X-Auth-Key: key`},
		{"submission over TLS 1.2", func(q *Query) {
			q.Service, q.TLS, q.Cipher = configs.Submission, tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
			q.Client = netip.MustParseAddr("2001:db8::5")
		}, `
Auth-Login-Attempt: 2
Auth-Method: plain
Auth-Pass: secret
Auth-Port: 993
Auth-Protocol: smtp
Auth-SSL: on
Auth-SSL-Cipher: ECDHE-RSA-CHACHA20-POLY1305
Auth-SSL-Protocol: TLSv1.2
Auth-User: anna@a.example
Client-Host: [UNAVAILABLE]
Client-IP: 2001:db8::5
Client-Port: 4321
X-Auth-Key: key`},
		{"a client certificate", func(q *Query) { q.Service, q.Mechanism, q.Secret = configs.Sieve, "EXTERNAL", "" }, `
Auth-Login-Attempt: 2
Auth-Method: external
Auth-Pass: 
Auth-Port: 993
Auth-Protocol: sieve
Auth-SSL: on
Auth-SSL-Cipher: TLS_AES_128_GCM_SHA256
Auth-SSL-Protocol: TLSv1.3
Auth-SSL-Verify: SUCCESS
Auth-User: anna@a.example
Client-IP: 192.0.2.5
Client-Port: 4321
X-Auth-Key: key`},
		{"a recipient", func(q *Query) { q.Service, q.Mechanism, q.Secret, q.TLS, q.Attempt = configs.LMTP, "", "", 0, 0 }, `
Auth-Login-Attempt: 0
Auth-Method: none
Auth-Pass: 
Auth-Port: 993
Auth-Protocol: lmtp
Auth-SMTP-Helo: client.example
Auth-SMTP-To: RCPT TO:<anna@a.example>
Auth-User: anna@a.example
Client-Host: [UNAVAILABLE]
Client-IP: 192.0.2.5
Client-Port: 4321
X-Auth-Key: key`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, heard := serveRaw(t, says("Auth-Status: OK", placedAt1))
			d := openHTTP(t, url, func(c *configs.Directory) {
				c.Headers = map[string]string{"X-Auth-Key": "key", "Auth-Port": "{listen_port}", "Client-Port": "{client_port}"}
			})
			if _, err := d.Lookup(t.Context(), asked.with(tt.change)); err != nil {
				t.Fatal(err)
			}
			host := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/auth?x=1")
			want := "GET /auth?x=1 HTTP/1.1\nHost: " + host + tt.want + "\n\n"
			if diff := cmp.Diff(want, strings.ReplaceAll(heard(), "\r", "")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Each suite that crypto/tls has for TLS 1.2 has a name in OpenSSL.
func TestHTTPCiphers(t *testing.T) {
	for suite, want := range map[uint16]string{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       "ECDHE-ECDSA-AES128-GCM-SHA256",
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:         "ECDHE-RSA-AES256-GCM-SHA384",
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA:            "ECDHE-RSA-AES128-SHA",
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-ECDSA-CHACHA20-POLY1305",
		tls.TLS_CHACHA20_POLY1305_SHA256:                  "TLS_CHACHA20_POLY1305_SHA256",
	} {
		if got := sslCipher(suite); got != want {
			t.Errorf("%s: %s, want %s", tls.CipherSuiteName(suite), got, want)
		}
	}
}

// outcome is how a Lookup ends: "denied", "unknown", "temporary", or an answer.
func outcome(answer Answer, err error) string {
	switch {
	case errors.Is(err, ErrDenied):
		return fmt.Sprintf("denied, wait %v", answer.Wait)
	case errors.Is(err, ErrNotFound):
		return "unknown"
	case err != nil:
		return "temporary"
	}
	return fmt.Sprintf("%+v", answer)
}

func TestHTTPAnswers(t *testing.T) {
	recipient := func(q *Query) { q.Service, q.Mechanism, q.Secret = configs.LMTP, "", "" }
	external := func(q *Query) { q.Mechanism, q.Secret = "EXTERNAL", "" }
	verified := fmt.Sprintf("%+v", Answer{Backend: "10.0.0.11:143", Verified: true})
	unverified := fmt.Sprintf("%+v", Answer{Backend: "10.0.0.11:143"})
	for _, tt := range []struct {
		answer string
		change func(*Query)
		want   string
	}{
		{says("Auth-Status: OK", placedAt1), nil, verified},
		{says("auth-status: OK", placedAt1, "Auth-Wait: 3", "X-Other: a"), nil, verified},
		{strings.Replace(says("Auth-Status: OK", placedAt1), "HTTP/1.1", "HTTP/1.0", 1), nil, verified},
		{says("Auth-Status: OK", "Auth-Server: 2001:db8::1", "Auth-Port: 143", "Auth-User: robert", "Auth-Pass: ümaster"), nil,
			fmt.Sprintf("%+v", Answer{Backend: "[2001:db8::1]:143", User: "robert", Password: "ümaster", Verified: true})},
		{says("Auth-Status: OK", "Auth-Server: [2001:db8::1]", "Auth-Port: 143"), recipient,
			fmt.Sprintf("%+v", Answer{Backend: "[2001:db8::1]:143"})},
		{says("Auth-Status: OK", placedAt1), external, unverified},
		{says("Auth-Status: OK", placedAt1), func(q *Query) { q.Mechanism, q.Secret = "SCRAM-SHA-256", "" }, unverified},
		{says("Auth-Status: OK", placedAt1), func(q *Query) { q.Secret, q.Verify = "", true }, "denied, wait 0s"},

		// Refusals.
		{says("Auth-Status: Invalid login or password", "Auth-Wait: 3"), nil, "denied, wait 3s"},
		{says("Auth-Status: Invalid login or password"), nil, "denied, wait 0s"},
		{says("Auth-Status: ok", placedAt1), nil, "denied, wait 0s"},
		{says("Auth-Status: Authentication credentials invalid", "Auth-Error-Code: 535 5.7.8", "Auth-Wait: 0"), nil, "denied, wait 0s"},
		{says("Auth-Status: no", "Auth-Error-Code: AUTHENTICATIONFAILED"), nil, "denied, wait 0s"},
		{says("Auth-Status: certificate revoked"), external, "denied, wait 0s"},
		{says("Auth-Status: no such recipient"), recipient, "temporary"},
		{says("Auth-Status: never heard of none"), func(q *Query) { q.Mechanism, q.Secret = "SCRAM-SHA-1", "" }, "temporary"},

		// Refusals that will pass.
		{says("Auth-Status: busy", "Auth-Error-Code: 451 4.3.2", "Auth-Wait: 1"), nil, "temporary"},
		{says("Auth-Status: busy", "Auth-Error-Code: LIMIT"), nil, "temporary"},
		{says("Auth-Status: busy", "Auth-Error-Code: -ERR [LOGIN-DELAY] Retry later"), nil, "temporary"},
		{says("Auth-Status: busy", "Auth-Error-Code: [UNAVAILABLE]"), nil, "temporary"},
		{says("Auth-Status: Temporary server problem, try again later"), nil, "temporary"},

		// What no server should say.
		{says("Auth-Status: OK"), nil, "temporary"},
		{says("Auth-Status: OK", "Auth-Server: 10.0.0.11"), nil, "temporary"},
		{says("Auth-Status: OK", "Auth-Port: 143"), nil, "temporary"},
		{says("Auth-Status: OK", "Auth-Server: store1.example", "Auth-Port: 143"), nil, "temporary"},
		{says("Auth-Status: OK", "Auth-Server: fe80::1%eth0", "Auth-Port: 143"), nil, "temporary"},
		{says("Auth-Status: OK", "Auth-Server: 10.0.0.11", "Auth-Port: 0"), nil, "temporary"},
		{says("Auth-Status: OK", "Auth-Server: 10.0.0.11", "Auth-Port: 65536"), nil, "temporary"},
		{says("Auth-Status: OK", "Auth-Server: 10.0.0.11", "Auth-Port: imap"), nil, "temporary"},
		{says("Auth-Status: OK", placedAt1, "Auth-Server: 10.0.0.12"), nil, "temporary"},
		{says("Auth-Status: OK", "Auth-Status: no", placedAt1), nil, "temporary"},
		{says(placedAt1), nil, "temporary"},
		{says("Auth-Status: ", placedAt1), nil, "temporary"},
		{says("Auth-Status: no", "Auth-Wait: soon"), nil, "temporary"},
		{says("Auth-Status: no", "Auth-Wait: -1"), nil, "temporary"},
		{says("Auth-Status: OK", placedAt1, "Auth-User: a\tb"), nil, "temporary"},
		{says("Auth-Status: OK", placedAt1, "Auth-User: \xff"), nil, "temporary"},
		{says("Auth-Status: OK", placedAt1, "Auth-User: "+strings.Repeat("a", 513)), nil, "temporary"},
		{says("Auth-Status: OK", placedAt1, "X-Long: "+strings.Repeat("a", httpHeader)), nil, "temporary"},
		{"HTTP/1.1 500 Oops\r\nAuth-Status: OK\r\n" + placedAt1 + "\r\n\r\n", nil, "temporary"},
		{"HTTP/1.1 403 No\r\nAuth-Status: Invalid login or password\r\nAuth-Wait: 3\r\n\r\n", nil, "temporary"},
		{"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nAuth-Status: OK\r\n" + placedAt1 + "\r\n\r\n", nil, "temporary"},
		{"HTTP/1.1 200 OK\r\nAuth-Status: Invalid login or pass", nil, "temporary"},
		{"\x00\x01\x02", nil, "temporary"},
		{"", nil, "temporary"},
	} {
		q := asked
		if tt.change != nil {
			tt.change(&q)
		}
		url, _ := serveRaw(t, tt.answer)
		answer, err := openHTTP(t, url, nil).Lookup(t.Context(), q)
		if got := outcome(answer, err); got != tt.want {
			t.Errorf("%.200q: %s (%v), want %s", tt.answer, got, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), asked.Secret) {
			t.Errorf("%v: has the password in it", err)
		}
	}
}

// A server that says WAIT is asked again, and within the time that there is.
func TestHTTPWait(t *testing.T) {
	httpPause = time.Millisecond
	var times atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Auth-Status", "WAIT")
		if r.URL.Path == "/long" {
			w.Header().Set("Auth-Wait", "3600")
		}
		if times.Add(1) > 2 {
			w.Header().Set("Auth-Status", "Invalid login or password")
		}
	}))
	defer server.Close()
	if answer, err := openHTTP(t, server.URL+"/long", nil).Lookup(t.Context(), asked); outcome(answer, err) != "temporary" {
		t.Errorf("an hour's wait: %+v, %v", answer, err)
	}
	times.Store(0)
	got := outcome(openHTTP(t, server.URL, nil).Lookup(t.Context(), asked))
	if times := times.Load(); got != "denied, wait 0s" || times != 3 {
		t.Errorf("asked %d times: %s", times, got)
	}
}

// Connections are used again; one that the server has closed meanwhile costs nobody his login.
func TestHTTPConnections(t *testing.T) {
	var opened atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Auth-Status"] = []string{"OK"}
		w.Header()["Auth-Server"], w.Header()["Auth-Port"] = []string{"10.0.0.11"}, []string{"143"}
		fmt.Fprint(w, "this is not for nginx")
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	d := openHTTP(t, server.URL, nil)
	for range 10 {
		if _, err := d.Lookup(t.Context(), asked); err != nil {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	server.CloseClientConnections()
	if _, err := d.Lookup(t.Context(), asked); err != nil {
		t.Error(err)
	}
	d.Close()
	if _, err := d.Lookup(t.Context(), asked); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// A server that hangs is a failure when the time is up, and when the client goes; the environment's proxy is not asked instead.
func TestHTTPHangs(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	defer server.Close()
	defer close(release)
	d := openHTTP(t, server.URL, func(c *configs.Directory) { c.Timeout = 50 * time.Millisecond })
	answer, err := d.Lookup(t.Context(), asked)
	if outcome(answer, err) != "temporary" || !strings.Contains(err.Error(), "no answer within 50ms") {
		t.Errorf("%+v, %v", answer, err)
	}
	<-arrived
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-arrived
		leave()
	}()
	if _, err := openHTTP(t, server.URL, nil).Lookup(ctx, asked); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestHTTPS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Auth-Status", "Invalid login or password")
	}))
	server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	known := openHTTP(t, server.URL, func(c *configs.Directory) { c.TLSCA = ca })
	if answer, err := known.Lookup(t.Context(), asked); outcome(answer, err) != "denied, wait 0s" {
		t.Errorf("%+v, %v", answer, err)
	}
	unknown := openHTTP(t, server.URL, nil)
	if answer, err := unknown.Lookup(t.Context(), asked); outcome(answer, err) != "temporary" {
		t.Errorf("of an unknown authority: %+v, %v", answer, err)
	}
	if _, err := Open("x", configs.Directory{Kind: configs.DirectoryHTTP, URL: server.URL, TLSCA: ca + "x"}, zap.NewNop()); err == nil {
		t.Error("a tls_ca that is not there")
	}
}

func FuzzEscapeAuth(f *testing.F) {
	for _, seed := range []string{"anna", "a b%", "ü\x00\r\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		escaped := escapeAuth(s)
		if strings.ContainsFunc(escaped, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			t.Errorf("%q: %q", s, escaped)
		}
		if back, err := url.PathUnescape(escaped); back != s || err != nil {
			t.Errorf("%q: %q is %q (%v)", s, escaped, back, err)
		}
	})
}
