package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"jackdaw/backends"
	"jackdaw/configs"
)

// v2 makes a header of the second version: command, family, and what follows.
func v2(command, family byte, rest string) string {
	length := binary.BigEndian.AppendUint16(nil, uint16(len(rest)))
	return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{command, family}) + string(length) + rest
}

// Addresses and ports in a header of the second version.
const (
	four = "\xc0\x00\x02\x07\xc6\x33\x64\x01\x10\xe1\x03\xe1" // 192.0.2.7:4321 to 198.51.100.1:993
	six  = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x10\xe1\x03\xe1"
	mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x07" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x01\x10\xe1\x03\xe1"
)

var proxyHeaders = []struct {
	what, header, want string // "": it is none
}{
	{"version 1", "PROXY TCP4 192.0.2.7 198.51.100.1 4321 993\r\n", "192.0.2.7:4321 to 198.51.100.1:993"},
	{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 4321 993\r\n", "[2001:db8::7]:4321 to [2001:db8::1]:993"},
	{"version 1, mapped", "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 4321 993\r\n", "192.0.2.7:4321 to 198.51.100.1:993"},
	{"version 1, longest", "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
		"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535 to [ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
	{"version 1, unknown", "PROXY UNKNOWN\r\n", "unproven"},
	{"version 1, unknown with addresses", "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", "unproven"},
	{"version 1, too long", "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", ""},
	{"version 1, LF alone", "PROXY TCP4 192.0.2.7 198.51.100.1 4321 993\n", ""},
	{"version 1, without ports", "PROXY TCP4 192.0.2.7 198.51.100.1\r\n", ""},
	{"version 1, with more", "PROXY TCP4 192.0.2.7 198.51.100.1 4321 993 1\r\n", ""},
	{"version 1, two blanks", "PROXY  TCP4 192.0.2.7 198.51.100.1 4321 993\r\n", ""},
	{"version 1, another family", "PROXY TCP4 2001:db8::7 2001:db8::1 4321 993\r\n", ""},
	{"version 1, a zone", "PROXY TCP6 fe80::1%lo fe80::1 4321 993\r\n", ""},
	{"version 1, a port too big", "PROXY TCP4 192.0.2.7 198.51.100.1 65536 993\r\n", ""},
	{"version 1, UDP", "PROXY UDP4 192.0.2.7 198.51.100.1 4321 993\r\n", ""},
	{"version 1, small letters", "proxy tcp4 192.0.2.7 198.51.100.1 4321 993\r\n", ""},
	{"version 1, another word", "PROXYTCP4 192.0.2.7 198.51.100.1 4321 993\r\n", ""},
	{"version 2", v2(0x21, 0x11, four), "192.0.2.7:4321 to 198.51.100.1:993"},
	{"version 2, IPv6", v2(0x21, 0x21, six), "[2001:db8::7]:4321 to [2001:db8::1]:993"},
	{"version 2, mapped", v2(0x21, 0x21, mapped), "192.0.2.7:4321 to 198.51.100.1:993"},
	{"version 2, TLVs", v2(0x21, 0x11, four+"\x02\x00\x01a"), "192.0.2.7:4321 to 198.51.100.1:993"},
	{"version 2, TLVs that are none", v2(0x21, 0x11, four+"\x02\xff"), "192.0.2.7:4321 to 198.51.100.1:993"}, // nobody reads them
	{"version 2, as much as it may", v2(0x21, 0x11, four+strings.Repeat("x", maxProxyV2-len(four))), "192.0.2.7:4321 to 198.51.100.1:993"},
	{"version 2, too long", v2(0x21, 0x11, four+strings.Repeat("x", maxProxyV2-len(four)+1)), ""},
	{"version 2, local", v2(0x20, 0x00, ""), "unproven"},
	{"version 2, local with addresses", v2(0x20, 0x11, four), "unproven"},
	{"version 2, local with something", v2(0x20, 0x11, "x"), "unproven"},
	{"version 2, a socket", v2(0x21, 0x31, strings.Repeat("/", 216)), "unproven"},
	{"version 2, half a socket", v2(0x21, 0x31, "/"), ""},
	{"version 2, UDP", v2(0x21, 0x12, four), ""},
	{"version 2, nothing", v2(0x21, 0x00, ""), ""},
	{"version 2, half an address", v2(0x21, 0x11, four[:11]), ""},
	{"version 2, another family", v2(0x21, 0x41, four), ""},
	{"version 2, another command", v2(0x22, 0x11, four), ""},
	{"version 3", v2(0x31, 0x11, four), ""},
	{"another protocol", "a1 LOGIN alice secret\r\n", ""},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00", ""},
}

// meetBehind is what is made of a client behind a proxy on this machine, and what is left to read.
func meetBehind(r io.Reader) (string, error) {
	peer := backends.Peer{Client: netip.MustParseAddr("127.0.0.1"), Port: 1, Local: netip.MustParseAddrPort("127.0.0.1:2")}
	header, err := readProxyHeader(r)
	if err == nil {
		err = applyProxyHeader(&peer, header)
	}
	switch {
	case err != nil:
		return "", err
	case peer.Unproven && peer.Client == netip.MustParseAddr("127.0.0.1") && peer.Port == 1:
		return "unproven", nil
	}
	return fmt.Sprintf("%v to %v", netip.AddrPortFrom(peer.Client, peer.Port), peer.Local), nil
}

// Not one octet behind a header is read, in whatever pieces it comes.
func TestProxyHeader(t *testing.T) {
	const behind = "\x16\x03\x01 behind it"
	for _, test := range proxyHeaders {
		for how, reader := range map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "in octets": iotest.OneByteReader} {
			r := reader(strings.NewReader(test.header + behind))
			got, err := meetBehind(r)
			if got != test.want || (err == nil) != (test.want != "") {
				t.Errorf("%s, %s: %q and %v, want %q", test.what, how, got, err, test.want)
			}
			if rest, _ := io.ReadAll(r); err == nil && string(rest) != behind {
				t.Errorf("%s, %s: %q is left", test.what, how, rest)
			}
		}
		if test.want == "" {
			continue
		}
		for n := range len(test.header) {
			if got, err := meetBehind(strings.NewReader(test.header[:n])); err == nil || (n == 0) != (err == io.EOF) {
				t.Fatalf("%s, cut off after %d octets: %q and %v", test.what, n, got, err)
			}
		}
	}
}

// FuzzProxyHeader looks for what crashes the reader, or makes it read behind the header's end; and what it takes for a client
// must be an address that can stand everywhere.
func FuzzProxyHeader(f *testing.F) {
	for _, test := range proxyHeaders {
		f.Add([]byte(test.header))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		peer := backends.Peer{Client: netip.MustParseAddr("127.0.0.1")}
		r := bytes.NewReader(data)
		header, err := readProxyHeader(r)
		read := data[:len(data)-r.Len()]
		if len(read) > proxyV2Fixed+maxProxyV2 {
			t.Fatalf("read %d octets", len(read))
		}
		if err == nil {
			err = applyProxyHeader(&peer, header)
		}
		if err != nil {
			return
		}
		if first := read[0] == 'P'; first && !bytes.HasSuffix(read, []byte("\r\n")) || first && bytes.Count(read, []byte("\n")) != 1 ||
			!first && len(read) != proxyV2Fixed+int(binary.BigEndian.Uint16(read[14:16])) {
			t.Fatalf("the header is %q", read)
		}
		if peer.Unproven {
			if peer.Client != netip.MustParseAddr("127.0.0.1") || peer.In(loopback) {
				t.Fatalf("of nobody came %v", peer)
			}
			return
		}
		if !peer.Client.IsValid() || !peer.Local.IsValid() || peer.Client.Zone() != "" || peer.Client.Is4In6() || peer.Local.Addr().Is4In6() {
			t.Fatalf("the client is %v", peer)
		}
	})
}

