package iptest

import (
	"net/netip"
	"syscall"

	"tulle/ip"
)

// guarded is a guard with some peers, and another one of its family.
func (x fixture) guarded() (g ip.Guard, more ip.Peer) {
	g = ip.Guard{Family: x.family, VNI: 1, Port: 8472, Peers: []ip.Peer{{Addr: x.fdb.Dst}, {Addr: x.gateway}}}
	return g, ip.Peer{Addr: x.gateway.Next()}
}

func (s *suite) guards() {
	guard, more := s.guarded()
	has := func(want ...ip.Guard) {
		s.Helper()
		s.owned(ip.State{Guards: want})
	}
	with := func(peers ...ip.Peer) ip.Guard {
		g := guard
		g.Peers = peers
		return g
	}
	a, b := guard.Peers[0], guard.Peers[1]
	s.apply(add(more), syscall.ENOENT)
	s.apply(del(more), nil)
	s.apply(add(guard), nil)
	has(guard)
	s.apply(add(guard), nil)
	has(guard)

	for range 2 { // the second time, there is nothing to do
		s.apply(add(more), nil)
		has(with(a, b, more))
	}
	for range 2 {
		s.apply(del(a), nil)
		has(with(b, more))
	}
	s.must(s.Kernel, add(a), del(b), add(b), del(more), del(more))
	has(guard)
	s.must(s.Kernel, del(a), del(more), del(b)) // of which one is not there
	has(with())
	s.apply(replace(with(), guard), nil)
	has(guard)

	other := with(more)
	other.VNI, other.Port = 1<<24-1, 4789
	s.must(s.Other, replace(guard, other))
	has(other)
	s.apply(del(other), nil)
	has()
	s.apply(del(other), nil)
}

// strangers has packets arrive, and looks which of them are dropped.
func (s *suite) strangers() {
	guard, more := s.guarded()
	s.AddInterface(uplinkName, s.uplink)
	dropped := uint64(0)
	knock := func(from netip.Addr, port uint16, vni uint32, drops bool) {
		s.Helper()
		s.Knock(uplinkName, from, netip.AddrPortFrom(s.uplink.Addr(), port), vni)
		if drops {
			dropped++
		}
		if got := s.snapshot(s.scope()).Strangers; got != dropped {
			s.Errorf("after a packet from %s to port %d for VNI %d, %d were dropped, want %d", from, port, vni, got, dropped)
		}
	}
	knock(more.Addr, guard.Port, guard.VNI, false)
	s.apply(add(guard), nil)
	knock(more.Addr, guard.Port, guard.VNI, true)
	knock(guard.Peers[0].Addr, guard.Port, guard.VNI, false)
	knock(more.Addr, guard.Port+1, guard.VNI, false) // what is not Tulle's is left alone
	knock(more.Addr, guard.Port, guard.VNI+1, false)
	s.apply(add(more), nil)
	knock(more.Addr, guard.Port, guard.VNI, false)
	s.apply(del(guard.Peers[0]), nil)
	knock(guard.Peers[0].Addr, guard.Port, guard.VNI, true)
	s.apply(del(guard), nil)
	dropped = 0
	knock(more.Addr, guard.Port, guard.VNI, false)
}
