package api

import (
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tulle/internal/agent"
	"tulle/internal/fabric"
	"tulle/internal/trouble"
)

// metric is a figure of the status.
type metric struct {
	name, help string
	kind       prometheus.ValueType
	value      func(agent.Status) float64
}

// metrics are what /metrics tells beside the figures of the process and of the Go runtime. They name no host: the
// listener may be open to others.
func metrics() []metric {
	return []metric{
		{"tulle_ready", "1 if the lease is held and the kernel is right.", prometheus.GaugeValue,
			func(st agent.Status) float64 { return truth(st.Ready) }},
		{"tulle_lease_held", "1 if this host holds its lease, in each of its networks.", prometheus.GaugeValue,
			func(st agent.Status) float64 {
				return truth(len(st.Networks) > 0 && !slices.ContainsFunc(st.Networks, unleased))
			}},
		{"tulle_peers", "Hosts whose subnets are routed to.", prometheus.GaugeValue,
			sum(func(n fabric.Status) int { return n.PeerCount })},
		{"tulle_leases_refused", "Leases of other hosts that may not be used, or not in one family.", prometheus.GaugeValue,
			sum(func(n fabric.Status) int { return n.Leases.Refused })},
		{"tulle_leases_unserved", "Leases of other hosts that the backend cannot serve, or not in one family.", prometheus.GaugeValue,
			sum(func(n fabric.Status) int { return n.Leases.Unserved })},
		{"tulle_leases_odd", "Leases a change of which takes a full pass, while others do not.", prometheus.GaugeValue,
			sum(func(n fabric.Status) int { return n.Leases.Odd })},
		{"tulle_leases_held_back", "Leases that the store has no longer, and that stay in force until a second look.", prometheus.GaugeValue,
			sum(func(n fabric.Status) int { return n.Leases.HeldBack })},
		{"tulle_kernel_changes_total", "Operations applied to the kernel: links, addresses, routes, neighbours and the rest.", prometheus.CounterValue,
			func(st agent.Status) float64 { return float64(st.Work.Changes) }},
		{"tulle_kernel_apply_seconds_total", "Time that these operations took.", prometheus.CounterValue,
			func(st agent.Status) float64 { return st.Work.Applied.Seconds() }},
		{"tulle_kernel_calls_total", "System calls for reading and changing routes, neighbours and forwarding entries.", prometheus.CounterValue,
			func(st agent.Status) float64 { return float64(st.Work.Calls) }},
		{"tulle_passes_total", "Times that everything was compared with the kernel.", prometheus.CounterValue,
			func(st agent.Status) float64 { return float64(st.Work.Passes) }},
		{"tulle_incremental_passes_total", "Times that the kernel was compared with the leases that had changed, alone.", prometheus.CounterValue,
			func(st agent.Status) float64 { return float64(st.Work.Incremental) }},
		{"tulle_strangers_packets_total", "Tunnelled packets dropped: they came from the address of no peer.", prometheus.CounterValue,
			func(st agent.Status) float64 { return float64(st.Strangers) }},
		{"tulle_forged_packets_total", "Tunnelled packets dropped: they came from a peer, with a source inside that is not in its subnet.", prometheus.CounterValue,
			func(st agent.Status) float64 { return float64(st.Forged) }},
		{"tulle_injected_packets_total", "Tunnelled packets dropped: something behind this host made them, for the tunnel of a host.", prometheus.CounterValue,
			func(st agent.Status) float64 { return float64(st.Injected) }},
		{"tulle_spoofed_packets_total", "Packets of this host's containers dropped: their source is not in this host's subnet.", prometheus.CounterValue,
			func(st agent.Status) float64 { return float64(st.Spoofed) }},
		{"tulle_invariant_violations_total", "Violations of what should always hold, each a fault of Tulle: tulle status and the log name them.",
			prometheus.CounterValue, func(st agent.Status) float64 { return float64(st.Violated) }},
	}
}

func unleased(n fabric.Status) bool { return n.Lease == nil || !n.Lease.Held }

