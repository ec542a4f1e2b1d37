package main

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/pprof"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"

	"jackdaw/internal/inherit"
	"jackdaw/tlsstore"
)

// What one daemon does for those who ask. They are jackdaw's own commands, whose questions are short.
const (
	adminConnections = 16       // at a time; more wait
	adminHeader      = 16 << 10 // bytes
	adminReadTime    = 10 * time.Second
	adminWriteTime   = time.Minute // for an answer about 100,000 certificates
	adminIdleTime    = 30 * time.Second
	adminGrace       = time.Second // for answers that are on their way at the end
)

// admin answers jackdaw's own commands, by HTTP on a unix socket. Whoever may open the socket may ask everything. apply,
// close and end are for one goroutine.
type admin struct {
	log     *zap.Logger
	counts  *tlsstore.Counts
	sockets *inherit.Sockets
	orders  *orderBook
	certs   atomic.Pointer[certificates] // what is served now
	socket  *adminSocket                 // nil: nobody can ask
	server  *httpServer                  // on socket
	parting sync.WaitGroup               // of those who asked on a socket that is closed

	metrics  http.Handler
	operator *operator // nil: only certificates can be asked for
}

func newAdmin(log *zap.Logger, counts *tlsstore.Counts, sockets *inherit.Sockets) *admin {
	return &admin{log: log, counts: counts, sockets: sockets, orders: newOrderBook()}
}

// apply goes over to what is served now, and to the socket at path; "" is none. A socket that stays where it is goes on. One
// that cannot be made is no reason to end: that is logged, and the next call tries again.
func (a *admin) apply(path string, certs *certificates) {
	a.certs.Store(certs)
	if a.socket != nil && a.socket.path == path && a.socket.reachable() {
		return
	}
	a.close()
	if path == "" {
		return
	}
	if err := a.listen(path); err != nil {
		a.log.Warn("no admin socket: jackdaw's commands cannot ask this daemon", zap.String("socket", path), zap.Error(err))
	}
}

// close removes the socket. Who has asked already is answered: it may be the order that made us close it.
func (a *admin) close() {
	if a.socket != nil {
		a.server.leave()
		a.parting.Go(a.server.end)
		a.socket = nil
	}
}

// end is close that waits until all have been answered.
func (a *admin) end() {
	a.close()
	a.parting.Wait()
}

func (a *admin) listen(path string) error {
	faults, err := zap.NewStdLogAt(a.log, zap.ErrorLevel)
	if err != nil {
		return err
	}
	socket, err := listenSocket(a.sockets, path)
	if err != nil {
		return err
	}
	a.socket = socket
	a.server = serveHTTP(netutil.LimitListener(socket, adminConnections), a.handler(), faults, func(err error) {
		a.log.Error("admin socket failed", zap.String("socket", path), zap.Error(err))
	})
	return nil
}

func (a *admin) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /certs", a.answerCerts)
	mux.HandleFunc("GET /missed", a.answerMissed)
	mux.HandleFunc("GET /readyz", a.answerReady)
	if a.metrics != nil {
		mux.Handle("GET /metrics", a.metrics)
	}
	mux.HandleFunc("POST /reload", a.takeOrder(orderReload))
	mux.HandleFunc("POST /upgrade", a.takeOrder(orderUpgrade))
	if a.operator != nil {
		a.operator.handle(mux)
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index) // heap, goroutine and so on
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := context.Cause(a.orders.open); errors.Is(err, errNotServing) {
			refuse(w, err)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (a *admin) answerCerts(w http.ResponseWriter, r *http.Request) {
	filter, err := parseFilter(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	certs := a.certs.Load()
	report := reportCerts(certs.Store, filter)
	report.addOrders(certs.status())
	if filter == (certsFilter{}) {
		handshakes := a.counts.Handshakes()
		report.Handshakes = &handshakes
	}
	a.answer(w, r, report.writeJSON)
}

func (a *admin) answerMissed(w http.ResponseWriter, r *http.Request) {
	report := missedReport{Missed: append([]tlsstore.Missed{}, a.counts.Missed(math.MaxInt)...)} // in JSON a list, were it empty
	a.answer(w, r, report.writeJSON)
}

// answer sends JSON. Whoever has gone in the meantime has no use for an error.
func (a *admin) answer(w http.ResponseWriter, r *http.Request, write func(io.Writer) error) {
	w.Header().Set("Content-Type", "application/json")
	if err := write(w); err != nil {
		a.log.Debug("answer on the admin socket cut off", zap.String("question", r.URL.Path), zap.Error(err))
	}
}
