package decision

import (
	"net/netip"
	"slices"
	"testing"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

func TestFastLinks(t *testing.T) {
	prefix := netip.MustParsePrefix
	link := func(name, kind, addr string) ip.Interface {
		return ip.Interface{Name: name, Kind: kind, Addrs: []ip.InterfaceAddr{{Prefix: prefix(addr)}}}
	}
	in := Inputs{
		Options: Options{FastPath: true, FastPathExclude: []netip.Prefix{prefix("10.5.9.0/24")}},
		Host:    backend.Host{Uplink: ip.Uplink{Link: "eth0"}},
		Self:    subnet.Lease{Subnets: subnet.Subnets{V4: prefix("10.5.1.0/24"), V6: prefix("fc00:5:0:1::/64")}},
		Kernel: ip.Snapshot{Interfaces: []ip.Interface{
			link("eth0", "", "172.30.0.1/24"), link("docker0", "bridge", "172.17.0.1/16"), link("flannel.1", "vxlan", "10.5.1.0/32"),
			link("cni0", "bridge", "10.5.1.1/24"), link("br-0123456789ab", "bridge", "fc00:5:0:1::1/64"), link("veth1", "veth", "10.5.1.9/32"),
		}},
	}
	route := func(dst, over string) ip.Route { return ip.Route{Dst: prefix(dst), Link: over} }
	want := ip.State{
		Links:  []ip.Link{{Name: "flannel.1", Kind: ip.VXLAN{VNI: 1}}},
		Routes: []ip.Route{route("10.5.2.0/24", "flannel.1"), route("10.5.3.0/24", "eth1"), route("10.5.4.0/24", "flannel.1"), route("10.5.5.0/24", "eth1"), route("10.5.6.0/24", "eth0")},
	}
	got := FastLinks(in, want)
	if !slices.Equal(got.Bridges, []string{"br-0123456789ab", "cni0"}) || !slices.Equal(got.Uplinks, []string{"eth0", "eth1"}) ||
		!slices.Equal(got.Subnets, []netip.Prefix{in.Self.Subnets.V4, in.Self.Subnets.V6}) || !slices.Equal(got.Exclude, in.Options.FastPathExclude) || got.Peers.Len() != 0 {
		t.Errorf("%+v", got)
	}
}
