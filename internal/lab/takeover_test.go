//go:build linux

package lab_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"tulle/internal/lab"
	"tulle/ip"
)

// tulled takes a host over from flanneld while traffic flows: same subnet, same
// devices, no packet lost, nothing of flanneld left.
func TestTakeoverFromFlanneld(t *testing.T) {
	both := ip.Families()
	for _, test := range []struct {
		name     string
		families []ip.Family
		rules    func(*flanneld, *testing.T)
	}{
		{"ipv4 with iptables", both[:1], (*flanneld).addIPTables},
		{"dual with iptables", both[:], (*flanneld).addIPTables},
		{"dual with iptables-legacy", both[:], (*flanneld).addLegacy},
		{"dual with nftables", both[:], (*flanneld).addNFTables},
	} {
		t.Run(test.name, func(t *testing.T) { takeOver(t, test.families, test.rules) })
	}
}

func takeOver(t *testing.T, families []ip.Family, addRules func(*flanneld, *testing.T)) {
	ctx := t.Context()
	l := newLab(t, lab.Config{Hosts: 2, Containers: 1, Families: families})
	if err := l.Etcd.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := l.Configure(ctx); err != nil {
		t.Fatal(err)
	}
	host, peer := l.Hosts[0], l.Hosts[1]
	old := newFlanneld(t, l, host)
	old.lease(t)
	if err := peer.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := peer.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	old.connect(t, peer)
	addRules(old, t)
	if err := l.StartContainers(ctx); err != nil {
		t.Fatal(err)
	}
	requireMatrix(t, l)

	var streams []runningStream
	for _, family := range families {
		streams = append(streams, startStream(t, host, peer, family, 100), startStream(t, peer, host, family, 100))
	}
	before := old.identity(t)
	if err := host.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := host.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	var leftovers string
	if !eventually(5*time.Second, func() bool {
		leftovers = old.leftovers(t, peer)
		return leftovers == ""
	}) {
		t.Errorf("left of flanneld:\n%s", leftovers)
	}
	<-time.After(outageTime)
	stopAll(t, streams)
	if diff := cmp.Diff(before, old.identity(t)); diff != "" {
		t.Errorf("subnet or devices, before (-) and after (+), differ:\n%s", diff)
	}
	requireMatrix(t, l)

	// It stays so: the adopted MAC survives a restart and the loss of the device.
	if err := host.StopDaemon(); err != nil {
		t.Error(err)
	}
	for _, family := range families {
		if err := host.DeleteLink(old.device(family)); err != nil {
			t.Error(err)
		}
	}
	if err := host.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := host.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, old.identity(t)); diff != "" {
		t.Errorf("subnet or devices, before (-) and after a restart without them (+), differ:\n%s", diff)
	}
	requireMatrix(t, l)
}

// identity is what must stay as it was: subnet and MACs.
func (f *flanneld) identity(t *testing.T) map[string]string {
	t.Helper()
	identity := make(map[string]string)
	env, err := f.host.ReadSubnetFile()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range f.lab.Config.Families {
		identity[family.String()] = env.Gateway(family).String()
		mac, err := f.host.LinkMAC(f.device(family))
		if err != nil {
			t.Fatal(err)
		}
		identity[f.device(family)] = mac.String()
	}
	return identity
}

// leftovers lists what only flanneld can have made.
func (f *flanneld) leftovers(t *testing.T, peer *lab.Host) string {
	t.Helper()
	var found []string
	for _, family := range f.lab.Config.Families {
		for line := range strings.SplitSeq(f.run(t, family, "-nft-save")+f.run(t, family, "-legacy-save"), "\n") {
			if strings.Contains(line, "FLANNEL") {
				found = append(found, line)
			}
		}
		routes, err := f.host.RoutesTo(peer, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, route := range routes {
			if route.Protocol == protocolBoot {
				found = append(found, route.String())
			}
		}
		if len(routes) != 1 {
			found = append(found, "not one route to the peer: "+routesText(routes))
		}
	}
	tables, err := f.host.Tables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if strings.Contains(table, "flannel") {
			found = append(found, "table "+table)
		}
	}
	return strings.Join(found, "\n")
}

func routesText(routes []netlink.Route) string {
	texts := make([]string, len(routes))
	for i, route := range routes {
		texts[i] = route.String()
	}
	return strings.Join(texts, "; ")
}