// behind is a listener's settings for clients behind a proxy.
func behind(c *configs.Config) { c.Listen.Listeners[0].ProxyFrom = configs.Networks{Unix: true} }

// A header has its own time, and no answer is given to whom does not know how to begin.
func TestProxyHeaderTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, behind)
		say(t, v.client, "PROXY TCP4")
		time.Sleep(9 * time.Second)
		v.isClosed(time.Second)
		if !strings.Contains(v.logs.String(), `"reason":"reading the PROXY header: PROXY header took too long"`) {
			t.Error("the log is", &v.logs)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, func(c *configs.Config) {
			behind(c)
			c.Limits.LoginTimeout = 5 * time.Second
		})
		v.isClosed(5 * time.Second)
		if !strings.Contains(v.logs.String(), `"reason":"login took too long"`) {
			t.Error("the log is", &v.logs)
		}
	})
}

// The header's time is over with it: a client that is slow afterwards has the login's.
func TestProxyHeaderTimeoutEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, behind)
		time.Sleep(5 * time.Second)
		say(t, v.client, "PROXY TCP4 192.0.2.7 198.51.100.1 4321 993\r\n")
		v.hears(0, "* OK")
		time.Sleep(30 * time.Second)
		say(t, v.client, "a NOOP\r\n")
		v.hears(0, "a OK")
		v.hears(25*time.Second, "* BYE Too slow")
		v.isClosed(0)
	})
}

