package hostgw

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

// open is the backend of a dual-stack network.
func open(t *testing.T) backend.Backend {
	t.Helper()
	n := subnet.Network{Backend: subnet.Backend{Type: Name, Options: json.RawMessage(`{"Type":"host-gw"}`)}}
	n.Pools.V4 = subnet.Pool{Network: netip.MustParsePrefix("10.5.0.0/16"), SubnetLen: 24}
	n.Pools.V6 = subnet.Pool{Network: netip.MustParsePrefix("fc00:5::/48"), SubnetLen: 64}
	b, warnings, err := New(n)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	return b
}

func addrs(n int) ip.Dual[netip.Addr] {
	return ip.Dual[netip.Addr]{V4: netip.AddrFrom4([4]byte{172, 30, 0, byte(n)}), V6: netip.MustParseAddr(fmt.Sprintf("fd30::%x", n))}
}

func host() backend.Host {
	h := backend.Host{Node: "h1", Uplink: ip.Uplink{Link: "eth0", MTU: 1500, Addr: addrs(1), Public: addrs(1)}, Paths: map[netip.Addr]ip.Path{}}
	for n := 2; n < 5; n++ {
		h.Paths[addrs(n).V4], h.Paths[addrs(n).V6] = ip.Path{Link: "eth0"}, ip.Path{Link: "eth0"}
	}
	return h
}

func lease(n int) *subnet.Lease {
	l := &subnet.Lease{Attrs: subnet.Attrs{Public: addrs(n), BackendType: Name}}
	l.Subnets.V4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(n), 0}), 24)
	l.Subnets.V6 = netip.MustParsePrefix(fmt.Sprintf("fc00:5:0:%x::/64", n))
	return l
}

func TestPlanReadsAsCommands(t *testing.T) {
	h := host()
	h.Paths[addrs(3).V6] = ip.Path{Link: "eth0", Gateway: netip.MustParseAddr("fd30::fe")}
	delete(h.Paths, addrs(4).V4)
	only4 := lease(2)
	only4.Subnets.V6 = netip.Prefix{}
	s, problems := open(t).Plan(h, *lease(1), []*subnet.Lease{only4, lease(3), lease(4)})
	got := s.String()
	for _, r := range s.Routes {
		got = strings.ReplaceAll(got, fmt.Sprintf("metric %d", r.Metric), "metric M")
	}
	want := `ip route replace 10.5.2.0/24 via 172.30.0.2 dev eth0 proto 84 metric M
ip route replace 10.5.3.0/24 via 172.30.0.3 dev eth0 proto 84 metric M
ip -6 route replace fc00:5:0:4::/64 via fd30::4 dev eth0 proto 84 metric M
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	wantProblems := []subnet.Problem{
		{Key: "10.5.4.0-24&fc00:5:0:4::-64", Reason: "this host has no route to its public address 172.30.0.4"},
		{Key: "10.5.3.0-24&fc00:5:0:3::-64", Reason: "its public address fd30::3 lies behind the gateway fd30::fe: host-gw needs all hosts on one L2; use vxlan with DirectRouting"},
	}
	if diff := cmp.Diff(wantProblems, problems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

// A link that resolves no addresses takes no notice of gateways: what is for a peer's containers would be lost there.
func TestUplinkWithoutARP(t *testing.T) {
	h := host()
	h.Paths[addrs(2).V4] = ip.Path{Link: "wg0", NoARP: true}
	s, problems := open(t).Plan(h, *lease(1), []*subnet.Lease{lease(2)})
	if len(s.Routes) != 1 || s.Routes[0].Dst != lease(2).Subnets.V6 {
		t.Errorf("routes %v, want the one by IPv6", s.Routes)
	}
	if len(problems) != 1 || !strings.Contains(problems[0].Reason, "over wg0, which resolves no addresses") {
		t.Errorf("problems %v, want one with wg0", problems)
	}
}

func TestScopeAsksForThePathToEveryPeer(t *testing.T) {
	paths := open(t).Scope([]*subnet.Lease{lease(2), lease(3)}).Paths
	for _, want := range []netip.Addr{addrs(2).V4, addrs(2).V6, addrs(3).V4, addrs(3).V6} {
		if !slices.Contains(paths, want) {
			t.Errorf("paths %v lack %v", paths, want)
		}
	}
}

func TestAdvertise(t *testing.T) {
	h := host()
	attrs, err := open(t).Advertise(h, subnet.Attrs{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(subnet.Attrs{Public: addrs(1), BackendType: "host-gw"}, attrs, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	h.Uplink.Public.V4 = netip.MustParseAddr("203.0.113.1")
	if _, err := open(t).Advertise(h, subnet.Attrs{}); err == nil || !strings.Contains(err.Error(), "203.0.113.1 is not on eth0 (172.30.0.1)") {
		t.Errorf("behind NAT: %v, want an error with both addresses", err)
	}
}
