package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"tulle/internal/agent"
	"tulle/ip"
)

// fastPathMetrics describe the figures of the fast path.
type fastPathMetrics struct {
	on, packets, bytes, admissions, refused, raised, flows, room *prometheus.Desc
}

func newFastPathMetrics() fastPathMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tulle_fast_path_"+name, help, labels, nil)
	}
	return fastPathMetrics{
		on:         desc("on", "1 if packets may take the fast path: tulle status says why not."),
		packets:    desc("packets_total", "Packets between containers of different hosts. Segments that travel together are one.", "direction", "path"),
		bytes:      desc("bytes_total", "Bytes of these, with their headers and without a tunnel's.", "direction", "path"),
		admissions: desc("admissions_total", "Times that a flow was admitted to the fast path, each second anew."),
		refused:    desc("refused_packets_total", "Packets that may not take the fast path whatever the filters say of them, by reason.", "reason"),
		raised:     desc("flushes_total", "Times that all flows had to pass the filters anew, by what changed.", "cause"),
		flows:      desc("flows", "Flows that the fast path has room in use for: those that are admitted, and those that were and have not been put out."),
		room:       desc("flows_room", "Flows that it has room for."),
	}
}

func (m fastPathMetrics) describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.on, m.packets, m.bytes, m.admissions, m.refused, m.raised, m.flows, m.room} {
		descs <- d
	}
}

// collect tells the figures of a status. A host without a fast path has but one.
func (m fastPathMetrics) collect(st *agent.FastPathStatus, out chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, kind prometheus.ValueType, value uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, float64(value), labels...)
	}
	out <- prometheus.MustNewConstMetric(m.on, prometheus.GaugeValue, truth(st != nil && st.On && st.Paused == 0))
	if st == nil || !st.On {
		return
	}
	const fast, slow = "fast", "slow"
	for direction, t := range map[string]ip.FastTraffic{"out": st.Out, "in": st.In} {
		tell(m.packets, prometheus.CounterValue, t.FastPackets, direction, fast)
		tell(m.packets, prometheus.CounterValue, t.SlowPackets, direction, slow)
		tell(m.bytes, prometheus.CounterValue, t.FastBytes, direction, fast)
		tell(m.bytes, prometheus.CounterValue, t.SlowBytes, direction, slow)
	}
	tell(m.admissions, prometheus.CounterValue, st.Admitted)
	for reason, n := range st.Refused {
		tell(m.refused, prometheus.CounterValue, n, reason)
	}
	for cause, n := range st.Raised {
		tell(m.raised, prometheus.CounterValue, n, cause)
	}
	tell(m.flows, prometheus.GaugeValue, uint64(st.Fill))
	tell(m.room, prometheus.GaugeValue, uint64(st.Room))
}
