package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/zap"
)

// metrics tells Prometheus what the daemon does. Nothing is counted here that is counted elsewhere already, and no label has a value
// that a client chooses. What sessions do is summed up over all processes of the daemon, those included that have ended since an
// upgrade: counters must not go back. Safe for concurrent use.
type metrics struct {
	daemon  *daemon
	flow    *prometheus.Registry // what every process counts
	state   *prometheus.Registry // what only the one that serves can tell
	reloads reloadCounts
	certs   certificateWatch

	mu      sync.Mutex
	older   map[int][]*dto.MetricFamily // what they last said of their flow, by process
	past    []*dto.MetricFamily         // of those that have ended
	ended   map[int]bool                // them
	retired bool                        // another process adds us up
}

func newMetrics(d *daemon) *metrics {
	m := &metrics{
		daemon: d, flow: prometheus.NewRegistry(), state: prometheus.NewRegistry(), older: make(map[int][]*dto.MetricFamily),
		ended: make(map[int]bool),
	}
	m.reloads.last.Store(time.Now().Unix())
	m.flow.MustRegister(flowCollector{d})
	m.state.MustRegister(stateCollector{m}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// reloadCounts says how reloads went.
type reloadCounts struct {
	done, failed atomic.Uint64
	last         atomic.Int64 // when the configuration was read that holds, in seconds of Unix
	bad          atomic.Bool  // there was a later one that could not be read
}

// reloaded counts a reload.
func (r *reloadCounts) reloaded(err error) {
	if r.bad.Store(err != nil); err != nil {
		r.failed.Add(1)
		return
	}
	r.done.Add(1)
	r.last.Store(time.Now().Unix())
}

// handler answers Prometheus.
func (m *metrics) handler() http.Handler {
	faults, err := zap.NewStdLogAt(m.daemon.log, zap.WarnLevel)
	if err != nil {
		faults = zap.NewStdLog(m.daemon.log)
	}
	return promhttp.HandlerFor(prometheus.Gatherers{prometheus.GathererFunc(m.sum), m.state}, promhttp.HandlerOpts{
		ErrorLog: faults, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4,
	})
}

// flowLimit is how long another process may take to tell what it counts: Prometheus waits ten seconds for all.
const flowLimit = 3 * time.Second

// sum adds up what all processes have counted.
func (m *metrics) sum() ([]*dto.MetricFamily, error) {
	m.askOlder()
	own, err := m.flow.Gather()
	m.mu.Lock()
	defer m.mu.Unlock()
	return addUp(append([][]*dto.MetricFamily{own, m.past}, slices.Collect(maps.Values(m.older))...)...), err
}

// askOlder has the older processes tell. Of one that does not answer, what it has said before holds.
func (m *metrics) askOlder() {
	if m.daemon.generations == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flowLimit)
	defer cancel()
	err := m.daemon.generations.Each(func(g *generation) error {
		families, err := g.flow(ctx)
		if err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.ended[g.pid] { // meanwhile
			m.older[g.pid] = families
		}
		return nil
	})
	if err != nil {
		m.daemon.log.Warn("metrics of a former process are not up to date", zap.Error(err))
	}
}

// flow asks a process for what it counts.
func (g *generation) flow(ctx context.Context) ([]*dto.MetricFamily, error) {
	response, err := g.send(ctx, "GET /flow", nil)
	if err != nil {
		return nil, fmt.Errorf("asking process %d: %w", g.pid, err)
	}
	defer response.Body.Close()
	decoder := expfmt.NewDecoder(response.Body, flowFormat)
	var all []*dto.MetricFamily
	for {
		family := new(dto.MetricFamily)
		switch err := decoder.Decode(family); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("asking process %d: %w", g.pid, err)
		}
		all = append(all, family)
	}
}

var flowFormat = expfmt.NewFormat(expfmt.TypeProtoDelim)

// answerFlow tells the newest process what this one has counted, and what it knows of those that had ended when it was the newest.
func (m *metrics) answerFlow(w http.ResponseWriter, _ *http.Request) {
	own, err := m.flow.Gather()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	m.mu.Lock()
	all := addUp(own, m.past)
	m.mu.Unlock()
	encoder := expfmt.NewEncoder(w, flowFormat)
	for _, family := range all {
		if encoder.Encode(family) != nil {
			return // nobody listens any more
		}
	}
}

// forget keeps the counters of a process that has ended, unless another one does that.
func (m *metrics) forget(pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last := m.older[pid]; !m.retired {
		m.past = addUp(m.past, slices.DeleteFunc(last, func(f *dto.MetricFamily) bool { return f.GetType() == dto.MetricType_GAUGE }))
	}
	delete(m.older, pid)
	m.ended[pid] = true
}

// retire leaves the adding up to another process.
func (m *metrics) retire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retired = true
}