// A server that goes says nothing to whom it does not know.
func TestProxyHeaderShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVisit(t, behind)
		say(t, v.client, "PROXY ")
		synctest.Wait()
		v.stop()
		v.isClosed(0)
	})
}

// The first octets of TLS may come in one segment with the header.
func TestProxyHeaderWithClientHello(t *testing.T) {
	config := testConfig()
	config.Listen.Listeners[0].TLS = configs.TLSImplicit
	config.Listen.Listeners[0].ProxyFrom = loopback
	access := testAccess
	access.Addresses = []configs.Address{{Network: "unix", Address: "/nonexistent"}}
	for _, header := range []string{"PROXY TCP4 192.0.2.7 198.51.100.1 4321 993\r\n", v2(0x21, 0x11, four)} {
		client, raw := tcpPair(t)
		done := make(chan struct{})
		go func() {
			serveSession(t.Context(), testSettings(testSetup(t, config, access), io.Discard), raw)
			close(done)
		}()
		conn := tls.Client(&prefixed{Conn: client, first: header}, &tls.Config{ServerName: "mail.example.org", InsecureSkipVerify: true})
		_ = conn.SetDeadline(time.Now().Add(patience))
		if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(line, "* OK") {
			t.Errorf("%q: %q, %v", header, line, err)
		}
		client.Close()
		<-done
	}
}

// prefixed writes something before the first octets, at once with them.
type prefixed struct {
	net.Conn
	first string
}

func (p *prefixed) Write(data []byte) (int, error) {
	n, err := p.Conn.Write(append([]byte(p.first), data...))
	n -= len(p.first)
	p.first = ""
	return n, err
}

