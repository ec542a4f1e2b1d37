package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/devca"
)

// A transcript is a conversation that is played to a whole session:
//
//	= service imaps      settings, before the first line that is said; see setting
//	S: / C:              what the client reads, and what it sends
//	S~                   what the client reads, as a regular expression
//	C> / (tab)B>         octets with Go's escapes, and no line end added
//	C* starttls NAME     the client does something: see act
//	(tab)B: / (tab)P:    what the store sends, and what it reads from the proxy
//	(tab)P* closed       the proxy has closed the connection to the store
//
// A file's first line says what it proves. Store connections are accepted when the first B or P after another has ended.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(file, "testdata/"), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play(t, file, string(text))
		})
	}
}

// patience is how long a line may take that must come.
const patience = 10 * time.Second

// player has both ends of a session in its hands.
type player struct {
	t      *testing.T
	line   string // file and number, for messages
	config *configs.Config
	access configs.Access // the way to the store, but for the address
	caps   []string // what the store says when it is asked for its capabilities; nil: it is down
	client net.Conn
	read   *bufio.Reader
	stores chan net.Conn // connections from the proxy
	store  net.Conn
	from   *bufio.Reader
	end    func()
}

func play(t *testing.T, file, text string) {
	p := &player{t: t, stores: make(chan net.Conn, 1), config: transcriptConfig(),
		access: configs.Access{User: "{user}", TLS: configs.TLSNone, AcceptsAnyPassword: true}}
	for n, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		p.line = fmt.Sprintf("%s:%d", file, n+1)
		kind, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "" || kind == "#":
			if n == 0 && rest == "" {
				p.fail("the first line must say what the transcript proves")
			}
		case kind == "=":
			p.setting(rest)
		default:
			if p.client == nil {
				p.start()
			}
			p.step(kind, rest)
		}
	}
	p.end()
}

func transcriptConfig() *configs.Config {
	anywhere := configs.Networks{Prefixes: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
	return &configs.Config{
		Hostname: "proxy.example.net",
		Listen:   configs.Listen{Listeners: []configs.Listener{{Service: configs.IMAP, Name: "imap", TLS: configs.TLSStartTLS}}},
		Users:    configs.Users{Separators: "@%", Lowercase: true},
		Routes: []configs.Route{
			{User: []string{"nobody"}, Refuse: "nobody is nobody"},
			{Client: anywhere, To: "store1"},
		},
		Limits: configs.Limits{LoginTimeout: time.Minute, Attempts: 3,
			IdleTimeout: configs.PerService[time.Duration]{configs.IMAP: time.Minute, configs.IMAPS: time.Minute, configs.Sieve: time.Minute}},
	}
}

// setting changes what the transcript begins with.
func (p *player) setting(text string) {
	listener := &p.config.Listen.Listeners[0]
	name, value, _ := strings.Cut(text, " ")
	switch name {
	case "service":
		listener.Service = configs.Service(value)
		if listener.Service.ImplicitTLS() {
			listener.TLS = configs.TLSImplicit
		}
	case "plaintext": // this client may log in without TLS
		listener.PlaintextFrom.Prefixes = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	case "store": // a line of what the store says of itself when it is first asked
		p.caps = append(p.caps, value)
	case "realm":
		pattern, domain, _ := strings.Cut(value, " ")
		p.config.Users.Realms = map[string]string{pattern: domain}
	case "form": // of the user's name at the store
		p.access.User = value
	default:
		p.fail("no such setting: %s", name)
	}
}

// start brings up a session between two ends that this test holds.
func (p *player) start() {
	listener := p.config.Listen.Listeners[0]
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	p.access.Addresses = []configs.Address{{Network: "tcp", Address: socket.Addr().String()}}
	p.config.Backends = []configs.Backend{{Name: "store1", Access: map[configs.Service]configs.Access{listener.Service.Protocol(): p.access}}}
	if p.caps == nil {
		socket.Close()
	} else {
		go p.serveStore(socket)
	}
	router, err := backends.NewRouter(p.config, nil, zap.NewNop())
	p.must(err)
	peer := backends.Peer{Client: netip.MustParseAddr("127.0.0.1")}
	for deadline := time.Now().Add(patience); p.caps != nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, known := router.Announced(listener.Service, peer); known {
			break
		}
	}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	p.client, err = net.Dial("tcp", front.Addr().String())
	p.must(err)
	p.read = bufio.NewReader(p.client)
	raw, err := front.Accept()
	p.must(err)
	front.Close()
	config, match := transcriptTLS(p.t)
	s := newSession(&settings{
		listener: listener, hostname: p.config.Hostname, tls: config, match: match, names: backends.NewNames(p.config.Users),
		router: router, limits: p.config.Limits, log: zaptest.NewLogger(p.t, zaptest.Level(zap.ErrorLevel)),
	}, raw)
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan struct{})
	go func() {
		s.serve(ctx, raw)
		close(done)
	}()
	p.end = func() {
		p.client.Close()
		if p.store != nil {
			p.store.Close()
		}
		select {
		case <-done:
		case <-time.After(patience):
			p.fail("the session has not ended with its client")
		}
		cancel(nil)
		socket.Close()
		router.Retire(nil)
	}
}

