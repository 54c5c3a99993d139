package ip

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// fastState is a state with n peers of a VXLAN device, one neighbour on the uplink and one that is reached by other means.
func fastState(n int) State {
	s := State{Links: []Link{
		{Name: "flannel.1", MAC: MAC{2, 0, 0, 0, 0, 1}, MTU: 1450, Kind: VXLAN{VNI: 1, Port: 8472, Local: netip.MustParseAddr("172.30.0.1")}},
		{Name: "flannel.ipip", MTU: 1480, Kind: IPIP{}},
	}}
	for i := range n {
		dst, via := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5 + byte(i>>8), byte(i), 0}), 24), netip.AddrFrom4([4]byte{172, 31, byte(i >> 8), byte(i)})
		mac := MAC{2, 0, 0, 1, byte(i >> 8), byte(i)}
		s.Routes = append(s.Routes, Route{Dst: dst, Via: dst.Addr(), Link: "flannel.1", OnLink: true})
		s.Neighbors = append(s.Neighbors, Neighbor{Link: "flannel.1", IP: dst.Addr(), MAC: mac})
		s.FDB = append(s.FDB, FDB{Link: "flannel.1", MAC: mac, Dst: via})
	}
	s.Routes = append(s.Routes,
		Route{Dst: netip.MustParsePrefix("10.250.0.0/24"), Via: netip.MustParseAddr("172.30.0.9"), Link: "eth0"},
		Route{Dst: netip.MustParsePrefix("10.251.0.0/24"), Via: netip.MustParseAddr("172.30.0.10"), Link: "flannel.ipip"})
	s.Sort()
	return s
}

func TestFastPathOf(t *testing.T) {
	own, exclude := []netip.Prefix{netip.MustParsePrefix("10.5.200.0/24")}, []netip.Prefix{netip.MustParsePrefix("10.5.1.0/24")}
	got := FastPathOf(fastState(3), []string{"eth0"}, []string{"cni0"}, own, exclude)
	narrow := fastState(4)
	narrow.Routes[3].MTU = 1300
	if diff := cmp.Diff(got.Peers.Sorted(), FastPathOf(narrow, []string{"eth0"}, []string{"cni0"}, own, exclude).Peers.Sorted(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("with a narrow route more (-want +got)\n%s", diff)
	}
	link := fastState(0).Links[0]
	vxlan := link.Kind.(VXLAN)
	peer := func(subnet, remote string, mac byte) FastPeer {
		return FastPeer{Subnet: netip.MustParsePrefix(subnet), Link: "flannel.1", Remote: netip.MustParseAddr(remote), MAC: MAC{2, 0, 0, 1, 0, mac}}
	}
	want := FastPath{Bridges: []string{"cni0"}, Uplinks: []string{"eth0"}, Subnets: own, Exclude: exclude, Devices: []FastDevice{
		{Name: "flannel.1", Local: vxlan.Local, Tunnel: vxlan.Tunnel(), MAC: link.MAC, MTU: 1450},
	}, Peers: FastPeersOf(
		peer("10.5.2.0/24", "172.31.0.2", 2), peer("10.5.0.0/24", "172.31.0.0", 0),
		FastPeer{Subnet: netip.MustParsePrefix("10.250.0.0/24"), Link: "eth0", Remote: netip.MustParseAddr("172.30.0.9")},
	)}
	if diff := cmp.Diff(want, got, cmp.Transformer("sorted", FastPeers.Sorted), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if !got.SameLinks(want) || got.SameLinks(FastPath{Bridges: got.Bridges}) {
		t.Error("SameLinks does not compare the links")
	}
}

// Peers that come and go leave what is derived from the whole, and nobody else's copy changes.
func TestFastPathExchange(t *testing.T) {
	whole := fastState(200)
	of := func(s State) FastPath { return FastPathOf(s, []string{"eth0"}, nil, nil, nil) }
	part := func(from, to int) State {
		s := fastState(to)
		less := fastState(from)
		s.Routes = slices.DeleteFunc(s.Routes, func(r Route) bool { return slices.Contains(less.Routes, r) })
		return s
	}
	all := of(whole)
	kept := all.Peers.Sorted()
	fewer := all.Exchange(of(part(50, 200)), FastPath{})
	if want := of(fastState(50)); !fewer.Equal(want) || fewer.Peers.Len() != want.Peers.Len() {
		t.Errorf("%d peers, want %d", fewer.Peers.Len(), want.Peers.Len())
	}
	again := fewer.Exchange(FastPath{}, of(part(50, 200)))
	if !again.Equal(all) || !slices.Equal(again.Peers.Sorted(), kept) || !slices.Equal(all.Peers.Sorted(), kept) {
		t.Error("peers that came back are not what they were, or those of others have changed")
	}
	if none := again.Exchange(all, FastPath{}); none.Peers.Len() != 0 || !none.Peers.Equal(FastPeers{}) || !none.Peers.Shares(FastPeers{}) {
		t.Errorf("%d peers after all have gone", none.Peers.Len())
	}
}

// Changed finds what differs, whatever two sets share.
func TestFastPeersChanged(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	prefixes := func(n int) (all []FastPeer) {
		for range n {
			subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(random.IntN(100)), 0}), 24)
			all = append(all, FastPeer{Subnet: subnet, Remote: netip.AddrFrom4([4]byte{172, 31, 0, byte(random.IntN(3))})})
		}
		slices.SortFunc(all, compareFastPeer)
		return slices.Compact(all)
	}
	for range 500 {
		one := FastPeersOf(prefixes(40)...)
		two := one.Exchange(FastPeersOf(prefixes(20)...), FastPeersOf(prefixes(20)...))
		if random.IntN(4) == 0 {
			two = FastPeersOf(two.Sorted()...) // shares nothing
		}
		before, after := one.Sorted(), two.Sorted()
		var gone, new []FastPeer
		for _, p := range before {
			if !slices.ContainsFunc(after, func(o FastPeer) bool { return o.Subnet == p.Subnet }) {
				gone = append(gone, p)
			}
		}
		for _, p := range after {
			if !slices.Contains(before, p) {
				new = append(new, p)
			}
			if !slices.Contains(two.Of(p.Subnet), p) {
				t.Fatalf("%v is not among those of its subnet, %v", p, two.Of(p.Subnet))
			}
		}
		haveGone, haveNew := one.Changed(two)
		slices.SortFunc(haveGone, compareFastPeer)
		slices.SortFunc(haveNew, compareFastPeer)
		if !slices.Equal(haveGone, gone) || !slices.Equal(haveNew, new) {
			t.Fatalf("from %v to %v %v went and %v came, want %v and %v", before, after, haveGone, haveNew, gone, new)
		}
		if same := slices.Equal(before, after); one.Equal(two) != same || two.Len() != len(after) {
			t.Fatalf("%v and %v: equal is %t, there are %d", before, after, !same, two.Len())
		}
	}
}

// BenchmarkFastPath is what a full pass pays where something is wanted that was not, and an incremental one.
func BenchmarkFastPath(b *testing.B) {
	whole := fastState(10_000)
	one := State{Links: whole.Links, Routes: whole.Routes[5000:5001], Neighbors: whole.Neighbors[5000:5001], FDB: whole.FDB[5000:5001]}
	all := FastPathOf(whole, []string{"eth0"}, nil, nil, nil)
	b.Run("whole", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			FastPathOf(whole, []string{"eth0"}, nil, nil, nil)
		}
	})
	b.Run("exchange", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			part := FastPathOf(one, []string{"eth0"}, nil, nil, nil)
			all.Exchange(part, part)
		}
	})
}
