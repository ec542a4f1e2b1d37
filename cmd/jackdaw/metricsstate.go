package main

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"jackdaw/tlsstore/orders"
)

// How things stand in the process that serves.
var (
	descBuild     = describe("build_info", "Always 1: the program that runs.", "version", "go")
	descProcesses = describe("processes", "Processes of the daemon: this one, and those before it that still have sessions.")
	descReady     = describe("ready", "1 while clients may be sent here.")
	descReloadOK  = describe("reload_ok", "0 when the configuration file could not be read the last time, and the one before holds.")
	descReloaded  = describe("reload_timestamp_seconds", "When the configuration was read that holds.")

	descLimit     = describe("limit", "A limit; those that are off are left out.", "limit")
	descLimitUsed = describe("limit_used", "How much of a limit is used; of one per client or user, how many of these have all of it.", "limit")

	descCertificates   = describe("certificates", "Certificates that clients can be shown.")
	descCertExpiring   = describe("certificates_expiring", "Certificates that clients can be shown, and that expire within a time.", "within")
	descCertFirst      = describe("certificate_first_expiry_timestamp_seconds", "When the first of them expires.")
	descCertProblems   = describe("certificate_problems", "Files and certificates with something wrong.")
	descACMENames      = describe("acme_names", "Names that are wanted from the authority.", "state")
	descACMEOrders     = describe("acme_orders_total", "Orders at the authority.", "outcome")
	descBackendUp      = describe("backend_up", "1 while users can log in at the backend.", "backend", "protocol")
	descBackendDrained = describe("backend_drained", "1 while the backend takes no users who are not there.", "backend")
	descBackendSlow    = describe("backend_slow", "1 while a backend that was away is let in on slowly.", "backend")
	descBackendLogging = describe("backend_logins_in_progress", "Logins under way at the backend.", "backend")
	descBackendWaiting = describe("backend_logins_waiting", "Logins that wait for their turn at the backend.", "backend")
	descAddressUp      = describe("backend_address_up", "1 while an address leads to the backend.", "backend", "protocol", "address")
	descAddressTime    = describe("backend_address_latency_seconds",
		"How long the last look at an address took that went well, up to where a login could begin.", "backend", "protocol", "address")
)

// stateCollector tells how things stand. Safe for concurrent use.
type stateCollector struct{ *metrics }

// Describe is prometheus.Collector's.
func (c stateCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descBuild, descProcesses, descReady, descReloadOK, descReloaded, descLimit, descLimitUsed,
		descCertificates, descCertExpiring, descCertFirst, descCertProblems, descACMENames, descACMEOrders,
		descBackendUp, descBackendDrained, descBackendSlow, descBackendLogging, descBackendWaiting, descAddressUp, descAddressTime,
	} {
		to <- d
	}
}

// Collect is prometheus.Collector's.
func (c stateCollector) Collect(to chan<- prometheus.Metric) {
	out := sink(to)
	c.collectProcess(out)
	for _, l := range c.daemon.server.Limits() {
		if l.Limit > 0 {
			out.gauge(descLimit, float64(l.Limit), l.Name)
		}
		out.gauge(descLimitUsed, float64(l.Now), l.Name)
	}
	if certs := c.daemon.admin.certs.Load(); certs != nil {
		c.collectCertificates(out, certs)
	}
	c.collectBackends(out)
}

func (c stateCollector) collectProcess(out sink) {
	release, toolchain, _ := strings.Cut(version(), " ")
	out.gauge(descBuild, 1, release, toolchain)
	processes := 1
	if c.daemon.generations != nil {
		processes += len(c.daemon.generations.all())
	}
	out.gauge(descProcesses, float64(processes))
	out.yes(descReady, c.daemon.admin.ready())
	out.yes(descReloadOK, !c.reloads.bad.Load())
	out.gauge(descReloaded, float64(c.reloads.last.Load()))
}

// expiries are the times that certificates are counted by.
var expiries = []struct {
	within time.Duration
	label  string
}{{0, "0d"}, {24 * time.Hour, "1d"}, {7 * 24 * time.Hour, "7d"}, {14 * 24 * time.Hour, "14d"}, {30 * 24 * time.Hour, "30d"}}

func (c stateCollector) collectCertificates(out sink, certs *certificates) {
	view := c.certs.look(certs)
	out.gauge(descCertificates, float64(view.serving))
	out.gauge(descCertProblems, float64(view.problems))
	out.at(descCertFirst, view.first)
	for i, e := range expiries {
		out.gauge(descCertExpiring, float64(view.expiring[i]), e.label)
	}
	if certs.orders == nil {
		return
	}
	states := map[string]int{"valid": 0, "waiting": 0, "failing": 0, "held": 0, "on_demand": 0}
	for _, s := range certs.status() {
		if s.By != "" {
			states[acmeState(s)]++
		}
	}
	for state, n := range states {
		out.gauge(descACMENames, float64(n), state)
	}
	done, failed := certs.orders.Counts()
	out.counter(descACMEOrders, done, "ok")
	out.counter(descACMEOrders, failed, "failed")
}

// acmeState says how an order stands; failing is the one that somebody should look at.
func acmeState(s orders.Status) string {
	switch {
	case s.Held:
		return "held"
	case s.Failures > 0 || s.Problem != "":
		return "failing"
	case s.OnDemand:
		return "on_demand"
	case time.Now().Before(s.NotAfter):
		return "valid"
	}
	return "waiting"
}

func (c stateCollector) collectBackends(out sink) {
	router := c.daemon.placer.Load()
	if router == nil {
		return
	}
	for _, b := range router.States() {
		out.yes(descBackendDrained, b.Drained, b.Name)
		out.yes(descBackendSlow, b.Slow, b.Name)
		out.gauge(descBackendLogging, float64(b.Logins), b.Name)
		out.gauge(descBackendWaiting, float64(b.Waiting), b.Name)
		for _, s := range b.Services {
			protocol := string(s.Protocol)
			out.yes(descBackendUp, s.Problem == "" && !s.Down, b.Name, protocol)
			for _, a := range s.Addresses {
				address := a.Address
				if a.Host != "" {
					address += " " + a.Host
				}
				out.yes(descAddressUp, a.State == "up", b.Name, protocol, address)
				if a.Seconds > 0 {
					out.gauge(descAddressTime, a.Seconds, b.Name, protocol, address)
				}
			}
		}
	}
}
