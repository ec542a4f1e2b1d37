package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
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

	"github.com/pires/go-proxyproto"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/devca"
	"jackdaw/internal/wire"
)

// A transcript is a conversation that is played to a whole session:
//
//	= service imaps      settings, before the first line that is said; see setting
//	S: / C:              what the client reads, and what it sends
//	S~                   what the client reads, as a regular expression
//	S* BEGINNING         lines that do not matter, up to one that begins so
//	= after NAME         begins with what another transcript does
//	C> S> / (tab)B> P>   octets with Go's escapes, and no line end added
//	C* starttls NAME     the client does something: see act
//	(tab)A: / (tab)V:    what a verifier is asked, and what it says; see fakeDovecot
//	L~                   a line that is in the log when all is over, as a regular expression
//	(tab)B: / (tab)P:    what the store sends, and what it reads from the proxy
//	(tab)P~              what the store reads, as a regular expression
//	(tab)P* closed       the proxy has closed the connection to the store; eof: it sends nothing more
//	(tab)B* close        the store closes
//	base64(...)          in any of these: the octets, with Go's escapes, in base64
//	<x*n>                in any of these: n times x
//
// A file's first line says what it proves. A connection to the store is accepted at the first B or P after another has
// ended; one that no line speaks of is a mistake.
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
			p := newPlayer(t)
			p.play(file, string(text))
			p.end()
		})
	}
}

// patience is how long a line may take that must come.
const patience = 10 * time.Second

// player has both ends of a session in its hands.
type player struct {
	t       *testing.T
	line    string // file and number, for messages
	config  *configs.Config
	access  configs.Access // the way to the store, but for the address
	caps    []string       // what the store says when it is asked for its capabilities; nil: it is down
	askFor  bool           // of clients, their certificates
	show    *devca.Leaf    // the client's certificate
	asked   *fakeDovecot   // who verifies; nil: the store
	tokens  *fakeProvider
	blocked []Block
	logged  []func(log string)
	client  net.Conn
	read    *bufio.Reader
	server  *Server
	stores  chan net.Conn // connections from the proxy
	store   net.Conn
	from    *bufio.Reader
	end     func()
}

func newPlayer(t *testing.T) *player {
	return &player{t: t, stores: make(chan net.Conn, 1), config: testConfig(), access: testAccess}
}

func (p *player) play(file, text string) {
	for n, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		p.line = fmt.Sprintf("%s:%d", file, n+1)
		kind, rest, _ := strings.Cut(line, " ")
		begun, after := strings.CutPrefix(line, "= after ")
		switch {
		case n == 0 && (kind != "#" || rest == ""):
			p.fail("the first line must say what the transcript proves")
		case kind == "#":
		case after:
			other := filepath.Join(filepath.Dir(file), begun+".txt")
			text, err := os.ReadFile(other)
			p.must(err)
			p.play(other, string(text))
		case kind == "=":
			p.setting(rest)
		default:
			if p.client == nil {
				p.start()
			}
			p.step(kind, rest)
		}
	}
}

