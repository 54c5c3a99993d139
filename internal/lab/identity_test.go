//go:build linux

package lab_test

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/internal/lab"
	"tulle/internal/trouble"
	"tulle/ip"
)

// A host that claims the identity of a live one gets nothing, and its operator
// is told whose identity it is.
//
//	h1 (lives, holds A)      h2 (claims to be h1)      h3 (has h1's address)
func TestClonesAreDistinguished(t *testing.T) {
	l := newLab(t, lab.Config{
		Hosts: 3, Containers: 1, Families: []ip.Family{ip.IPv4},
		DaemonArgs: func(host *lab.Host) []string {
			switch host.Name {
			case "h2":
				return []string{"--node-id", "h1"}
			case "h3":
				return []string{"--public-ip", "172.30.1.1"}
			}
			return nil
		},
	})
	for _, step := range []func() error{
		func() error { return l.Etcd.Start(t.Context()) },
		func() error { return l.Configure(t.Context()) },
		func() error { return l.Hosts[0].StartDaemon() },
		func() error { return l.Hosts[0].WaitReady(t.Context()) },
		func() error { return l.Hosts[1].StartDaemon() },
		func() error { return l.Hosts[2].StartDaemon() },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	first, err := l.Hosts[0].ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	before, err := l.Etcd.Get(t.Context(), l.Etcd.Key("subnets/"))
	if err != nil {
		t.Fatal(err)
	}
	subnet := first.Subnets.V4.String()
	for _, clone := range []struct {
		host  *lab.Host
		field string
	}{
		{l.Hosts[1], "node id h1"},
		{l.Hosts[2], "public address 172.30.1.1"},
	} {
		var reason string
		reported := eventually(10*time.Second, func() bool {
			_, reason = clone.host.Ready(t.Context())
			return strings.Contains(reason, clone.field)
		})
		for _, want := range []string{"h1", "172.30.1.1", strings.Replace(subnet, "/", "-", 1)} {
			reported = reported && strings.Contains(reason, want)
		}
		if !reported {
			t.Errorf("%s says %q, want it to name %s, node h1 at 172.30.1.1 and %s", clone.host, reason, clone.field, subnet)
		}
		if _, err := clone.host.ReadSubnetFile(); err == nil {
			t.Errorf("%s wrote a subnet file", clone.host)
		}
	}
	var status daemonStatus
	if !eventually(30*time.Second, func() bool {
		if err := l.Hosts[0].Status(t.Context(), &status); err != nil {
			t.Fatal(err)
		}
		claimed := strings.Join(status.Troubles.Texts(trouble.LeaseClaimed), "\n")
		return status.Ready && strings.Contains(claimed, "another machine at 172.30.1.2 claims this host's node id h1") && strings.Contains(claimed, "node h3 at 172.30.1.1 claims this host's public address")
	}) {
		t.Errorf("h1 is not told who claims what is its own: %+v", status)
	}
	after, err := l.Etcd.Get(t.Context(), l.Etcd.Key("subnets/"))
	if err != nil {
		t.Fatal(err)
	}
	if len(before) != 1 || len(after) != 1 {
		t.Errorf("leases %v, then %v, want h1's alone", before, after)
	}
	for key, value := range before {
		if after[key] != value {
			t.Errorf("the lease of h1 was %s and is %s", value, after[key])
		}
	}

	// The owner gone, a host with its node id is the same machine come back. So would be one with its address, since
	// the lab's hosts share this machine's hardware.
	l.Hosts[2].KillDaemon()
	l.Hosts[0].KillDaemon()
	if err := l.Hosts[1].WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	heir, err := l.Hosts[1].ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	if heir.Subnets != first.Subnets {
		t.Errorf("the returning node holds %s, want its subnet %s", heir.Subnets.V4, first.Subnets.V4)
	}
}

// A host that comes back to its own lease goes on with it, whatever keys were put beside it meanwhile.
func TestStrayLeasesDoNotLockOut(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1, Families: []ip.Family{ip.IPv4}})
	host := l.Hosts[1]
	first, err := host.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	const lease = `{"PublicIP":%q,"PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:c8"},"Tulle":{"Node":%q,"Instance":"stray","Hardware":["elsewhere"]}}`
	keys := map[string]string{
		l.Etcd.Key("subnets/10.244.254.0-24"): fmt.Sprintf(lease, "172.30.1.200", "h2"),
		l.Etcd.Key("subnets/10.244.253.0-24"): fmt.Sprintf(lease, "172.30.1.2", "other"),
	}
	streams := ring(t, l, ip.IPv4, 500)
	for key, value := range keys {
		if err := l.Etcd.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	for _, when := range []string{"while it runs", "after a restart"} {
		if when == "after a restart" {
			if err := host.StopDaemon(); err != nil {
				t.Fatal(err)
			}
			if err := host.StartDaemon(); err != nil {
				t.Fatal(err)
			}
			if err := host.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		awaitProblems(t, host, slices.Collect(maps.Keys(keys)))
		status := tulle(t, l, host, "status")
		for key := range keys {
			if remedy := "tulle leases release '" + path.Base(key) + "'"; !strings.Contains(status, remedy) {
				t.Errorf("%s, tulle status does not say %q:\n%s", when, remedy, status)
			}
		}
	}
	stopAll(t, streams)
	requireMatrix(t, l)
	if again, err := host.ReadSubnetFile(); err != nil || again.Subnets != first.Subnets {
		t.Errorf("after the restart %s holds %v, %v, want %v", host, again.Subnets, err, first.Subnets)
	}
}
