//go:build linux

package bench

import (
	"slices"
	"testing"

	"tulle/ip"
)

func TestMissed(t *testing.T) {
	families := ip.Families()
	fine := Control{Config: Config{Backend: "vxlan", Families: families[:1], Peers: 10_000}, Family: "ipv4", Floor: Figure{Median: 1}}
	fine.Cold.Median, fine.Cold.Requests, fine.Idle.Requests = 0.8, map[string]float64{"Watch": 1}, map[string]float64{"LeaseKeepAlive": 2}
	slow := fine
	slow.Cold.Median, slow.Cold.Apply.Median, slow.Warm.Changes, slow.Idle.Requests = 0.9, 1.6, 3, map[string]float64{"Range": 1}
	busy := fine
	busy.ForeignRoutes, busy.VethChurn = 2000, 50
	busy.Foreign, busy.Veths = &Load{Seconds: 31, CPU: 0.04, Others: 1900}, &Load{Seconds: 31, CPU: 0.02, Others: 22}
	dual := slow
	dual.Families, dual.Family, dual.Cold.Apply.Median, dual.Warm.Changes = families[:], "dual", 1, 0
	fleet := Fleet{FleetConfig: FleetConfig{Hosts: 1000}, Failed: 2}
	fleet.Known.Samples, fleet.Change.Samples, fleet.Restart.Samples = 1000, 999, 1000
	const who = "vxlan, ipv4, 10000 peers: "
	for _, tt := range []struct {
		name   string
		missed []string
		want   []string
	}{
		{"all met", fine.Missed(), nil},
		{"missed", slow.Missed(), []string{
			who + "cold start is 0.9, want at most 0.8", who + "kernel changes by the floor is 1.6, want at most 1.5",
			who + "kernel changes by a warm restart: 3, want none", who + "requests at rest: Range: 1, want none",
		}},
		{"beside others", busy.Missed(), []string{
			who + "CPU under foreign routes is 0.04, want at most 0.03", who + "changes per second under veth churn is 22, want at least 45",
		}},
		{"two families have a limit of their own", dual.Missed(), []string{"vxlan, dual, 10000 peers: requests at rest: Range: 1, want none"}},
		{"no target", Control{Config: Config{Peers: 7}, Cold: Start{Figure: Figure{Median: 100}}}.Missed(), nil},
		{"fleet", fleet.Missed(), []string{"1000 hosts: hosts without a lease: 2, want none", "1000 hosts: hosts that did not learn of one change: 1, want none"}},
	} {
		if !slices.Equal(tt.missed, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, tt.missed, tt.want)
		}
	}
	for _, peers := range []int{1_000, 10_000, 50_000} {
		if _, ok := targets(peers); !ok {
			t.Errorf("no targets for %d peers", peers)
		}
	}
}