// On a unix socket the peer is local: it has to send a header where local ones have to, and what the header says is not
// local any more.
func TestProxyHeaderOnSocket(t *testing.T) {
	h := newHost(t)
	local := configs.Networks{Prefixes: loopback.Prefixes, Unix: true}
	listener := imap("unix", filepath.Join(t.TempDir(), "imap"))
	listener.ProxyFrom, listener.PlaintextFrom, listener.From = local, local, local
	h.listens(listener)
	for header, want := range map[string]string{
		"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n":    "* OK [CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN]",
		"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n":    "* OK [CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED]",
		"PROXY UNKNOWN\r\n":                         "* OK [CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED]",
		v2(0x20, 0, ""):                             "* OK [CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED]",
		v2(0x21, 0x31, strings.Repeat("\x00", 216)): "* OK [CAPABILITY IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED]",
		"a CAPABILITY\r\n":                          "",
	} {
		conn, err := net.Dial("unix", listener.Address.Address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		say(t, conn, header)
		if line, _ := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(line, want) || want == "" && line != "" {
			t.Errorf("%q: %q, want %q", header, line, want)
		}
		conn.Close()
	}
}

// `from` is about peers, whoever they speak for.
func TestProxyHeaderAndFrom(t *testing.T) {
	h := newHost(t)
	listener := imap("tcp", "127.0.0.1:"+freePort(t))
	listener.ProxyFrom, listener.From = loopback, loopback
	h.listens(listener)
	hears := func() string {
		conn, err := net.Dial("tcp", listener.Address.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(conn, "PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n")
		line, _ := bufio.NewReader(conn).ReadString('\n')
		return line
	}
	if line := hears(); !strings.HasPrefix(line, "* OK") {
		t.Errorf("a peer that may connect hears %q", line)
	}
	listener.From = network("192.0.2.0/24")
	h.listens(listener)
	if line := hears(); line != "" {
		t.Errorf("a peer that may not connect hears %q", line)
	}
}

// The client of whom the header speaks decides about routes.
func TestProxyHeaderRoutes(t *testing.T) {
	local := configs.Networks{Prefixes: loopback.Prefixes, Unix: true}
	config := testConfig()
	config.Routes = []configs.Route{{Client: network("192.0.2.0/24"), Refuse: "from there"}, {Client: local, Refuse: "local"}, {Refuse: "other"}}
	config.Listen.Listeners[0].ProxyFrom = configs.Networks{Unix: true}
	access := testAccess
	access.Addresses = []configs.Address{{Network: "unix", Address: "/nonexistent"}}
	setup := testSetup(t, config, access)
	for header, want := range map[string]string{
		"PROXY TCP4 192.0.2.7 198.51.100.1 4321 993\r\n":       "from there",
		"PROXY TCP4 127.0.0.1 198.51.100.1 4321 993\r\n":       "local",
		"PROXY TCP6 2001:db8::7 2001:db8::1 4321 993\r\n":      "other",
		"PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 4321 993\r\n": "from there",
		"PROXY UNKNOWN\r\n": "other",
	} {
		client, raw := net.Pipe()
		s := newSession(t.Context(), testSettings(setup, io.Discard), raw)
		go func() { _, _ = io.WriteString(client, header) }()
		if err := s.meet(raw); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.place(t.Context(), &Attempt{Mechanism: "PLAIN", User: "alice", Secret: "x"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", header, err, want)
		}
		client.Close()
		raw.Close()
	}
}

// Whoever looks whether we are there and goes again leaves nothing in the log that people read.
func TestLevelOfEnd(t *testing.T) {
	for _, test := range []struct {
		what     string
		err      error
		heard    bool
		unproven bool
		want     zapcore.Level
	}{
		{"left without a word", io.EOF, false, false, zap.DebugLevel},
		{"cut off without a word", &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, false, false, zap.DebugLevel},
		{"left after a command", io.EOF, true, false, zap.InfoLevel},
		{"logged out", errLogout, true, false, zap.InfoLevel},
		{"too slow", errTimeout, false, false, zap.InfoLevel},
		{"a bad handshake", errors.New("tls: bad certificate"), false, false, zap.InfoLevel},
		{"a proxy itself logged out", errLogout, true, true, zap.DebugLevel},
	} {
		core, logs := observer.New(zap.DebugLevel)
		client, raw := net.Pipe()
		config := testConfig()
		access := testAccess
		access.Addresses = []configs.Address{{Network: "unix", Address: "/nonexistent"}}
		settings := testSettings(testSetup(t, config, access), io.Discard)
		settings.log = zap.New(core)
		s := newSession(t.Context(), settings, raw)
		s.peer.Unproven = test.unproven
		if test.heard {
			go func() { _, _ = io.WriteString(client, "a\n") }()
			if _, err := s.conn.ReadLine(); err != nil {
				t.Fatal(err)
			}
		}
		s.write(s.levelOf(fmt.Errorf("x: %w", test.err)), "session")
		if got := logs.All()[0].Level; got != test.want {
			t.Errorf("%s: %v, want %v", test.what, got, test.want)
		}
		client.Close()
		raw.Close()
	}
}
