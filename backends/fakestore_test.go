package backends

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/configs"
	"jackdaw/internal/freeport"
	"jackdaw/internal/wire"
)

// fakeStore is an IMAP store behind a real socket, whose behaviour a test can change at any time.
type fakeStore struct {
	address  configs.Address
	tls      *tls.Config
	mode     configs.TLSMode
	proxied  bool // a PROXY header must come first
	listener net.Listener
	handlers sync.WaitGroup
	closing  chan struct{}

	mu       sync.Mutex
	greeting string // "": silence
	caps     string
	verify   verifier
	heard    []string // "user password" of each login, behind whom it is for; an invented password is "invented"
	headers  []string // what was in PROXY headers
	conns    []net.Conn
	accepted int
	open     int  // connections
	goodbyes int  // LOGOUTs
	lingers  bool // does not close at LOGOUT
}

// verifier answers a login behind its tag. "hang" says nothing, "drop" closes.
type verifier func(user, password string) string

const (
	granted = "OK [CAPABILITY IMAP4rev1 QUOTA] in"
	refused = "NO [AUTHENTICATIONFAILED] no"
)

// honest lets alice and bob in with the password "secret".
func honest(user, password string) string {
	if (user == "alice" || user == "bob") && password == "secret" {
		return granted
	}
	return refused
}

// careless lets everybody in.
func careless(string, string) string { return granted }

// onSocket makes the address of a unix socket that does not exist yet.
func onSocket(t *testing.T) configs.Address {
	dir, err := os.MkdirTemp("", "jackdaw") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return configs.Address{Network: "unix", Address: filepath.Join(dir, "imap")}
}

// onLoopback is any free port.
var onLoopback = configs.Address{Network: "tcp", Address: "127.0.0.1:0"}

// listenAt is net.Listen, but for a port that is still free when a store comes back.
func listenAt(address configs.Address) (net.Listener, error) {
	if host, port, err := net.SplitHostPort(address.Address); err == nil && port == "0" {
		return freeport.Listen(host)
	}
	return net.Listen(address.Network, address.Address)
}

// serve starts an honest store. Some settings can be made before it takes connections.
func serve(t *testing.T, address configs.Address, settings ...func(*fakeStore)) *fakeStore {
	t.Helper()
	f := &fakeStore{address: address, mode: configs.TLSNone, greeting: "* OK ready", caps: "IMAP4rev1 SASL-IR AUTH=PLAIN", verify: honest}
	for _, set := range settings {
		set(f)
	}
	f.listen(t)
	t.Cleanup(f.close)
	return f
}

func (f *fakeStore) listen(t *testing.T) {
	t.Helper()
	listener, err := listenAt(f.address)
	if err != nil {
		t.Fatal(err)
	}
	f.listener, f.closing = listener, make(chan struct{})
	if f.address.Network == "tcp" {
		f.address.Address = listener.Addr().String()
	}
	f.handlers.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.accepted++
			f.open++
			f.conns = append(f.conns, conn)
			f.mu.Unlock()
			f.handlers.Go(func() { f.handle(conn) })
		}
	})
}

// close ends the store, and all that hangs in it.
func (f *fakeStore) close() {
	_ = f.listener.Close()
	f.mu.Lock()
	select {
	case <-f.closing:
	default:
		close(f.closing)
	}
	for _, conn := range f.conns {
		_ = conn.Close()
	}
	f.conns = nil
	f.mu.Unlock()
	f.handlers.Wait()
}

func (f *fakeStore) handle(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		f.set(func(f *fakeStore) { f.open-- })
	}()
	if f.proxied {
		proxied := proxyproto.NewConn(conn, proxyproto.WithPolicy(proxyproto.REQUIRE))
		header := writeHeader(proxied.ProxyHeader())
		f.set(func(f *fakeStore) { f.headers = append(f.headers, header) })
		conn = proxied
	}
	if f.mode == configs.TLSImplicit {
		conn = tls.Server(conn, f.tls)
	}
	if greeting := f.now().greeting; greeting != "" {
		_, _ = io.WriteString(conn, greeting+"\r\n")
	}
	read := bufio.NewReader(conn)
	for {
		line, err := read.ReadString('\n')
		if err != nil {
			return
		}
		tag, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		if f.now().greeting == "" {
			continue
		}
		answer := f.answer(command)
		switch answer {
		case "hang":
			<-f.closing
			return
		case "drop":
			return
		case "TLS":
			_, _ = io.WriteString(conn, tag+" OK begin\r\n")
			conn = tls.Server(conn, f.tls)
			read = bufio.NewReader(conn)
			continue
		}
		if _, err := io.WriteString(conn, strings.ReplaceAll(answer, "TAG", tag)+"\r\n"); err != nil {
			return
		}
		if strings.HasPrefix(answer, "* BYE") && !f.now().lingers {
			return
		}
	}
}

