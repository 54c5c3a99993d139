//go:build linux

package lab_test

import (
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// Another host has the subnet of h1 by now. Under either policy h1 says so and
// its containers go on talking to each other.
func TestSubnetLoss(t *testing.T) {
	for _, policy := range []string{"hold", "renumber"} {
		t.Run(policy, func(t *testing.T) {
			l := upLab(t, lab.Config{
				Hosts: 2, Containers: 2, Families: []ip.Family{ip.IPv4},
				DaemonArgs: func(*lab.Host) []string { return []string{"--on-subnet-loss", policy} },
			})
			ctx := t.Context()
			host := l.Hosts[0]
			before, err := host.ReadSubnetFile()
			if err != nil {
				t.Fatal(err)
			}
			local, err := lab.StartStream(ctx, lab.StreamConfig{From: host.Containers[0], To: host.Containers[1], Family: ip.IPv4, PerSecond: 1000})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { local.Stop() })
			key := l.Etcd.Key("subnets/" + subnet.KeyOf(before.Subnets))
			if err := l.Etcd.Put(ctx, key, `{"PublicIP":"172.30.1.99","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:99"},"Tulle":{"Node":"thief"}}`); err != nil {
				t.Fatal(err)
			}
			var status lossStatus
			if !eventually(10*time.Second, func() bool {
				return host.Status(ctx, &status) == nil && strings.Contains(strings.Join(status.Troubles.Texts(trouble.LeaseLost, trouble.LeaseRenumbered), ""), "thief at 172.30.1.99") && status.Ready == (policy == "renumber")
			}) {
				t.Errorf("status %+v, want the thief", status)
			}
			after, err := host.ReadSubnetFile()
			if err != nil {
				t.Fatal(err)
			}
			if renumbered := after.Subnets != before.Subnets; renumbered != (policy == "renumber") || status.Networks.held() != renumbered {
				t.Errorf("subnet %s, was %s; status %+v", after.Subnets.V4, before.Subnets.V4, status)
			}
			if stale := status.Troubles.Texts(trouble.BridgeStale); policy == "renumber" && (len(stale) != 1 || !strings.HasPrefix(stale[0], "cni0 holds")) {
				t.Errorf("stale %q, want the bridge", stale)
			}
			<-time.After(outageTime)
			stopAll(t, []runningStream{{name: "on " + host.Name, Stream: local}})
			if policy == "hold" {
				if err := l.Etcd.Delete(ctx, key); err != nil {
					t.Fatal(err)
				}
				if err := host.WaitReady(ctx); err != nil {
					t.Fatal(err)
				}
				requireMatrix(t, l)
			}
		})
	}
}

type lossStatus struct {
	Ready    bool
	Troubles trouble.List
	Networks networkStatuses
}
