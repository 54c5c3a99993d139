package decision

import (
	"fmt"
	"net/netip"
	"testing"

	"tulle/backend"
	"tulle/internal/backends"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// inputs is a host among n others, of which every third is on its segment.
func inputs(t *testing.T, config string, n int) Inputs {
	t.Helper()
	network, _, err := flannel.ParseNetwork([]byte(config), 1)
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := backend.Open(backends.All(), network)
	if err != nil {
		t.Fatal(err)
	}
	in := Inputs{Network: &network, Backend: b, Options: Options{IPMasq: true, PeerFilter: true, SourceCheck: true}}
	lease := func(i int) *subnet.Lease {
		l := &subnet.Lease{Created: subnet.Revision(i), Revision: subnet.Revision(i)}
		l.Subnets.V4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 24)
		l.Attrs = subnet.Attrs{Node: fmt.Sprint("h", i), BackendType: network.Backend.Type}
		l.Attrs.Public.V4 = netip.AddrFrom4([4]byte{172, 30, 0, byte(i)})
		l.Attrs.BackendData.V4 = fmt.Appendf(nil, `{"VNI":1,"VtepMAC":"02:00:00:00:00:%02x"}`, i)
		return l
	}
	in.Self = *lease(1)
	in.Host.Uplink = ip.Uplink{Link: "eth0", MTU: 1500}
	in.Host.Uplink.Addr.V4, in.Host.Uplink.Public.V4 = in.Self.Attrs.Public.V4, in.Self.Attrs.Public.V4
	in.Host.Paths = map[netip.Addr]ip.Path{}
	for i := 2; i < n+2; i++ {
		l := lease(i)
		in.Usable = append(in.Usable, l)
		path := ip.Path{Link: "eth0"}
		if i%3 != 0 {
			path.Gateway = netip.MustParseAddr("172.30.0.254")
		}
		in.Host.Paths[l.Attrs.Public.V4] = path
	}
	in.Leases = in.Usable
	bridge := netip.PrefixFrom(in.Self.Subnets.V4.Addr().Next(), 24)
	in.Kernel.Interfaces = []ip.Interface{{Name: "cni0", MTU: 1450, Up: true, Addrs: []ip.InterfaceAddr{{Prefix: bridge}}}}
	return in
}

func configs() map[string]string {
	return map[string]string{
		"vxlan":  `{"Network":"10.5.0.0/16"}`,
		"direct": `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}`,
	}
}

// What is decided for some leases alone is their part of what is decided for all.
func TestPeersIsAPartOfDecide(t *testing.T) {
	for name, config := range configs() {
		in := inputs(t, config, 12)
		all := Decide(in).Want
		for i := range in.Usable {
			one, without := in, in
			one.Usable = in.Usable[i : i+1]
			without.Usable = append(append([]*subnet.Lease(nil), in.Usable[:i]...), in.Usable[i+1:]...)
			part, unserved := Peers(one)
			none := in
			none.Usable = nil
			nobody, _ := Peers(none)
			got := Decide(without).Want
			got.Exchange(nobody, part)
			if len(unserved) > 0 || !got.Equal(all) {
				t.Errorf("%s: without lease %d and with its part (%v):\n%swant:\n%s", name, i, unserved, got, all)
			}
		}
	}
}

func TestDecideChangesNothingThatItIsGiven(t *testing.T) {
	for name, config := range configs() {
		in := inputs(t, config, 12)
		first := Decide(in)
		if second := Decide(in); !second.Want.Equal(first.Want) {
			t.Errorf("%s: the second time it wants\n%safter\n%s", name, second.Want, first.Want)
		}
		if len(first.Unserved) > 0 || len(first.Want.Routes) != len(in.Usable) {
			t.Errorf("%s: %d routes, unserved %v", name, len(first.Want.Routes), first.Unserved)
		}
	}
}

// Routes name the sizes that arrive, in a decision for all peers as in one for some, and nothing else differs.
func TestRoutesNameSizes(t *testing.T) {
	for name, config := range configs() {
		in := inputs(t, config, 6)
		plain := Decide(in)
		narrow := in.Usable[2].Subnets.V4
		in.RouteMTUs = map[netip.Prefix]int{narrow: 1300, netip.MustParsePrefix("10.5.99.0/24"): 1400}
		all := Decide(in)
		in.Usable = in.Usable[2:4]
		some, _ := Peers(in)
		for what, routes := range map[string][]ip.Route{"all": all.Want.Routes, "some": some.Routes} {
			n := 0
			for _, r := range routes {
				if r.MTU != 0 {
					n++
				}
				if r.Dst == narrow && r.MTU != 1300 {
					t.Errorf("%s, %s: %+v", name, what, r)
				}
			}
			if n != 1 {
				t.Errorf("%s, %s: %d routes name a size", name, what, n)
			}
		}
		if plan := ip.Diff(plain.Want, all.Want); len(plan) != 1 {
			t.Errorf("%s: besides\n%s", name, plan)
		}
	}
}
