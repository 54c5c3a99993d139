package api

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/agent"
	"tulle/internal/fabric"
	"tulle/internal/probe"
	"tulle/internal/trouble"
	"tulle/ip"
)

func TestMetrics(t *testing.T) {
	fine := agent.Status{Ready: true, Version: "1.2", Work: agent.Work{Passes: 5, TookFull: agent.Durations{Sum: 2500 * time.Millisecond, Within: [8]uint64{0, 0, 1, 2, 3, 3, 4, 5}}}, Networks: []fabric.Status{{Lease: &fabric.LeaseStatus{Held: true, Remaining: time.Hour}, PeerCount: 3, Expiry: time.Unix(1800000000, 0), Leases: fabric.LeaseCounts{Refused: 1, Unserved: 2, Odd: 4, HeldBack: 5}}}, Dropped: agent.Dropped{Strangers: 7, Forged: 8, Injected: 9, Spoofed: 10}}
	bad := agent.Status{Degraded: "stale", Networks: []fabric.Status{{Lease: &fabric.LeaseStatus{}, FullOnly: &fabric.FullOnly{Code: fabric.ForeignRoute}}}, Violated: 2}
	for _, code := range []trouble.Code{trouble.StoreUnconfirmed, trouble.KernelContested, trouble.OutsideBlocked, trouble.OutsideBlocked, trouble.ConfigPending, trouble.StoreSuddenLoss} {
		bad.Troubles.Add(trouble.New(code, "", "x"))
	}
	var probes probe.Summary
	probes.Peers[probe.Fabric][probe.Well], probes.Peers[probe.Underlay][probe.Unreachable], probes.Lost[probe.Underlay] = 5, 2, 7
	over := &probes.RTT[probe.Fabric]
	over.Buckets[0], over.Buckets[2], over.Count, over.Sum = 1, 2, 4, 2*time.Second
	for _, tt := range []struct {
		name   string
		status agent.Status
		lines  []string
	}{
		{"fine", fine, []string{"tulle_ready 1", "tulle_lease_held 1", `tulle_trouble{code="store.unconfirmed",severity="warning"} 0`, "tulle_peers 3", `tulle_full_passes_only{reason="foreign-route"} 0`,
			"tulle_leases_refused 1",
			`tulle_build_info{goversion="` + runtime.Version() + `",version="1.2"} 1`, "# TYPE tulle_pass_duration_seconds histogram",
			`tulle_pass_duration_seconds_bucket{kind="full",le="0.01"} 1`, `tulle_pass_duration_seconds_bucket{kind="full",le="10"} 5`, `tulle_pass_duration_seconds_bucket{kind="full",le="+Inf"} 5`,
			"tulle_lease_remaining_seconds 3600",
			"tulle_etcd_client_certificate_expiry_timestamp_seconds 1.8e+09",
			`tulle_pass_duration_seconds_sum{kind="full"} 2.5`, `tulle_pass_duration_seconds_count{kind="incremental"} 0`,
			"tulle_leases_unserved 2", "tulle_leases_odd 4", "tulle_leases_held_back 5",
			"tulle_strangers_packets_total 7", "tulle_forged_packets_total 8", "tulle_injected_packets_total 9", "tulle_spoofed_packets_total 10", "tulle_invariant_violations_total 0"}},
		{"bad", bad, []string{"tulle_ready 0", "tulle_lease_held 0", `tulle_trouble{code="store.unconfirmed",severity="warning"} 1`, `tulle_trouble{code="kernel.contested",severity="warning"} 1`,
			`tulle_trouble{code="config.pending",severity="warning"} 1`, `tulle_trouble{code="store.sudden-loss",severity="warning"} 1`,
			`tulle_trouble{code="outside.blocked",severity="warning"} 2`, "tulle_invariant_violations_total 2",
			`tulle_full_passes_only{reason="foreign-route"} 1`, `tulle_full_passes_only{reason="lease-not-held"} 0`}},
		{"fast path", agent.Status{FastPath: &agent.FastPathStatus{FastPathState: ip.FastPathState{
			On: true, Fill: 12, Room: 100, Admitted: 3, Refused: map[string]uint64{"handshake": 4}, Raised: map[string]uint64{"nftables": 5},
			Out: ip.FastTraffic{FastPackets: 6, FastBytes: 7, SlowPackets: 8, SlowBytes: 9}, In: ip.FastTraffic{FastBytes: 10},
		}}}, []string{"tulle_fast_path_on 1", "tulle_fast_path_flows 12", "tulle_fast_path_flows_room 100", "tulle_fast_path_admissions_total 3",
			`tulle_fast_path_refused_packets_total{reason="handshake"} 4`, `tulle_fast_path_flushes_total{cause="nftables"} 5`,
			`tulle_fast_path_packets_total{direction="out",path="fast"} 6`, `tulle_fast_path_bytes_total{direction="out",path="fast"} 7`,
			`tulle_fast_path_packets_total{direction="out",path="slow"} 8`, `tulle_fast_path_bytes_total{direction="out",path="slow"} 9`,
			`tulle_fast_path_bytes_total{direction="in",path="fast"} 10`, "# TYPE tulle_fast_path_bytes_total counter"}},
		{"probes", agent.Status{Probes: &agent.ProbeStatus{Summary: probes}}, []string{`tulle_probed_peers{state="well",way="fabric"} 5`, `tulle_probed_peers{state="unreachable",way="underlay"} 2`,
			`tulle_probed_peers{state="unknown",way="underlay"} 0`, `tulle_probes_lost_total{way="underlay"} 7`, "# TYPE tulle_probes_lost_total counter",
			`tulle_probe_duration_seconds_bucket{way="fabric",le="0.0001"} 1`, `tulle_probe_duration_seconds_bucket{way="fabric",le="1"} 3`, `tulle_probe_duration_seconds_bucket{way="fabric",le="+Inf"} 4`,
			`tulle_probe_duration_seconds_sum{way="fabric"} 2`, `tulle_probe_duration_seconds_count{way="underlay"} 0`}},
		{"paused", agent.Status{FastPath: &agent.FastPathStatus{FastPathState: ip.FastPathState{On: true, Paused: 1}}}, []string{"tulle_fast_path_on 0", "tulle_fast_path_admissions_total 0"}},
		{"before the first pass", agent.Status{}, []string{"tulle_ready 0", "tulle_lease_held 0", "tulle_peers 0", "tulle_fast_path_on 0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			Health(daemon{status: tt.status}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
			lines := strings.Split(w.Body.String(), "\n")
			if w.Code != http.StatusOK {
				t.Fatalf("code %d", w.Code)
			}
			for _, want := range append(tt.lines, "# TYPE tulle_invariant_violations_total counter", "# TYPE tulle_ready gauge") {
				if !slices.Contains(lines, want) {
					t.Errorf("no line %q in:\n%s", want, grep(lines, "tulle_"))
				}
			}
		})
	}
}

func grep(lines []string, part string) string {
	var found []string
	for _, l := range lines {
		if strings.Contains(l, part) {
			found = append(found, l)
		}
	}
	return strings.Join(found, "\n")
}
