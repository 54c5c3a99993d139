package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"tulle/internal/agent"
	"tulle/internal/probe"
)

// probeMetrics describe the figures of what hosts ask each other.
type probeMetrics struct{ peers, duration, lost *prometheus.Desc }

func newProbeMetrics() probeMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return probeMetrics{
		peers:    desc("tulle_probed_peers", "Peers that are asked whether packets arrive, once for each family, by the way and what is known of it: with --probe=on.", "way", "state"),
		duration: desc("tulle_probe_duration_seconds", "How long answers of peers took.", "way"),
		lost:     desc("tulle_probes_lost_total", "Questions to peers that were not answered.", "way"),
	}
}

func (m probeMetrics) describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.peers, m.duration, m.lost} {
		descs <- d
	}
}

// collect tells the figures of a status. Where hosts do not ask each other there are none.
func (m probeMetrics) collect(st *agent.ProbeStatus, out chan<- prometheus.Metric) {
	if st == nil {
		return
	}
	for _, way := range probe.Ways() {
		for state, n := range st.Summary.Peers[way] {
			out <- prometheus.MustNewConstMetric(m.peers, prometheus.GaugeValue, float64(n), way.String(), probe.State(state).String())
		}
		out <- prometheus.MustNewConstMetric(m.lost, prometheus.CounterValue, float64(st.Summary.Lost[way]), way.String())
		rtt, upTo, buckets := st.Summary.RTT[way], uint64(0), map[float64]uint64{}
		for i, bound := range probe.Bounds() {
			upTo += rtt.Buckets[i]
			buckets[bound.Seconds()] = upTo
		}
		out <- prometheus.MustNewConstHistogram(m.duration, rtt.Count, rtt.Sum.Seconds(), buckets, way.String())
	}
}