// setting changes what the transcript begins with.
func (p *player) setting(text string) {
	listener := &p.config.Listen.Listeners[0]
	name, value, _ := strings.Cut(text, " ")
	switch name {
	case "service":
		listener.Service = configs.Service(value)
		switch {
		case listener.Service.ImplicitTLS():
			listener.TLS = configs.TLSImplicit
		case listener.Service == configs.LMTP:
			listener.TLS = configs.TLSNone
		}
	case "tls":
		listener.TLS = configs.TLSMode(value)
	case "plaintext": // this client may log in without TLS
		listener.PlaintextFrom = loopback
	case "proxy_from": // this client begins with a PROXY header, ...
		listener.ProxyFrom = loopback
	case "plaintext_from": // ... and from there may log in without TLS
		listener.PlaintextFrom = network(value)
	case "impersonate_from":
		p.config.Users.ImpersonateFrom = network(value)
	case "client_user": // where a client's certificate has its name
		p.askFor, p.config.TLS.ClientUser = true, configs.ClientUser(value)
	case "login", "external_login": // as whom users enter the store
		p.access.LoginUser, p.access.LoginPassword = "proxy", "own-secret"
		form := &p.access.Login
		if name == "external_login" {
			form = &p.access.ExternalLogin
		}
		*form = configs.LoginForm(value)
	case "dovecot": // verifies, and offers these mechanisms
		p.asked = newFakeDovecot(p.t, strings.Fields(value))
		p.config.Auth = configs.Auth{Verify: configs.VerifyDovecot, Socket: p.asked.socket, Timeout: patience}
	case "directory": // verifies, and has keys for these mechanisms
		p.config.Auth = configs.Auth{Verify: configs.VerifyDirectory, Scram: strings.Fields(value)}
	case "token": // one that a provider knows, and what of it; passwords are for a saslauthd that is not there
		if p.tokens == nil {
			p.tokens = newFakeProvider(p.t)
			p.config.Auth = configs.Auth{Verify: configs.VerifySaslauthd, Timeout: patience,
				Tokens: configs.Tokens{Introspection: p.tokens.URL, Timeout: patience}}
		}
		token, claims, _ := strings.Cut(value, " ")
		p.tokens.claims[token] = claims
	case "default_realm":
		p.config.Users.DefaultRealm = value
	case "account": // a line of the directory that places users
		p.account(value)
	case "store": // a line of what the store says of itself when it is first asked
		p.caps = append(p.caps, value)
	case "blocked": // a network or a user
		block := Block{User: value, Until: time.Now().Add(time.Hour)}
		if network, err := netip.ParsePrefix(value); err == nil {
			block = Block{Network: network, Until: block.Until}
		}
		p.blocked = append(p.blocked, block)
	case "begin": // without a line yet
		p.start()
	case "realm":
		pattern, domain, _ := strings.Cut(value, " ")
		p.config.Users.Realms = map[string]string{pattern: domain}
	case "client_info": // the way in which the store is told of the client
		p.access.ClientInfo = configs.ClientInfo(value)
	case "form": // of the user's name at the store
		p.access.User = value
	case "attempts": // until the session ends
		n, err := strconv.Atoi(value)
		p.must(err)
		p.config.Limits.Attempts = n
	case "timeout": // of the login
		limit, err := time.ParseDuration(value)
		p.must(err)
		p.config.Limits.LoginTimeout = limit
	default:
		p.fail("no such setting: %s", name)
	}
}

