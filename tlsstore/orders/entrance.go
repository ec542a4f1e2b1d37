package orders

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/acme"
	"golang.org/x/net/netutil"

	"jackdaw/configs"
)

// What a stranger may cost: the entrances are open to the whole internet.
const (
	entranceLimit   = 5 * time.Second // for everything that a connection is for
	maxConnections  = 512
	maxHeader       = 4 << 10 // bytes; net/http adds 4 KiB of its own
	maxToken        = 128     // the longest that is seen has 43
	challengePrefix = "/.well-known/acme-challenge/"
)

// entrance is where the authority comes to see challenges answered. It outlives the manager that has opened it, if the next
// one listens at the same address; while both live, it answers for both.
type entrance struct {
	address configs.Address // as it is configured
	bound   net.Addr        // as the system knows it
	server  *http.Server
	done    chan struct{}

	mu     sync.Mutex
	caches []*cache // those of the managers that listen here; none once it is closed
}

// openAt opens an entrance for a kind of challenge.
func (m *Manager) openAt(kind string, address configs.Address) (*entrance, error) {
	c, log := m.cache, m.Log
	l, err := m.Sockets.Listen(net.ListenConfig{}, address)
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", kind, err)
	}
	log.Info("listening for challenges", zap.String("challenge", kind), zap.Stringer("address", l.Addr()))
	e := &entrance{address: address, bound: l.Addr(), server: newServer(log), done: make(chan struct{}), caches: []*cache{c}}
	e.server.Handler = e
	go e.serve(kind, l, log)
	return e, nil
}

func newServer(log *zap.Logger) *http.Server {
	server := &http.Server{
		ReadTimeout:                  entranceLimit,
		WriteTimeout:                 entranceLimit,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true,
		// Setting this keeps HTTP/2 out. Who has got through the handshake of RFC 8737 has seen all there is to see.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){
			acme.ALPNProto: func(*http.Server, *tls.Conn, http.Handler) {},
		},
	}
	server.ErrorLog, _ = zap.NewStdLogAt(log, zap.DebugLevel) // what strangers do wrong; the level is one that there is
	server.SetKeepAlivesEnabled(false)
	return server
}

// serve answers until the entrance is closed.
func (e *entrance) serve(kind string, l net.Listener, log *zap.Logger) {
	defer close(e.done)
	l = netutil.LimitListener(l, maxConnections)
	if kind == tlsALPN01 {
		l = tls.NewListener(l, e.tlsConfig())
	}
	if err := e.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		log.Error("answering challenges ended", zap.String("challenge", kind), zap.Error(err))
	}
}

// join has the entrance answer for a cache, too, unless it is closed.
func (e *entrance) join(c *cache) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.caches) == 0 {
		return false
	}
	e.caches = append(e.caches, c)
	return true
}

// leave ends that. With the last one the entrance is closed.
func (e *entrance) leave(c *cache) {
	e.mu.Lock()
	e.caches = slices.DeleteFunc(e.caches, func(other *cache) bool { return other == c })
	last := len(e.caches) == 0
	e.mu.Unlock()
	if last {
		e.server.Close()
		<-e.done
	}
}

// challenge reads the answer to a challenge.
func (e *entrance) challenge(file string) (answer []byte, ok bool) {
	e.mu.Lock()
	caches := slices.Clone(e.caches)
	e.mu.Unlock()
	for _, c := range caches {
		if answer, err := os.ReadFile(c.path(challenges, file)); err == nil {
			return answer, true
		}
	}
	return nil, false
}

// ServeHTTP answers http-01 (RFC 8555 section 8.3), and nothing else.
func (e *entrance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.URL.Path, challengePrefix)
	if !ok || !isToken(token) || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	answer, ok := e.challenge(token)
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(answer) // who has gone does not want it
}

// isToken tells whether text is a challenge's token: base64url without padding (RFC 8555 section 8.1), so that it can be the
// name of a file, and is never that of another kind's, which has a dot in it.
func isToken(text string) bool {
	foreign := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
	}
	return text != "" && len(text) <= maxToken && !strings.ContainsFunc(text, foreign)
}

func (e *entrance) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{acme.ALPNProto},
		SessionTicketsDisabled: true,
		GetCertificate:         e.certificate,
	}
}

var errNoChallenge = errors.New("no challenge is pending for this name")

// certificate answers tls-alpn-01. RFC 8737 section 3: the client offers this protocol alone, and says the name by SNI.
func (e *entrance) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name, ok := dnsName(hello.ServerName)
	if !ok || !slices.Equal(hello.SupportedProtos, []string{acme.ALPNProto}) {
		return nil, errNoChallenge
	}
	answer, ok := e.challenge(name + ".pem")
	if !ok {
		return nil, errNoChallenge
	}
	cert, err := tls.X509KeyPair(answer, answer)
	return &cert, err
}
