package kernel_test

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// hostState is a host with one peer, made by us.
func hostState() ip.State {
	mac := ip.MAC{2, 0, 0, 0, 0, 3}
	peer := netip.MustParsePrefix("10.50.3.0/24")
	return ip.State{
		Links: []ip.Link{{
			Name: "flannel.1", MAC: ip.MAC{2, 0, 0, 0, 0, 1}, MTU: 1450, Up: true,
			Kind: ip.VXLAN{VNI: 1, Local: netip.MustParseAddr("192.0.2.1"), Port: 8472},
		}},
		Addrs:     []ip.Addr{{Link: "flannel.1", Prefix: netip.MustParsePrefix("10.50.1.0/32")}},
		FDB:       []ip.FDB{{Link: "flannel.1", MAC: mac, Dst: netip.MustParseAddr("192.0.2.9")}},
		Neighbors: []ip.Neighbor{{Link: "flannel.1", IP: peer.Addr(), MAC: mac}},
		Routes:    []ip.Route{{Dst: peer, Via: peer.Addr(), Link: "flannel.1", Metric: 7, Protocol: ip.Protocol, OnLink: true}},
	}
}

// TestHeals has somebody do to the host what Tulle never does, and checks that a pass sees it and puts it right.
func TestHeals(t *testing.T) {
	peer := &net.IPNet{IP: net.IPv4(10, 50, 3, 0).To4(), Mask: net.CIDRMask(24, 32)}
	flannelIndex := func(t *testing.T, w world) int { return w.link(t, "flannel.1").Attrs().Index }
	entry := func(t *testing.T, w world) *netlink.Neigh {
		return &netlink.Neigh{
			LinkIndex: flannelIndex(t, w), Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 3}, IP: net.IPv4(192, 0, 2, 9).To4(),
		}
	}
	for name, tamper := range map[string]func(t *testing.T, w world){
		"route deleted": func(t *testing.T, w world) {
			must(t, w.netlink.RouteDel(&netlink.Route{Dst: peer, LinkIndex: flannelIndex(t, w)}))
		},
		"route given an MTU": func(t *testing.T, w world) {
			w.run(t, "", "ip", "route", "change", "10.50.3.0/24", "via", "10.50.3.0", "dev", "flannel.1", "proto", "84", "metric", "7", "onlink", "mtu", "1300")
		},
		"route made multipath": func(t *testing.T, w world) {
			hop := netlink.NexthopInfo{LinkIndex: flannelIndex(t, w), Gw: peer.IP, Flags: int(netlink.FLAG_ONLINK)}
			must(t, w.netlink.RouteReplace(&netlink.Route{
				Dst: peer, Priority: 7, Protocol: ip.Protocol,
				MultiPath: []*netlink.NexthopInfo{&hop, {LinkIndex: flannelIndex(t, w), Gw: net.IPv4(10, 50, 4, 0).To4(), Flags: int(netlink.FLAG_ONLINK)}},
			}))
		},
		"multipath route added": func(t *testing.T, w world) {
			hop := netlink.NexthopInfo{LinkIndex: flannelIndex(t, w), Gw: peer.IP, Flags: int(netlink.FLAG_ONLINK)}
			must(t, w.netlink.RouteReplace(&netlink.Route{
				Dst: peer, Priority: 3, Protocol: unix.RTPROT_BOOT, MultiPath: []*netlink.NexthopInfo{&hop, &hop},
			}))
		},
		"forwarding entry moved": func(t *testing.T, w world) {
			e := entry(t, w)
			e.IP = net.IPv4(192, 0, 2, 66).To4()
			must(t, w.netlink.NeighSet(e))
		},
		"forwarding entry given a VNI": func(t *testing.T, w world) {
			e := entry(t, w)
			e.VNI = 99
			must(t, w.netlink.NeighSet(e))
		},
		"forwarding entry made to age": func(t *testing.T, w world) {
			e := entry(t, w)
			e.State = netlink.NUD_REACHABLE
			must(t, w.netlink.NeighSet(e))
		},
		"neighbour made to age": func(t *testing.T, w world) {
			must(t, w.netlink.NeighSet(&netlink.Neigh{
				LinkIndex: flannelIndex(t, w), IP: peer.IP, State: netlink.NUD_REACHABLE, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 3},
			}))
		},
		"address deleted": func(t *testing.T, w world) {
			must(t, w.netlink.AddrDel(w.link(t, "flannel.1"), &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 50, 1, 0).To4(), Mask: net.CIDRMask(32, 32)}}))
		},
		"link down and up": func(t *testing.T, w world) {
			must(t, w.netlink.LinkSetDown(w.link(t, "flannel.1")))
			must(t, w.netlink.LinkSetUp(w.link(t, "flannel.1")))
		},
		"link left down": func(t *testing.T, w world) { must(t, w.netlink.LinkSetDown(w.link(t, "flannel.1"))) },
		"link deleted":   func(t *testing.T, w world) { must(t, w.netlink.LinkDel(w.link(t, "flannel.1"))) },
		"link given another MAC": func(t *testing.T, w world) {
			must(t, w.netlink.LinkSetHardwareAddr(w.link(t, "flannel.1"), net.HardwareAddr{2, 0, 0, 0, 0, 66}))
		},
		"link is a bridge": func(t *testing.T, w world) {
			must(t, w.netlink.LinkDel(w.link(t, "flannel.1")))
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "flannel.1"
			must(t, w.netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
		},
		"link is steered from outside": func(t *testing.T, w world) {
			must(t, w.netlink.LinkDel(w.link(t, "flannel.1")))
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "flannel.1"
			must(t, w.netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, FlowBased: true, Port: 8472}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			want := hostState()
			must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, want)))
			tamper(t, w)
			plan := ip.Diff(snapshot(t, w.Kernel, podScope).Owned, want)
			if len(plan) == 0 {
				t.Fatal("nothing noticed")
			}
			if err := w.Kernel.Apply(t.Context(), plan); err != nil {
				t.Errorf("heal: %v", err)
			}
			if plan := ip.Diff(snapshot(t, w.Kernel, podScope).Owned, want); len(plan) != 0 {
				t.Errorf("left after healing:\n%s", plan)
			}
		})
	}
}

