package ipip

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
	"tulle/subnet/flannel"
)

func open(t *testing.T, options string) backend.Backend {
	t.Helper()
	n, warnings, err := flannel.ParseNetwork([]byte(`{"Network":"10.5.0.0/16","Backend":`+options+`}`), 1)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	b, warnings, err := New(n)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	return b
}

func addr(n int) ip.Dual[netip.Addr] {
	return ip.Dual[netip.Addr]{V4: netip.AddrFrom4([4]byte{172, 30, 0, byte(n)})}
}

// host has h2 beside it and h3 behind a router.
func host() backend.Host {
	up := ip.Uplink{Link: "eth0", MTU: 1500, Addr: addr(1), Public: addr(1)}
	return backend.Host{Node: "h1", Uplink: up, Paths: map[netip.Addr]ip.Path{
		addr(2).V4: {Link: "eth0"}, addr(3).V4: {Link: "eth0", Gateway: addr(254).V4},
	}}
}

func lease(n int) *subnet.Lease {
	l := &subnet.Lease{Attrs: subnet.Attrs{Public: addr(n), BackendType: Name}}
	l.Subnets.V4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(n), 0}), 24)
	return l
}

func TestPlanReadsAsCommands(t *testing.T) {
	other := lease(4)
	other.Attrs.BackendType = "vxlan"
	const device = `ip link add flannel.ipip mtu 1480 type ipip local 172.30.0.1 ttl inherit nopmtudisc
ip link set dev flannel.ipip up
ip address add 10.5.1.0/32 dev flannel.ipip
`
	for options, routes := range map[string]string{
		`{"Type":"ipip"}`: `ip route replace 10.5.2.0/24 via 172.30.0.2 dev flannel.ipip proto 84 metric M onlink
ip route replace 10.5.3.0/24 via 172.30.0.3 dev flannel.ipip proto 84 metric M onlink
`,
		`{"Type":"ipip","DirectRouting":true}`: `ip route replace 10.5.2.0/24 via 172.30.0.2 dev eth0 proto 84 metric M
ip route replace 10.5.3.0/24 via 172.30.0.3 dev flannel.ipip proto 84 metric M onlink
`,
	} {
		s, problems := open(t, options).Plan(host(), *lease(1), []*subnet.Lease{lease(2), lease(3), other})
		guards := s.Guards
		s.Guards = nil
		got := s.String()
		for _, r := range s.Routes {
			got = strings.ReplaceAll(got, fmt.Sprintf("metric %d", r.Metric), "metric M")
		}
		if diff := cmp.Diff(device+routes, got); diff != "" {
			t.Errorf("%s: plan (-want +got):\n%s", options, diff)
		}
		want := ip.Guard{Family: ip.IPv4, IPIP: true, Link: "flannel.ipip", Uplink: "eth0", Network: netip.MustParsePrefix("10.5.0.0/16"), Bits: 24}
		for _, n := range []int{2, 3} {
			want.Peers = append(want.Peers, ip.Peer{Addr: addr(n).V4}, ip.Peer{Addr: addr(n).V4, Subnet: lease(n).Subnets.V4})
		}
		if len(guards) != 1 || !guards[0].Equal(want) {
			t.Errorf("%s: guards %+v, want %+v", options, guards, want)
		}
		wantProblems := []subnet.Problem{{Key: "10.5.4.0-24", Reason: `its backend is "vxlan", this network's is "ipip"`}}
		if diff := cmp.Diff(wantProblems, problems); diff != "" {
			t.Errorf("%s: problems (-want +got):\n%s", options, diff)
		}
	}
}

// The device sends from the uplink's own address, and peers send to the public one.
func TestBehindNAT(t *testing.T) {
	b, h := open(t, `{"Type":"ipip"}`), host()
	h.Uplink.Public.V4 = netip.MustParseAddr("203.0.113.1")
	attrs, err := b.Advertise(h, subnet.Attrs{})
	if err != nil {
		t.Fatal(err)
	}
	if text, err := json.Marshal(flannel.Attrs(attrs)); err != nil || string(text) != `{"PublicIP":"203.0.113.1","PublicIPv6":null,"BackendType":"ipip"}` {
		t.Errorf("lease %s, %v", text, err)
	}
	s, _ := b.Plan(h, *lease(1), nil)
	if got := s.Links[0].Kind.Source(); got != addr(1).V4 {
		t.Errorf("device sends from %v", got)
	}
}

func TestScope(t *testing.T) {
	peers := []*subnet.Lease{lease(2), lease(3)}
	for options, paths := range map[string][]netip.Addr{`{"Type":"ipip"}`: nil, `{"Type":"ipip","DirectRouting":true}`: {addr(2).V4, addr(3).V4}} {
		s := open(t, options).Scope(peers)
		if !slices.Equal(s.Links, []string{"flannel.ipip"}) || !slices.Equal(s.Kinds, []string{"ipip"}) || !slices.Equal(s.Paths, paths) {
			t.Errorf("%s: scope %+v", options, s)
		}
	}
}

func TestRefusals(t *testing.T) {
	refused := func(what, want string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	for _, text := range []string{
		`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"ipip"}}`,
		`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"ipip"}}`,
	} {
		n, _, err := flannel.ParseNetwork([]byte(text), 1)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = New(n)
		refused(text, "leave IPv6 out", err)
	}
	b, h := open(t, `{"Type":"ipip"}`), host()
	h.Lacks = map[string]bool{"ipip": true}
	_, err := b.Advertise(h, subnet.Attrs{})
	refused("a kernel without ipip", "load the module ipip (modprobe ipip)", err)
	_, err = b.MTU(ip.Uplink{Link: "eth0", MTU: 590})
	refused("a small MTU", "raise the MTU of eth0", err)
	if mtu, err := b.MTU(ip.Uplink{Link: "eth0", MTU: 1500}); mtu != 1480 || err != nil {
		t.Errorf("MTU %d, %v", mtu, err)
	}
}
