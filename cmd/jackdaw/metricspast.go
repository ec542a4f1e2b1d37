package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/zap"
)

// ledger is what a process that takes over must know of the past, so that counters go on where they stood.
type ledger struct {
	Past  []byte         // of processes that have ended
	Older map[int][]byte // of those that live, by process: as it was last heard
}

var flowFormat = expfmt.NewFormat(expfmt.TypeProtoDelim)

func encodeFlow(all []*dto.MetricFamily) []byte {
	var text bytes.Buffer
	encoder := expfmt.NewEncoder(&text, flowFormat)
	for _, family := range all {
		_ = encoder.Encode(family) // a buffer takes everything
	}
	return text.Bytes()
}

func decodeFlow(text []byte) (all []*dto.MetricFamily, err error) {
	decoder := expfmt.NewDecoder(bytes.NewReader(text), flowFormat)
	for {
		family := new(dto.MetricFamily)
		switch err := decoder.Decode(family); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all = append(all, family)
	}
}

// last is what this process has counted by now, for another one.
func (m *metrics) last() []byte {
	own, err := m.flow.Gather()
	if err != nil {
		m.daemon.log.Warn("metrics are not complete", zap.Error(err))
	}
	return encodeFlow(own)
}

// learn takes what another process has counted to its end.
func (m *metrics) learn(pid int, text []byte) {
	flow, err := decodeFlow(text)
	if err != nil {
		m.daemon.log.Warn("metrics of a former process are not complete", zap.Int("process", pid), zap.Error(err))
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.account(pid)
	a.flow, a.final = flow, true
}

// account returns what is known of a process. m.mu is held.
func (m *metrics) account(pid int) *account {
	a := m.older[pid]
	if a == nil {
		a = new(account)
		m.older[pid] = a
	}
	return a
}

// forget notes that a process has ended. Its counters are kept, and nothing else.
func (m *metrics) forget(pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.account(pid)
	a.final, a.gone = true, true
	m.absorb()
}

// absorb adds those that have ended to the past, unless another process does that. m.mu is held.
func (m *metrics) absorb() {
	for pid, a := range m.older {
		if a.gone && !m.retired {
			gauges := func(f *dto.MetricFamily) bool { return f.GetType() == dto.MetricType_GAUGE }
			m.past = addUp(m.past, slices.DeleteFunc(a.flow, gauges))
			delete(m.older, pid)
		}
	}
}

// retire leaves the adding up to another process.
func (m *metrics) retire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retired = true
}

// handOver returns what there is to add up for the process that does it from now on.
func (m *metrics) handOver() ledger {
	m.retire()
	own := m.last()
	m.mu.Lock()
	defer m.mu.Unlock()
	l := ledger{encodeFlow(m.past), map[int][]byte{os.Getpid(): own}}
	for pid, a := range m.older {
		l.Older[pid] = encodeFlow(a.flow)
	}
	return l
}

// takeBack goes on as if there had been no handOver.
func (m *metrics) takeBack() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.retired = false
	m.absorb()
}

// inherit adds up from now on. Of processes that live still, or have ended since we know them, the last word is ours to hear;
// those that the other one does not name are in the past.
func (m *metrics) inherit(l ledger) error {
	past, err := decodeFlow(l.Past)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	older := make(map[int]*account)
	for pid, text := range l.Older {
		a := m.account(pid)
		if a.flow == nil {
			if a.flow, err = decodeFlow(text); err != nil {
				return err
			}
		}
		older[pid] = a
	}
	m.past, m.older, m.retired = past, older, false
	m.absorb()
	return nil
}