// TestAdoptsDevice reads a device as flanneld makes it, bound to the uplink and with a MAC of its own.
func TestAdoptsDevice(t *testing.T) {
	w := newWorld(t)
	w.AddInterface("up0", netip.MustParsePrefix("192.0.2.1/24"))
	want := hostState()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "flannel.1"
	attrs.HardwareAddr = want.Links[0].MAC[:]
	attrs.Flags = net.FlagUp
	must(t, w.netlink.LinkAdd(&netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: 1, VtepDevIndex: w.link(t, "up0").Attrs().Index, SrcAddr: net.IPv4(192, 0, 2, 1).To4(), Port: 8472,
	}))
	links := snapshot(t, w.Kernel, podScope).Owned.Links
	if len(links) != 1 || links[0] != want.Links[0] {
		t.Errorf("links = %+v, want %+v", links, want.Links)
	}
}

// TestOthersStay takes away everything that is Tulle's from a host where others have similar things.
func TestOthersStay(t *testing.T) {
	w := newWorld(t)
	w.AddInterface("up0", netip.MustParsePrefix("192.0.2.1/24"))
	up := w.link(t, "up0").Attrs().Index
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, hostState())))
	pods := &net.IPNet{IP: net.IPv4(10, 50, 9, 0).To4(), Mask: net.CIDRMask(24, 32)}
	must(t, w.netlink.RouteAdd(&netlink.Route{Dst: pods, LinkIndex: up, Protocol: unix.RTPROT_STATIC}))
	must(t, w.netlink.RouteAdd(&netlink.Route{Dst: pods, Priority: 3, Type: unix.RTN_BLACKHOLE, Protocol: ip.Protocol}))
	must(t, w.netlink.RouteAdd(&netlink.Route{Dst: pods, Priority: 4, LinkIndex: up, Table: 100, Protocol: ip.Protocol}))
	must(t, w.netlink.NeighSet(&netlink.Neigh{LinkIndex: up, IP: net.IPv4(10, 50, 9, 1).To4(), State: netlink.NUD_PERMANENT, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 66}}))
	must(t, w.netlink.AddrAdd(w.link(t, "up0"), &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 50, 9, 2).To4(), Mask: net.CIDRMask(32, 32)}}))
	must(t, w.netlink.AddrAdd(w.link(t, "flannel.1"), &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 60, 0, 1).To4(), Mask: net.CIDRMask(32, 32)}}))

	owned := snapshot(t, w.Kernel, podScope).Owned
	if !owned.Equal(hostState()) {
		t.Errorf("owned:\n%swant:\n%s", owned, hostState())
	}
	before := w.census(t)
	owned.Links = nil // the link would take along what others put on it
	keep := ip.State{}
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(owned, keep)))
	after := w.census(t)
	before.routes, before.neighbors, before.addrs = before.routes-1, before.neighbors-1, before.addrs-1
	if before != after {
		t.Errorf("left %+v, want %+v", after, before)
	}
}

// census counts what is in a namespace, whosever it is.
type census struct{ links, addrs, routes, neighbors int }