// sum adds up a figure of all networks of the host.
func sum(of func(fabric.Status) int) func(agent.Status) float64 {
	return func(st agent.Status) float64 {
		all := 0
		for _, n := range st.Networks {
			all += of(n)
		}
		return float64(all)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// collector reads all metrics from one status.
type collector struct {
	daemon  Daemon
	metrics []metric
	descs   []*prometheus.Desc

	troubles, fullOnly *prometheus.Desc
	build, passes      *prometheus.Desc
	certificate, lease *prometheus.Desc
	fastPath           fastPathMetrics
	probes             probeMetrics
}

func newCollector(d Daemon) *collector {
	c := &collector{daemon: d, metrics: metrics(), fastPath: newFastPathMetrics(), probes: newProbeMetrics()}
	c.troubles = prometheus.NewDesc("tulle_trouble", "Things that are wrong, by code: see docs/troubles.md.", []string{"code", "severity"}, nil)
	c.fullOnly = prometheus.NewDesc("tulle_full_passes_only", "Networks in which every change takes a full pass, by the reason: tulle status --json says more.", []string{"reason"}, nil)
	c.build = prometheus.NewDesc("tulle_build_info", "1, with the version of tulled and of Go.", []string{"version", "goversion"}, nil)
	c.passes = prometheus.NewDesc("tulle_pass_duration_seconds", "How long passes took: full ones, which compare everything, and incremental ones.", []string{"kind"}, nil)
	c.certificate = prometheus.NewDesc("tulle_etcd_client_certificate_expiry_timestamp_seconds", "When the client certificate ends that etcd is shown, if there is one: the first of several.", nil, nil)
	c.lease = prometheus.NewDesc("tulle_lease_remaining_seconds", "For how long this host holds its lease without another word from the store, if that has an end: the least of several.", nil, nil)
	for _, m := range c.metrics {
		c.descs = append(c.descs, prometheus.NewDesc(m.name, m.help, nil, nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.troubles
	descs <- c.fullOnly
	descs <- c.build
	descs <- c.passes
	descs <- c.certificate
	descs <- c.lease
	c.fastPath.describe(descs)
	c.probes.describe(descs)
	for _, d := range c.descs {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	st := c.daemon.Summary()
	for _, k := range trouble.Kinds() {
		out <- prometheus.MustNewConstMetric(c.troubles, prometheus.GaugeValue, float64(st.Troubles.Count[k.Code]), string(k.Code), string(k.Severity))
	}
	for _, o := range fabric.Obstacles() {
		is := func(n fabric.Status) int {
			if n.FullOnly != nil && n.FullOnly.Code == o {
				return 1
			}
			return 0
		}
		out <- prometheus.MustNewConstMetric(c.fullOnly, prometheus.GaugeValue, sum(is)(st), string(o))
	}
	out <- prometheus.MustNewConstMetric(c.build, prometheus.GaugeValue, 1, st.Version, runtime.Version())
	out <- histogram(c.passes, st.Work.Passes, st.Work.TookFull, "full")
	out <- histogram(c.passes, st.Work.Incremental, st.Work.TookIncremental, "incremental")
	if left := leastRemaining(st); left > 0 {
		out <- prometheus.MustNewConstMetric(c.lease, prometheus.GaugeValue, left.Seconds())
	}
	if at := firstExpiry(st); !at.IsZero() {
		out <- prometheus.MustNewConstMetric(c.certificate, prometheus.GaugeValue, float64(at.Unix()))
	}
	c.fastPath.collect(st.FastPath, out)
	c.probes.collect(st.Probes, out)
	for i, m := range c.metrics {
		out <- prometheus.MustNewConstMetric(c.descs[i], m.kind, m.value(st))
	}
}

func histogram(desc *prometheus.Desc, count uint64, d agent.Durations, kind string) prometheus.Metric {
	buckets := map[float64]uint64{}
	for i, bound := range agent.DurationBounds() {
		buckets[bound.Seconds()] = d.Within[i]
	}
	return prometheus.MustNewConstHistogram(desc, count, d.Sum.Seconds(), buckets, kind)
}

// leastRemaining is for how long all leases of the host are held; zero if none has an end.
func leastRemaining(st agent.Status) (least time.Duration) {
	for _, n := range st.Networks {
		if n.Lease != nil && n.Lease.Remaining > 0 && (least == 0 || n.Lease.Remaining < least) {
			least = n.Lease.Remaining
		}
	}
	return least
}

// firstExpiry is when the first of the client certificates ends; zero if there is none.
func firstExpiry(st agent.Status) (first time.Time) {
	for _, n := range st.Networks {
		if at := n.Expiry; !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}

// metricsHandler answers in Prometheus' text format.
func metricsHandler(d Daemon) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(newCollector(d), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}
