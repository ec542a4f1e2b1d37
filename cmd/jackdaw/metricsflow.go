package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"jackdaw/backends"
	"jackdaw/internal/tally"
)

// describe makes a metric of ours.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("jackdaw_"+name, help, labels, nil)
}

// What sessions do, and what becomes of them at the stores.
var (
	descConnections = describe("connections_total", "Connections that were let in.", "service")
	descSessions    = describe("sessions", "Sessions by how far they have come.", "service", "state")
	descRelayed     = describe("relayed_bytes_total", "Bytes moved after the login; by LMTP those of messages.", "service", "direction")
	descHandshakes  = describe("tls_handshakes_total", "TLS handshakes with clients, by how they ended.", "outcome", "version")
	descNames       = describe("tls_names_total", "Handshakes by the certificate that their SNI name has led to.", "match")
	descLogins      = describe("logins_total", "Logins by what clients were told.", "service", "mechanism", "outcome")
	descSteps       = describe("login_step_seconds", "How long the steps of logins took; of deliveries, too, where they have the same.", "step")
	descRecipients  = describe("recipients_total", "Recipients of messages by LMTP, by what the client was told of them.", "outcome")

	descBackendSessions = describe("backend_sessions", "Sessions at a backend, and logins that are to become some.", "backend")
	descBackendLogins   = describe("backend_logins_total", "Logins at a backend.", "backend", "protocol", "outcome")
	descAnswers         = describe("directory_answers_total", "What directories and verifiers have answered.", "directory", "outcome", "source")
	descLimitRefused    = describe("limit_refusals_total", "What was refused because of a limit.", "limit")
	descReloads         = describe("reloads_total", "Attempts to read the configuration again.", "outcome")
	descLog             = describe("log_messages_total", "Lines of the log that ask for attention.", "level")
	descLogLost         = describe("log_lost_lines_total", "Lines of the log that nobody took in time, or for which there was no room.")
)

// flowCollector reads what a process counts. Safe for concurrent use.
type flowCollector struct{ *daemon }

// Describe is prometheus.Collector's.
func (c flowCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descConnections, descSessions, descRelayed, descHandshakes, descNames, descLogins, descSteps, descRecipients,
		descBackendSessions, descBackendLogins, descAnswers, descLimitRefused, descReloads, descLog, descLogLost,
	} {
		to <- d
	}
}

// Collect is prometheus.Collector's.
func (c flowCollector) Collect(to chan<- prometheus.Metric) {
	out := sink(to)
	c.collectSessions(out)
	c.collectNames(out)
	for level, n := range c.recent.counts() {
		out.counter(descLog, n, level)
	}
	out.counter(descLogLost, c.lines.losses.Load())
	for _, l := range c.server.Limits() {
		out.counter(descLimitRefused, uint64(l.Refused), l.Name)
	}
	out.counter(descReloads, c.metrics.reloads.done.Load(), "ok")
	out.counter(descReloads, c.metrics.reloads.failed.Load(), "failed")
	if router := c.placer.Load(); router != nil {
		steps := router.Steps()
		out.histogram(descSteps, steps.Verifier.Read(), "verifier")
		out.histogram(descSteps, steps.Directory.Read(), "directory")
		out.histogram(descSteps, steps.Connect.Read(), "connect")
		out.histogram(descSteps, steps.Login.Read(), "store")
		for _, a := range router.Answers() {
			out.counter(descAnswers, a.Count, a.Directory, a.Outcome, a.Source)
		}
		c.collectBackends(out, router.States())
	}
}

func (c flowCollector) collectSessions(out sink) {
	counts := c.server.Counts()
	for _, s := range counts.Services {
		service := string(s.Service)
		out.counter(descConnections, s.Begun, service)
		out.counter(descRelayed, uint64(s.Sent), service, "sent")
		out.counter(descRelayed, uint64(s.Received), service, "received")
		for state, n := range s.Now {
			out.gauge(descSessions, float64(n), service, string(state))
		}
	}
	for _, h := range counts.Handshakes {
		out.counter(descHandshakes, h.Count, h.Outcome, h.Version)
	}
	for _, l := range counts.Logins {
		out.counter(descLogins, l.Count, string(l.Service), l.Mechanism, l.Outcome)
	}
	for _, r := range counts.Recipients {
		out.counter(descRecipients, r.Count, r.Outcome)
	}
	out.histogram(descSteps, counts.Handshake, "handshake")
	out.histogram(descSteps, counts.Dialogue, "dialogue")
}

func (c flowCollector) collectNames(out sink) {
	names := c.counts.Handshakes()
	for match, n := range map[string]uint64{
		"exact": names.Exact, "wildcard": names.Wildcard, "default": names.Default, "unknown": names.Unknown, "nameless": names.Nameless,
	} {
		out.counter(descNames, n, match)
	}
}

func (c flowCollector) collectBackends(out sink, states []backends.BackendState) {
	for _, b := range states {
		out.gauge(descBackendSessions, float64(b.Own), b.Name)
		for _, s := range b.Services {
			protocol := string(s.Protocol)
			out.counter(descBackendLogins, s.Logins.OK, b.Name, protocol, "ok")
			out.counter(descBackendLogins, s.Logins.Refused, b.Name, protocol, "refused")
			out.counter(descBackendLogins, s.Logins.Temporary, b.Name, protocol, "temporary")
		}
	}
}

// sink takes metrics.
type sink chan<- prometheus.Metric

func (s sink) counter(d *prometheus.Desc, n uint64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

func (s sink) gauge(d *prometheus.Desc, x float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, x, labels...)
}

// yes is a gauge that is 1 or 0.
func (s sink) yes(d *prometheus.Desc, yes bool, labels ...string) {
	x := 0.0
	if yes {
		x = 1
	}
	s.gauge(d, x, labels...)
}

// at is a gauge with a time, unless that is zero.
func (s sink) at(d *prometheus.Desc, t time.Time, labels ...string) {
	if !t.IsZero() {
		s.gauge(d, float64(t.Unix()), labels...)
	}
}

func (s sink) histogram(d *prometheus.Desc, times tally.Times, labels ...string) {
	buckets := make(map[float64]uint64, len(tally.Bounds))
	for i, bound := range tally.Bounds {
		buckets[bound.Seconds()] = times.UpTo[i]
	}
	s <- prometheus.MustNewConstHistogram(d, times.Count, times.Sum.Seconds(), buckets, labels...)
}
