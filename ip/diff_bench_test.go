package ip_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"tulle/ip"
)

// BenchmarkDiff compares the state of a host with n peers with an empty one, with itself, with one that lacks every
// tenth peer, and with one in which every peer has moved.
func BenchmarkDiff(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		full := peers(n, func(int) bool { return true }, 0)
		for _, test := range []struct {
			name string
			have ip.State
			ops  int
		}{
			{"empty", ip.State{}, 3 * n},
			{"same", full, 0},
			{"tenth", peers(n, func(i int) bool { return i%10 != 0 }, 0), 3 * n / 10},
			{"moved", peers(n, func(int) bool { return true }, 1), n},
		} {
			b.Run(fmt.Sprintf("%s/%d", test.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if plan := ip.Diff(test.have, full); len(plan) != test.ops {
						b.Fatalf("%d ops, want %d", len(plan), test.ops)
					}
				}
			})
		}
	}
}

// peers is the sorted state of a host with those of n peers that are there; all of them have moved to another host by shift.
func peers(n int, there func(i int) bool, shift byte) ip.State {
	var s ip.State
	for i := range n {
		if !there(i) {
			continue
		}
		mac := ip.MAC{2, 1}
		binary.BigEndian.PutUint32(mac[2:], uint32(i))
		pods := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0})
		host := netip.AddrFrom4([4]byte{172, 16 + shift, byte(i >> 8), byte(i)})
		s.FDB = append(s.FDB, ip.FDB{Link: "flannel.1", MAC: mac, Dst: host})
		s.Neighbors = append(s.Neighbors, ip.Neighbor{Link: "flannel.1", IP: pods, MAC: mac})
		s.Routes = append(s.Routes, ip.Route{
			Dst: netip.PrefixFrom(pods, 24), Via: pods, Link: "flannel.1", Metric: uint32(i + 1), Protocol: ip.Protocol, OnLink: true,
		})
	}
	s.Sort()
	return s
}
