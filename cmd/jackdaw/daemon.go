package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync/atomic"

	"go.uber.org/zap"

	"jackdaw/backends"
	"jackdaw/configs"
	"jackdaw/internal/inherit"
	"jackdaw/proxy"
	"jackdaw/tlsstore"
)

// daemon is a running jackdaw: the parts that its configuration makes, and the server that goes from one set of parts to
// the next.
type daemon struct {
	file    string // its configuration; "" if that comes from nowhere
	level   *logLevel
	log     *zap.Logger
	lines   *logQueue // in which log writes
	sockets *inherit.Sockets
	tickets *tlsstore.Tickets
	counts  *tlsstore.Counts
	server  *proxy.Server
	admin   *admin
	manager manager
	recent  *recentLog
	metrics *metrics
	web     *web

	operator    *operator
	generations *generations  // nil where nobody takes over
	placements  *placements   // nil there, too
	told        chan struct{} // closed when the process that has taken over wants this one to stop

	config *configs.Config // what is served now; nil before the first
	certs  *certificates
	router *backends.Router
	placer atomic.Pointer[backends.Router] // router, for those who ask beside
	shown  atomic.Pointer[scene]           // config, certs and router, for those who ask what clients meet
}

func newDaemon(config *configs.Config, sockets *inherit.Sockets) *daemon {
	level := newLogLevel()
	level.configure(config.Log.Level)
	recent := newRecentLog()
	log, lines := newLogger(config.Log.Format, level.AtomicLevel, recent)
	counts := new(tlsstore.Counts)
	d := &daemon{
		level: level, log: log, lines: lines, sockets: sockets, tickets: tlsstore.NewTickets(), counts: counts,
		server: proxy.NewServer(log, sockets), admin: newAdmin(log, counts, sockets), manager: manager{log},
		told: make(chan struct{}), recent: recent,
	}
	d.operator = &operator{log: log, server: d.server, router: d.placer.Load, scene: d.shown.Load, level: level,
		ending: d.admin.orders.open.Done()}
	d.admin.operator = d.operator
	d.metrics = newMetrics(d)
	d.admin.metrics = d.metrics.handler()
	d.web = newWeb(d)
	return d
}

// apply goes over to a configuration. On an error everything stays as it was.
func (d *daemon) apply(config *configs.Config) error {
	clients, err := tlsstore.ReadClients(config.TLS)
	if err != nil {
		return err
	}
	keys, err := tlsstore.ReadTicketKeys(config.TLS.TicketKeys)
	if err != nil {
		return err
	}
	certs, err := d.openCertificates(config)
	if err != nil {
		return err
	}
	router, err := backends.NewRouter(config, d.router, d.log)
	if err == nil {
		if err = d.server.Apply(d.setup(config, router, certs, clients)); err != nil {
			router.Retire(d.router)
		}
	}
	if err != nil {
		if certs != d.certs {
			certs.Close()
		}
		return err
	}
	oldCerts, oldRouter := d.certs, d.router
	d.config, d.certs, d.router = config, certs, router
	d.placer.Store(router)
	d.shown.Store(&scene{config: config, certs: certs.Store, router: router})
	d.admin.apply(config.Admin.Socket, certs)
	d.web.apply(config)
	d.tickets.Use(keys, d.log)
	if oldCerts != nil && oldCerts != certs {
		oldCerts.Close()
	}
	if oldRouter != nil {
		oldRouter.Retire(router)
	}
	d.level.configure(config.Log.Level)
	return nil
}

// setup says to the proxy what it must know of the other parts.
func (d *daemon) setup(config *configs.Config, router *backends.Router, certs *certificates, clients tlsstore.ClientCAs) proxy.Setup {
	return proxy.Setup{
		Config: config,
		Router: router,
		TLS: func(l configs.Listener) *tls.Config {
			settings := tlsstore.ListenerTLS{Service: l.Service, Default: l.Default, Counts: d.counts, Missed: certs.ask}
			if l.Service != configs.LMTP { // nobody logs in, and a mail server that has a certificate of its own shows that
				settings.Clients = clients
			}
			return certs.Config(settings)
		},
		Match: certs.Match,
		Shown: func(l configs.Listener, sni string) string { return certs.Shown(sni, l.Default) },
	}
}

// reload reads the file again. A bad file changes nothing.
func (d *daemon) reload() error {
	d.manager.reloading("Reading the configuration")
	config, err := configs.Load(d.file)
	if err == nil {
		err = d.apply(config)
	}
	d.metrics.reloads.reloaded(err)
	if err != nil {
		d.log.Error("reload failed, nothing has changed", zap.String("file", d.file), zap.Error(err))
		d.manager.serving("Serving; the configuration could not be read again, and the former one holds")
		return err
	}
	d.certs.look()
	d.log.Info("reloaded", zap.String("file", d.file))
	d.manager.serving("Serving")
	return nil
}

// check returns if the parts that every session needs can be had. What hangs there hangs here.
func (d *daemon) check() {
	d.server.Addresses()
	d.placer.Load().Services()
}

// withdraw ends what only one process can do, once another one does it.
func (d *daemon) withdraw() {
	d.admin.orders.close(errNotServing)
	d.admin.close()
	d.operator.emptying.close()
	d.web.close()
	d.metrics.retire()
	d.certs.Close()
}

// close ends all sessions, and then the parts.
func (d *daemon) close(ctx context.Context) error {
	err := d.server.Shutdown(ctx)
	d.release()
	if err != nil {
		return fmt.Errorf("ending the sessions: %w", err)
	}
	return nil
}

// release ends the parts, when there are no sessions that need them.
func (d *daemon) release() {
	d.admin.end()
	d.operator.close()
	d.web.close()
	if d.router != nil {
		d.router.Retire(nil)
	}
	if d.certs != nil {
		d.certs.Close()
	}
	d.tickets.Close()
	if d.generations != nil {
		d.generations.close()
	}
}
