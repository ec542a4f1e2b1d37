package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/devca"
	"jackdaw/internal/inherit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopback is where all clients of these tests come from.
var loopback = configs.Networks{Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}

// network is one alone.
func network(prefix string) configs.Networks {
	return configs.Networks{Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)}}
}

// testConfig has one listener, for IMAP with STARTTLS, and a route to store1 for everybody but nobody.
func testConfig() *configs.Config {
	idle := make(configs.PerService[time.Duration])
	for _, service := range configs.Services() {
		idle[service] = time.Minute
	}
	return &configs.Config{
		Hostname: "proxy.example.net",
		Listen:   configs.Listen{Listeners: []configs.Listener{{Service: configs.IMAP, Name: "imap", TLS: configs.TLSStartTLS}}},
		Users:    configs.Users{Separators: "@%", Lowercase: true},
		Routes:   []configs.Route{{User: []string{"nobody"}, Refuse: "nobody is nobody"}, {To: "store1"}},
		Limits:   configs.Limits{LoginTimeout: time.Minute, Attempts: 3, IdleTimeout: idle},
	}
}

// testAccess is the way to store1, but for its address.
var testAccess = configs.Access{User: "{user}", TLS: configs.TLSNone, AcceptsAnyPassword: true, Login: configs.LoginSame}

// testSetup is what a server of the configuration is set up with, if its one store has this access.
func testSetup(t testing.TB, config *configs.Config, access configs.Access) Setup {
	ways := make(map[configs.Service]configs.Access)
	for _, l := range config.Listen.Listeners {
		ways[l.Service.Protocol()] = access
	}
	config.Backends = []configs.Backend{{Name: "store1", Access: ways}}
	router, err := backends.NewRouter(config, nil, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { router.Retire(nil) })
	return Setup{
		Config: config,
		Router: router,
		TLS:    func(configs.Listener) *tls.Config { return testTLS() },
		Match: func(sni string) (string, bool) {
			return strings.ToLower(sni), strings.EqualFold(sni, "mail.example.org")
		},
		Shown: func(configs.Listener, string) string { return "mail.example.org" },
	}
}

// testSettings are those that a server gives to the sessions of its first listener.
func testSettings(setup Setup, logs io.Writer) *settings {
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	server := NewServer(zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(logs)), zap.DebugLevel)), inherit.NewSockets())
	return server.entrances(setup)[setup.Config.Listen.Listeners[0].Address].any
}

// serveSession serves one connection of a server that has no other, to its end. When ctx ends, so does the session.
func serveSession(ctx context.Context, settings *settings, raw net.Conn) {
	s := newSession(ctx, settings, raw)
	defer context.AfterFunc(ctx, func() { s.end(errShutdown) })()
	server := settings.server
	server.sessions.enter(s)
	s.serve(raw)
	<-server.sessions.empty()
	server.loops.Close()
}

// tcpPair returns both ends of a connection.
func tcpPair(t testing.TB) (client, server net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// testTLS makes the certificate of all tests, for mail.example.org.
var testTLS = sync.OnceValue(func() *tls.Config {
	ca, err := devca.New()
	if err != nil {
		panic(err)
	}
	leaf, err := ca.Issue(devca.Options{Names: []string{"mail.example.org"}})
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{leaf.TLS}}
})

// clientAuthority vouches for clients.
var clientAuthority = sync.OnceValue(func() *devca.CA {
	ca, err := devca.New()
	if err != nil {
		panic(err)
	}
	return ca
})

// askingTLS is testTLS for listeners that ask clients for certificates, as package tlsstore makes it.
func askingTLS() *tls.Config {
	config := testTLS().Clone()
	config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, clientAuthority().Pool()
	return config
}

// clientLeaf makes a client's certificate with these names: mail addresses, and common names.
func clientLeaf(t testing.TB, names []string) *devca.Leaf {
	o := devca.Options{CommonNames: []string{}}
	for _, name := range names {
		if strings.Contains(name, "@") {
			o.Emails = append(o.Emails, name)
		} else {
			o.CommonNames = append(o.CommonNames, name)
		}
	}
	leaf, err := clientAuthority().Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return &leaf
}
