package kernel_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"tulle/ip"
)

// manyPeers is the state of a host with n peers over VXLAN.
func manyPeers(n int) ip.State {
	s := hostState()
	s.FDB, s.Neighbors, s.Routes = nil, nil, nil
	guard := ip.Guard{
		Family: ip.IPv4, VNI: 1, Port: 8472, Link: "flannel.1", Uplink: "up0", Network: netip.MustParsePrefix("10.48.0.0/13"), Bits: 30,
	}
	for i := range n {
		mac := ip.MAC{2, 1}
		binary.BigEndian.PutUint32(mac[2:], uint32(i))
		pods := netip.AddrFrom4([4]byte{10, 51 + byte(i>>14), byte(i >> 6), byte(i << 2)})
		host := netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})
		guard.Peers = append(guard.Peers, ip.Peer{Addr: host}, ip.Peer{Addr: host, Subnet: netip.PrefixFrom(pods, 30)})
		s.FDB = append(s.FDB, ip.FDB{Link: "flannel.1", MAC: mac, Dst: host})
		s.Neighbors = append(s.Neighbors, ip.Neighbor{Link: "flannel.1", IP: pods, MAC: mac})
		s.Routes = append(s.Routes, ip.Route{
			Dst: netip.PrefixFrom(pods, 30), Via: pods, Link: "flannel.1", Metric: uint32(i + 1), Protocol: ip.Protocol, OnLink: true,
		})
	}
	s.Guards = []ip.Guard{guard}
	s.Sort()
	return s
}

func benchmarkScope() ip.Scope {
	scope := podScope
	scope.Networks = []netip.Prefix{netip.MustParsePrefix("10.48.0.0/13")}
	return scope
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			plan := ip.Diff(ip.State{}, manyPeers(n))
			undo := ip.Plan{{Verb: ip.Delete, Old: manyPeers(0).Links[0]}, {Verb: ip.Delete, Old: manyPeers(0).Guards[0]}}
			for b.Loop() {
				must(b, w.Kernel.Apply(b.Context(), plan))
				b.StopTimer()
				must(b, w.Kernel.Apply(b.Context(), undo))
				b.StartTimer()
			}
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			want := manyPeers(n)
			must(b, w.Kernel.Apply(b.Context(), ip.Diff(ip.State{}, want)))
			scope := benchmarkScope()
			for i := range n {
				scope.Paths = append(scope.Paths, want.FDB[i].Dst)
			}
			b.ReportAllocs()
			for b.Loop() {
				if got := snapshot(b, w.Kernel, scope).Owned; len(got.Routes) != n || len(got.FDB) != n || len(got.Neighbors) != n || len(got.Guards[0].Peers) != 2*n {
					b.Fatalf("read %d routes, %d forwarding entries, %d neighbours, want %d", len(got.Routes), len(got.FDB), len(got.Neighbors), n)
				}
			}
		})
	}
}

// BenchmarkFirstSnapshot is what a start reads, in which nothing is known of how much there is.
func BenchmarkFirstSnapshot(b *testing.B) {
	w, want := newWorld(b), manyPeers(10_000)
	must(b, w.Kernel.Apply(b.Context(), ip.Diff(ip.State{}, want)))
	b.ReportAllocs()
	for b.Loop() {
		if got := snapshot(b, open(b, w.ns), benchmarkScope()).Owned; len(got.Routes) != len(want.Routes) {
			b.Fatalf("read %d routes, want %d", len(got.Routes), len(want.Routes))
		}
	}
}

// BenchmarkFilters reads a chain of another program, with ten thousand rules.
func BenchmarkFilters(b *testing.B) {
	const n = 10_000
	w := newWorld(b)
	var rules strings.Builder
	rules.WriteString("table ip fw {\nchain base {\ntype filter hook forward priority 0; policy accept;\n")
	for i := range n {
		fmt.Fprintf(&rules, "ip saddr 172.%d.%d.0/24 tcp dport %d counter drop\n", i>>8, i&255, 1+i)
	}
	rules.WriteString("}\n}\n")
	w.run(b, rules.String(), "nft", "-f", "-")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		w.run(b, fmt.Sprintf("add table ip other%d\n", i), "nft", "-f", "-") // what was read before holds no more
		b.StartTimer()
		filters := snapshot(b, w.Kernel, benchmarkScope()).Filters
		if len(filters) != 1 || len(filters[0].Rules) != n {
			b.Fatalf("read %d chains, want one with %d rules", len(filters), n)
		}
	}
}

// BenchmarkLookup asks what becomes of a packet to each of ten thousand peers.
func BenchmarkLookup(b *testing.B) {
	const n = 10_000
	w := newWorld(b)
	want := manyPeers(n)
	must(b, w.Kernel.Apply(b.Context(), ip.Diff(ip.State{}, want)))
	questions := make([]ip.Question, n)
	for i, r := range want.Routes {
		questions[i].Dst = r.Dst.Addr().Next()
	}
	b.ReportAllocs()
	for b.Loop() {
		answers, err := w.Kernel.Lookup(b.Context(), questions)
		must(b, err)
		if last := answers[n-1]; last.Gateway != want.Routes[n-1].Via {
			b.Fatalf("the last one goes %s", last)
		}
	}
}

// BenchmarkGuard makes the guard of ten thousand peers, reads it, and takes one peer in and out; with the check of inner sources and
// without.
func BenchmarkGuard(b *testing.B) {
	checked := manyPeers(10_000).Guards[0]
	for name, guard := range map[string]ip.Guard{"checked": checked, "unchecked": checked.Unchecked()} {
		w := newWorld(b)
		want := ip.State{Guards: []ip.Guard{guard}}
		b.Run(name+"/make", func(b *testing.B) {
			for b.Loop() {
				must(b, w.Kernel.Apply(b.Context(), ip.Diff(ip.State{}, want)))
			}
		})
		b.Run(name+"/read", func(b *testing.B) {
			for b.Loop() {
				snapshot(b, w.Kernel, podScope)
			}
		})
		b.Run(name+"/change", func(b *testing.B) {
			gone := ip.State{Guards: []ip.Guard{guard}}
			gone.Guards[0].Peers = guard.Peers[:len(guard.Peers)-2]
			out, in := ip.Diff(want, gone), ip.Diff(gone, want)
			for b.Loop() {
				must(b, w.Kernel.Apply(b.Context(), out))
				must(b, w.Kernel.Apply(b.Context(), in))
			}
		})
	}
}

// TestManyPeers applies and reads back a large state, over many batches.
func TestManyPeers(t *testing.T) {
	w := newWorld(t)
	want := manyPeers(2_000)
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, want)))
	owned := snapshot(t, w.Kernel, benchmarkScope()).Owned
	if !owned.Equal(want) {
		t.Errorf("%d ops would turn what was read back into what was applied", len(ip.Diff(owned, want)))
	}
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(owned, ip.State{})))
	if left := snapshot(t, w.Kernel, benchmarkScope()).Owned; !left.Equal(ip.State{}) {
		t.Errorf("left:\n%s", left)
	}
}

// TestConcurrentUse has everything happen at once, for the race detector.
func TestConcurrentUse(t *testing.T) {
	w := newWorld(t)
	want := manyPeers(100)
	must(t, w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, want)))
	startWatch(t, w.Kernel)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 20 {
				owned := snapshot(t, w.Kernel, benchmarkScope()).Owned
				if err := w.Kernel.Apply(t.Context(), ip.Diff(ip.State{}, ip.State{Routes: owned.Routes, Tables: []ip.Table{forwardTable()}})); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}
