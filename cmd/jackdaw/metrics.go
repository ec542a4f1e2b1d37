package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
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

	asking  sync.Mutex // held by who asks the older processes: what they say first must not be taken for their last word
	mu      sync.Mutex
	older   map[int]*account    // by process
	past    []*dto.MetricFamily // of those that have ended
	retired bool                // another process adds us up, or has not handed over yet
}

// account is what another process has counted.
type account struct {
	flow  []*dto.MetricFamily // as it was last heard
	final bool                // nothing more is heard
	gone  bool                // the process is
}

func newMetrics(d *daemon) *metrics {
	m := &metrics{daemon: d, flow: prometheus.NewRegistry(), state: prometheus.NewRegistry(), older: make(map[int]*account)}
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
	all := [][]*dto.MetricFamily{own, m.past}
	for _, a := range m.older {
		all = append(all, a.flow)
	}
	return addUp(all...), err
}

// askOlder has the older processes tell. Of one that does not answer, what it has said before holds.
func (m *metrics) askOlder() {
	if m.daemon.generations == nil {
		return
	}
	m.asking.Lock()
	defer m.asking.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), flowLimit)
	defer cancel()
	err := m.daemon.generations.Each(func(g *generation) error {
		text, err := g.flow(ctx)
		if err != nil {
			return err
		}
		flow, err := decodeFlow(text)
		if err != nil {
			return fmt.Errorf("asking process %d: %w", g.pid, err)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if a := m.older[g.pid]; a != nil && !a.final {
			a.flow = flow
		}
		return nil
	})
	if err != nil {
		m.daemon.log.Warn("metrics of a former process are not up to date", zap.Error(err))
	}
}

// flow asks a process for what it counts.
func (g *generation) flow(ctx context.Context) ([]byte, error) {
	response, err := g.send(ctx, "GET /flow", nil)
	if err != nil {
		return nil, fmt.Errorf("asking process %d: %w", g.pid, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("asking process %d: %w", g.pid, err)
	}
	return text, nil
}

// answerFlow tells the newest process what this one has counted.
func (m *metrics) answerFlow(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write(m.last()) // who has gone does not want it
}