// serveStore answers the first connection, which only asks what the store can do, and hands on the others.
func (p *player) serveStore(socket net.Listener) {
	for first := true; ; first = false {
		conn, err := socket.Accept()
		if err != nil {
			return
		}
		if !first {
			p.stores <- conn
			continue
		}
		_, _ = io.WriteString(conn, strings.Join(p.caps, "\r\n")+"\r\n")
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
}

// transcriptTLS makes the certificate of all transcripts, for mail.example.org.
func transcriptTLS(t *testing.T) (*tls.Config, func(string) (string, bool)) {
	ca, err := devca.New()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(devca.Options{Names: []string{"mail.example.org"}})
	if err != nil {
		t.Fatal(err)
	}
	match := func(sni string) (string, bool) { return strings.ToLower(sni), strings.EqualFold(sni, "mail.example.org") }
	return &tls.Config{Certificates: []tls.Certificate{leaf.TLS}}, match
}

func (p *player) step(kind, rest string) {
	switch kind {
	case "S:":
		p.expect(p.read, "client", func(got string) bool { return got == rest }, rest)
	case "S~":
		p.expect(p.read, "client", regexp.MustCompile("^"+rest+"$").MatchString, rest)
	case "C:":
		p.write(p.client, rest+"\r\n")
	case "C>":
		p.write(p.client, p.unescape(rest))
	case "C*":
		p.act(rest)
	case "\tB:":
		p.connected()
		p.write(p.store, rest+"\r\n")
	case "\tB>":
		p.connected()
		p.write(p.store, p.unescape(rest))
	case "\tP:":
		p.connected()
		p.expect(p.from, "store", func(got string) bool { return got == rest }, rest)
	case "\tP*":
		p.closed(p.from, "store")
		p.store.Close()
		p.store = nil
	case "\tB*": // the store closes
		p.store.Close()
		p.store = nil
	default:
		p.fail("no such step: %q", kind)
	}
}

// act lets the client do what is no line.
func (p *player) act(what string) {
	verb, arg, _ := strings.Cut(what, " ")
	switch verb {
	case "starttls": // or implicit TLS
		conn := tls.Client(p.client, &tls.Config{ServerName: arg, InsecureSkipVerify: true})
		_ = conn.SetDeadline(time.Now().Add(patience))
		p.must(conn.Handshake())
		p.client, p.read = conn, bufio.NewReader(conn)
	case "eof":
		p.must(closeWrite(p.client))
	case "close":
		p.must(p.client.Close())
	case "closed":
		p.closed(p.read, "client")
	case "flood": // sends n octets of one letter
		n, err := strconv.Atoi(arg)
		p.must(err)
		_ = p.client.SetDeadline(time.Now().Add(patience))
		_, _ = p.client.Write(bytes.Repeat([]byte("x"), n))
	default:
		p.fail("no such act: %q", what)
	}
}

func (p *player) expect(from *bufio.Reader, who string, ok func(string) bool, want string) {
	p.t.Helper()
	_ = p.client.SetReadDeadline(time.Now().Add(patience))
	if p.store != nil {
		_ = p.store.SetReadDeadline(time.Now().Add(patience))
	}
	got, err := from.ReadString('\n')
	if err != nil {
		p.fail("%s got %q and %v\nwant %q", who, got, err, want)
	}
	if got = strings.TrimSuffix(got, "\r\n"); !ok(got) {
		p.fail("%s got\n %s\nwant\n %s", who, got, want)
	}
}

// closed expects the end of a connection, and nothing before it.
func (p *player) closed(from *bufio.Reader, who string) {
	p.t.Helper()
	_ = p.client.SetReadDeadline(time.Now().Add(patience))
	rest, err := io.ReadAll(from)
	if len(rest) > 0 || os.IsTimeout(err) {
		p.fail("%s got %q and %v, want the connection closed", who, rest, err)
	}
}

// connected waits until the proxy has come to the store.
func (p *player) connected() {
	p.t.Helper()
	if p.store != nil {
		return
	}
	select {
	case p.store = <-p.stores:
		p.from = bufio.NewReader(p.store)
	case <-time.After(patience):
		p.fail("the proxy has not connected to the store")
	}
}

func (p *player) write(to io.Writer, text string) {
	p.t.Helper()
	_, err := io.WriteString(to, text)
	p.must(err)
}

func (p *player) unescape(text string) string {
	p.t.Helper()
	unquoted, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
	p.must(err)
	return unquoted
}

func (p *player) must(err error) {
	p.t.Helper()
	if err != nil {
		p.fail("%v", err)
	}
}

func (p *player) fail(format string, args ...any) {
	p.t.Helper()
	p.t.Fatalf("%s: %s", p.line, fmt.Sprintf(format, args...))
}
