package main

import (
	"cmp"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// addUp sums up metrics of the same name and labels, sorted by both as Prometheus' library sorts them. What it is given it leaves
// as it is.
func addUp(lists ...[]*dto.MetricFamily) []*dto.MetricFamily {
	families := make(map[string]*familySum)
	for _, list := range lists {
		for _, f := range list {
			sum := families[f.GetName()]
			if sum == nil {
				sum = &familySum{f, make(map[string]*dto.Metric)}
				families[f.GetName()] = sum
			}
			for _, metric := range f.GetMetric() {
				sum.add(metric)
			}
		}
	}
	all := make([]*dto.MetricFamily, 0, len(families))
	for _, sum := range families {
		all = append(all, sum.family())
	}
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all
}

// familySum sums up the metrics of one name.
type familySum struct {
	like    *dto.MetricFamily
	metrics map[string]*dto.Metric // by their labels
}

func (s *familySum) add(m *dto.Metric) {
	key := labelsOf(m)
	sum := s.metrics[key]
	if sum == nil {
		s.metrics[key] = proto.CloneOf(m)
		return
	}
	switch {
	case m.Counter != nil && sum.Counter != nil:
		sum.Counter.Value = proto.Float64(sum.Counter.GetValue() + m.Counter.GetValue())
	case m.Gauge != nil && sum.Gauge != nil:
		sum.Gauge.Value = proto.Float64(sum.Gauge.GetValue() + m.Gauge.GetValue())
	case m.Histogram != nil && sum.Histogram != nil:
		addHistogram(sum.Histogram, m.Histogram)
	}
}

// addHistogram adds what was counted up to the same bounds. A process of another version may have others: those are left out.
func addHistogram(sum, more *dto.Histogram) {
	sum.SampleCount = proto.Uint64(sum.GetSampleCount() + more.GetSampleCount())
	sum.SampleSum = proto.Float64(sum.GetSampleSum() + more.GetSampleSum())
	for _, b := range more.GetBucket() {
		i := slices.IndexFunc(sum.GetBucket(), func(own *dto.Bucket) bool { return own.GetUpperBound() == b.GetUpperBound() })
		if i >= 0 {
			own := sum.GetBucket()[i]
			own.CumulativeCount = proto.Uint64(own.GetCumulativeCount() + b.GetCumulativeCount())
		}
	}
}

func (s *familySum) family() *dto.MetricFamily {
	f := &dto.MetricFamily{Name: s.like.Name, Help: s.like.Help, Type: s.like.Type}
	for _, m := range s.metrics {
		f.Metric = append(f.Metric, m)
	}
	slices.SortFunc(f.Metric, func(a, b *dto.Metric) int { return cmp.Compare(labelsOf(a), labelsOf(b)) })
	return f
}

// labelsOf tells metrics of one name apart.
func labelsOf(m *dto.Metric) string {
	var key strings.Builder
	for _, l := range m.GetLabel() {
		key.WriteString(l.GetName() + "\x00" + l.GetValue() + "\x00")
	}
	return key.String()
}