func (w world) census(t *testing.T) census {
	t.Helper()
	links, err := w.netlink.LinkList()
	must(t, err)
	addrs, err := w.netlink.AddrList(nil, netlink.FAMILY_V4)
	must(t, err)
	routes, err := w.netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	must(t, err)
	var elsewhere int
	for _, r := range routes {
		if r.Table != unix.RT_TABLE_LOCAL {
			elsewhere++
		}
	}
	neighbors, err := w.netlink.NeighList(0, netlink.FAMILY_V4)
	must(t, err)
	var permanent int
	for _, n := range neighbors {
		if n.State == netlink.NUD_PERMANENT {
			permanent++
		}
	}
	return census{len(links), len(addrs), elsewhere, permanent}
}

// What the kernel says of an address tells whether other hosts may be told of it.
func TestAddressesOfAnInterface(t *testing.T) {
	w := newWorld(t)
	w.AddInterface("up0", netip.MustParsePrefix("192.0.2.1/24"))
	link := w.link(t, "up0")
	for prefix, scope := range map[string]int{"192.0.2.77/32": unix.RT_SCOPE_HOST, "192.0.2.2/24": unix.RT_SCOPE_UNIVERSE} {
		addr, err := netlink.ParseAddr(prefix)
		must(t, err)
		addr.Scope = scope
		must(t, w.netlink.AddrAdd(link, addr))
	}
	must(t, w.netlink.RouteAdd(&netlink.Route{
		Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Gw: net.IPv4(192, 0, 2, 9), Src: net.IPv4(192, 0, 2, 2), LinkIndex: link.Attrs().Index,
	}))
	snap, err := w.Kernel.Snapshot(t.Context(), ip.Scope{})
	must(t, err)
	got := map[netip.Addr]ip.InterfaceAddr{}
	for _, i := range snap.Interfaces {
		for _, a := range i.Addrs {
			got[a.Prefix.Addr()] = a
		}
	}
	for _, want := range []ip.InterfaceAddr{
		{Prefix: netip.MustParsePrefix("192.0.2.1/24")},
		{Prefix: netip.MustParsePrefix("192.0.2.77/32"), Unusable: true},
		{Prefix: netip.MustParsePrefix("192.0.2.2/24"), Preferred: true},
	} {
		if a := got[want.Prefix.Addr()]; a != want {
			t.Errorf("%+v, want %+v", a, want)
		}
	}
}

// udev gives interfaces further names, by which operators know them.
func TestInterfacesHaveOtherNames(t *testing.T) {
	w := newWorld(t)
	w.AddInterface("up0", netip.MustParsePrefix("192.0.2.1/24"))
	must(t, w.netlink.LinkAddAltName(w.link(t, "up0"), "enp0s7"))
	snap, err := w.Kernel.Snapshot(t.Context(), ip.Scope{})
	must(t, err)
	if !slices.ContainsFunc(snap.Interfaces, func(i ip.Interface) bool { return i.Name == "up0" && slices.Equal(i.AltNames, []string{"enp0s7"}) }) {
		t.Errorf("interfaces %+v, want up0 with the other name enp0s7", snap.Interfaces)
	}
}

// TestRoutesOfOthersDiffer changes one thing of a route of another program at a time.
func TestRoutesOfOthersDiffer(t *testing.T) {
	w := newWorld(t)
	w.AddInterface("up0", netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::1/64"))
	_, err := w.Kernel.Lookup(t.Context(), []ip.Question{{Dst: netip.MustParseAddr("198.51.100.7")}, {Dst: netip.MustParseAddr("2001:db8:9::7")}}) // others are in no sum
	must(t, err)
	sums := map[uint64]string{snapshot(t, w.Kernel, podScope).Others.Sum: "none"}
	for _, route := range []string{
		"198.51.100.0/24 dev up0", "198.51.100.0/24 dev up0 src 192.0.2.2", "198.51.100.0/24 dev up0 tos 0x10", "198.51.100.0/24 dev up0 metric 5",
		"198.51.100.0/24 nexthop via 192.0.2.8 dev up0 nexthop via 192.0.2.9 dev up0", "2001:db8:9::/48 dev up0", "2001:db8:9::/48 from 2001:db8::/64 dev up0",
	} {
		w.run(t, "", "ip", append([]string{"route", "add"}, strings.Fields(route)...)...)
		sum := snapshot(t, w.Kernel, podScope).Others.Sum
		if other, found := sums[sum]; found {
			t.Errorf("%s is the same as %s", route, other)
		}
		sums[sum] = route
		w.run(t, "", "ip", append([]string{"route", "del"}, strings.Fields(route)...)...)
	}
}