// answer answers a command; TAG stands for its tag.
func (f *fakeStore) answer(command string) string {
	verb, rest, _ := strings.Cut(command, " ")
	switch verb {
	case "CAPABILITY":
		if f.now().caps == "hang" {
			return "hang"
		}
		return "* CAPABILITY " + f.now().caps + "\r\nTAG OK done"
	case "STARTTLS":
		if f.mode == configs.TLSStartTLS {
			return "TLS"
		}
	case "LOGOUT":
		f.set(func(f *fakeStore) { f.goodbyes++ })
		return "* BYE\r\nTAG OK bye"
	case "NOOP":
		return "TAG OK done"
	case "AUTHENTICATE":
		_, initial, _ := strings.Cut(rest, " ")
		message, _ := wire.DecodeBase64(initial)
		parts := strings.Split(string(message), "\x00")
		if len(parts) == 3 {
			f.mu.Lock()
			f.heard = append(f.heard, strings.TrimSpace(parts[0]+" "+parts[1]+" "+kind(parts[2])))
			f.mu.Unlock()
			answer := f.now().verify(parts[1], parts[2])
			if answer != "hang" && answer != "drop" {
				answer = "TAG " + answer
			}
			return answer
		}
	}
	return "TAG BAD what"
}

func kind(password string) string {
	if strings.HasPrefix(password, "invented-") && len(password) > 25 {
		return "invented"
	}
	return password
}

// behaviour is what a test can change.
type behaviour struct {
	greeting, caps string
	verify         verifier
	lingers        bool
}

func (f *fakeStore) now() behaviour {
	f.mu.Lock()
	defer f.mu.Unlock()
	return behaviour{f.greeting, f.caps, f.verify, f.lingers}
}

func (f *fakeStore) set(change func(*fakeStore)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// logins lists the logins that there were.
func (f *fakeStore) logins() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.heard)
}

// count tells how often there was a login.
func (f *fakeStore) count(login string) (n int) {
	for _, heard := range f.logins() {
		if heard == login {
			n++
		}
	}
	return n
}

// left tells whether all that connected are gone again.
func (f *fakeStore) left() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open == 0
}

// from lists where its connections came from; "" is a socket.
func (f *fakeStore) from() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for _, conn := range f.conns {
		host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		all = append(all, host)
	}
	return all
}

// connections tells how many there were.
func (f *fakeStore) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.accepted
}

// The logins that a test may look for.
const (
	theTest   = TestUser + " invented"
	aliceTest = "alice invented"
	alice     = "alice secret"
)

// way makes the access to addresses in the clear.
func way(addresses ...configs.Address) configs.Access {
	return configs.Access{Addresses: addresses, TLS: configs.TLSNone, User: "{user}", Login: configs.LoginSame}
}

// begin starts a service as NewRouter does, and gives its log.
func begin(t *testing.T, access configs.Access) (*Service, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	s, err := newService("store1", configs.IMAP, access, "proxy.example.net", zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	s.start(0)
	t.Cleanup(s.close)
	return s, logs
}

// login logs a user in with the password "secret", and leaves again.
func login(t *testing.T, s *Service, user string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := s.Login(ctx, visit(user))
	if err == nil {
		_ = conn.Conn.Close()
	}
	return err
}

// mustLogin wants no error.
func mustLogin(t *testing.T, s *Service, user string) {
	t.Helper()
	if err := login(t, s, user); err != nil {
		t.Fatalf("%s is not let in: %v", user, err)
	}
}

// said counts the lines of a log.
func logged(logs *observer.ObservedLogs, message string) int {
	return logs.FilterMessage(message).Len()
}

// visit is a client's login with the password that all users have.
func visit(user string) Visit {
	return Visit{User: user, Client: &Plain{User: user, Password: "secret"}}
}