// account adds a line to a directory of kind "file".
func (p *player) account(line string) {
	accounts := filepath.Join(p.t.TempDir(), "accounts")
	if p.config.Directories != nil {
		accounts = p.config.Directories["accounts"].Path
	}
	f, err := os.OpenFile(accounts, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	p.must(err)
	_, err = fmt.Fprintln(f, line)
	p.must(errors.Join(err, f.Close()))
	p.config.Directories = map[string]configs.Directory{"accounts": {Kind: configs.DirectoryFile, Path: accounts}}
	p.config.Routes = []configs.Route{{Lookup: "accounts"}}
}

// start brings up a session between two ends that this test holds.
func (p *player) start() {
	listener := p.config.Listen.Listeners[0]
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	p.access.Addresses = []configs.Address{{Network: "tcp", Address: socket.Addr().String()}}
	if p.caps == nil {
		socket.Close()
	} else {
		go p.serveStore(socket)
	}
	setup := testSetup(p.t, p.config, p.access)
	if p.askFor {
		setup.TLS = func(configs.Listener) *tls.Config { return askingTLS() }
	}
	for end := time.Now().Add(patience); p.caps != nil; time.Sleep(time.Millisecond) {
		if _, known := setup.Router.Announced(listener.Service, backends.Peer{}); known {
			break
		}
		if time.Now().After(end) {
			p.fail("the store was not understood: %q", p.caps)
		}
	}
	p.must(setup.Router.AskVerifier(p.t.Context()))
	var logs bytes.Buffer
	var raw net.Conn
	p.client, raw = tcpPair(p.t)
	p.read = bufio.NewReader(p.client)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	settings := testSettings(setup, &logs)
	settings.server.Block(p.blocked...)
	p.server = settings.server
	go func() {
		serveSession(ctx, settings, raw)
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
		cancel()
		socket.Close()
		select {
		case <-p.stores:
			p.fail("the proxy has connected to the store")
		default:
		}
		if bytes.Contains(logs.Bytes(), []byte("secret")) {
			p.fail("a secret is in the log: %s", &logs)
		}
		for _, check := range p.logged {
			check(logs.String())
		}
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
		_, _ = bufio.NewReader(conn).ReadString('\n') // LOGOUT
		conn.Close()
	}
}

func (p *player) step(kind, rest string) {
	rest = encode(rest)
	switch kind {
	case "S:":
		p.expect(p.read, "client", func(got string) bool { return got == rest }, rest)
	case "S~":
		p.expect(p.read, "client", regexp.MustCompile("^"+rest+"$").MatchString, rest)
	case "S*":
		for line := ""; !strings.HasPrefix(line, rest); {
			p.expect(p.read, "client", func(got string) bool { line = got; return true }, rest)
		}
	case "S>":
		p.octets(p.read, "client", unescape(rest))
	case "C:":
		p.write(p.client, rest+"\r\n")
	case "C>":
		p.write(p.client, unescape(rest))
	case "C*":
		p.act(rest)
	case "L~":
		line := p.line
		p.logged = append(p.logged, func(log string) {
			if !regexp.MustCompile(rest).MatchString(log) {
				p.t.Errorf("%s: the log is\n%s", line, log)
			}
		})
	case "\tA:":
		if got := p.asked.hears(); got != rest {
			p.fail("Dovecot hears\n %s\nwant\n %s", got, rest)
		}
	case "\tV:":
		p.must(p.asked.says(rest))
	case "\tB:":
		p.connected()
		p.write(p.store, rest+"\r\n")
	case "\tB>":
		p.connected()
		p.write(p.store, unescape(rest))
	case "\tP:":
		p.connected()
		p.expect(p.from, "store", func(got string) bool { return got == rest }, rest)
	case "\tP~":
		p.connected()
		p.expect(p.from, "store", regexp.MustCompile("^"+rest+"$").MatchString, rest)
	case "\tP>":
		p.connected()
		p.octets(p.from, "store", unescape(rest))
	case "\tP*":
		p.connected()
		p.closed(p.from, "store")
		if rest == "eof" {
			break
		}
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
		config := &tls.Config{ServerName: arg, InsecureSkipVerify: true}
		if p.show != nil {
			config.Certificates = []tls.Certificate{p.show.TLS}
		}
		conn := tls.Client(p.client, config)
		_ = conn.SetDeadline(time.Now().Add(patience))
		p.must(conn.Handshake())
		p.client, p.read = conn, bufio.NewReader(conn)
	case "scram": // goes through an exchange with a name and a password, up to where the server has proved itself or ends it
		user, password, _ := strings.Cut(arg, " ")
		p.scram(user, password)
	case "certificate": // which it shows from now on: names with "@" are mail addresses, the others common names
		p.show = clientLeaf(p.t, strings.Fields(arg))
	case "proxy": // sends a PROXY header, version 2, for a client and where that has connected to
		from, to, _ := strings.Cut(arg, " ")
		header := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		_, err := header.WriteTo(p.client)
		p.must(err)
	case "eof":
		p.must(closeWrite(p.client))
	case "closed":
		p.closed(p.read, "client")
	case "flood": // sends n octets of one letter
		n, err := strconv.Atoi(arg)
		p.must(err)
		p.setDeadlines()
		_, _ = p.client.Write(bytes.Repeat([]byte("x"), n))
	default:
		p.fail("no such act: %q", what)
	}
}

func (p *player) setDeadlines() {
	_ = p.client.SetDeadline(time.Now().Add(patience))
	if p.store != nil {
		_ = p.store.SetDeadline(time.Now().Add(patience))
	}
}

func (p *player) octets(from *bufio.Reader, who, want string) {
	p.t.Helper()
	p.setDeadlines()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(from, got); string(got) != want {
		p.fail("%s got %q and %v\nwant %q", who, got[:n], err, want)
	}
}

func (p *player) expect(from *bufio.Reader, who string, ok func(string) bool, want string) {
	p.t.Helper()
	p.setDeadlines()
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
	p.setDeadlines()
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

// encode writes out what a transcript says in short.
func encode(line string) string {
	line = regexp.MustCompile(`<.\*[0-9]+>`).ReplaceAllStringFunc(line, func(s string) string {
		n, _ := strconv.Atoi(s[3 : len(s)-1])
		return strings.Repeat(s[1:2], n)
	})
	return regexp.MustCompile(`base64\([^)]*\)`).ReplaceAllStringFunc(line, func(s string) string {
		return wire.EncodeBase64([]byte(unescape(s[len("base64(") : len(s)-1])))
	})
}

func unescape(text string) string {
	unquoted, err := strconv.Unquote(`"` + strings.ReplaceAll(text, `"`, `\"`) + `"`)
	if err != nil {
		panic(fmt.Sprintf("%v: %s", err, text))
	}
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
