package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"

	"jackdaw/configs"
	"jackdaw/internal/inherit"
)

// webConnections are those of browsers and Prometheus, at a time; more wait.
const webConnections = 64

// web serves the status page and the metrics on [admin] listen, to be read and not to be written. apply and close are for one
// goroutine.
type web struct {
	log     *zap.Logger
	sockets *inherit.Sockets
	handler http.Handler
	history *loginHistory
	access  atomic.Pointer[webAccess]
	address configs.Address // that is listened on, if stop is not nil
	stop    func()
}

// webAccess says who may ask.
type webAccess struct {
	token    string // "": whoever can connect
	hostname string
}

func newWeb(d *daemon) *web {
	w := &web{log: d.log, sockets: d.sockets, history: newLoginHistory(d.server)}
	w.access.Store(new(webAccess))
	open, guarded := http.NewServeMux(), http.NewServeMux()
	open.HandleFunc("GET /healthz", answerHealth)
	open.HandleFunc("GET /readyz", d.admin.answerReady)
	open.Handle("/", w.guard(guarded))
	guarded.Handle("GET /metrics", d.metrics.handler())
	(&statusPage{d, w.history}).handle(guarded)
	w.handler = open
	return w
}

// answerHealth says that there is a process that can say something.
func answerHealth(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "alive\n") }

// apply goes over to what a configuration says. An address that stays goes on; one that cannot be listened on is no reason to end:
// that is logged, and the next call tries again.
func (w *web) apply(config *configs.Config) {
	w.access.Store(&webAccess{token: config.Admin.Token, hostname: config.Hostname})
	if w.stop != nil && w.address == config.Admin.Listen {
		return
	}
	w.close()
	if config.Admin.Listen == (configs.Address{}) {
		return
	}
	if err := w.listen(config.Admin.Listen); err != nil {
		w.log.Warn("no status page and no metrics", zap.Stringer("address", config.Admin.Listen), zap.Error(err))
	}
}

// close ends the listening.
func (w *web) close() {
	if w.stop != nil {
		w.stop()
		w.stop = nil
	}
}

func (w *web) listen(address configs.Address) error {
	faults, err := zap.NewStdLogAt(w.log, zap.DebugLevel) // whoever can connect can provoke them
	if err != nil {
		return err
	}
	l, err := w.sockets.Listen(net.ListenConfig{}, address)
	if err != nil {
		return err
	}
	server := serveHTTP(netutil.LimitListener(l, webConnections), w.handler, faults, func(err error) {
		w.log.Error("the listener for the status page failed", zap.Stringer("address", address), zap.Error(err))
	})
	ctx, end := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() { w.history.follow(ctx) })
	w.address = address
	w.stop = func() {
		end()
		server.leave()
		server.end()
		following.Wait()
	}
	w.log.Info("serving the status page", zap.Stringer("address", l.Addr()))
	return nil
}

// guard lets those in who have the token. Where there is none, a browser on this machine must not be made to ask by a page from
// elsewhere, whose name leads here: whoever calls us must call us by an address or by our name.
func (w *web) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		header := rw.Header()
		header.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "+
			"img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		header.Set("X-Frame-Options", "DENY")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		switch access := w.access.Load(); {
		case access.token != "" && !access.shown(r):
			header.Set("WWW-Authenticate", `Basic realm="jackdaw", charset="UTF-8"`)
			http.Error(rw, "a token is asked for: as a bearer token, or as the password of any user", http.StatusUnauthorized)
		case access.token == "" && !access.means(r.Host):
			http.Error(rw, "this is not the host that you ask for: call it by its address, or as [admin] says", http.StatusMisdirectedRequest)
		default:
			next.ServeHTTP(rw, r)
		}
	})
}

// shown reports whether a request has the token. What is compared takes as long whatever is wrong with it.
func (a *webAccess) shown(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		_, token, _ = r.BasicAuth()
	}
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(a.token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// means reports whether a Host header is a way to call us that no DNS can lead astray, or our own name.
func (a *webAccess) means(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(host, "localhost") || strings.EqualFold(host, a.hostname)
}
