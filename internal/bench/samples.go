//go:build linux

package bench

import (
	"math"
	"slices"
	"strings"

	"tulle/ip"
)

// Figure sums up samples.
type Figure struct {
	Samples int     `json:"samples"`
	Median  float64 `json:"median"`
	P99     float64 `json:"p99"`
	Least   float64 `json:"least"`
	Most    float64 `json:"most"`
}

func figure(samples []float64) Figure {
	if len(samples) == 0 {
		return Figure{}
	}
	s := slices.Sorted(slices.Values(samples))
	rank := func(q float64) float64 { return s[min(len(s)-1, int(math.Ceil(q*float64(len(s))))-1)] }
	return Figure{Samples: len(s), Median: rank(0.5), P99: rank(0.99), Least: s[0], Most: s[len(s)-1]}
}

// samples are those of some starts.
type samples struct {
	took, cpu, apply, changes, calls []float64
	etcd                             counters // of the last
}

func (s *samples) start() Start {
	return Start{
		Figure: figure(s.took), CPU: figure(s.cpu), Apply: figure(s.apply), Changes: figure(s.changes).Median, Calls: figure(s.calls).Median,
		Requests: requests(s.etcd), Received: s.etcd[sentBytes],
	}
}

// sentBytes is etcd's count of bytes sent to its clients.
const sentBytes = "etcd_network_client_grpc_sent_bytes_total"

// requests to etcd, by method; streams count once, and what goes over them does not.
func requests(c counters) map[string]float64 { return c.by("grpc_server_started_total", "grpc_method") }

func familyName(families []ip.Family) string {
	names := make([]string, len(families))
	for i, f := range families {
		names[i] = strings.ToLower(f.String())
	}
	return strings.Join(names, "+")
}
