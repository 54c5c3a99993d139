package iptest

import (
	"fmt"
	"net/netip"
	"syscall"

	"tulle/ip"
)

// guarded is a guard with some peers, and another one of its family.
func (x fixture) guarded() (g ip.Guard, more ip.Peer) {
	g = ip.Guard{
		Family: x.family, VNI: x.tunnel.VNI, Port: x.tunnel.Port, IPIP: x.tunnel.IPIP, Link: linkName, Uplink: "up0", Network: x.network,
		Peers: []ip.Peer{{Addr: x.fdb.Dst}, {Addr: x.gateway}},
	}
	return g, ip.Peer{Addr: x.gateway.Next()}
}

// overIPIP runs a test over IPIP, which is for IPv4 only.
func overIPIP(run func(*suite)) func(*suite) {
	return func(s *suite) {
		if s.tunnel = (ip.Tunnel{IPIP: true}); s.family == ip.IPv4 {
			run(s)
		}
	}
}

// checked is the guard with a subnet for its first peer, and another peer's.
func (x fixture) checked() (g ip.Guard, more ip.Peer) {
	g, more = x.guarded()
	g.Bits = x.route.Dst.Bits()
	g.Peers = []ip.Peer{g.Peers[0], {Addr: g.Peers[0].Addr, Subnet: x.route.Dst}, g.Peers[1]}
	more.Subnet = netip.PrefixFrom(x.addr.Prefix.Addr(), g.Bits)
	return g, more
}

func member(p ip.Peer) ip.Member { return ip.Member{Peer: p} }

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
	s.apply(add(member(more)), syscall.ENOENT)
	s.apply(del(member(more)), nil)
	s.apply(add(guard), nil)
	has(guard)
	s.apply(add(guard), nil)
	has(guard)

	for range 2 { // the second time, there is nothing to do
		s.apply(add(member(more)), nil)
		has(with(a, b, more))
	}
	for range 2 {
		s.apply(del(member(a)), nil)
		has(with(b, more))
	}
	s.must(s.Kernel, add(member(a)), del(member(b)), add(member(b)), del(member(more)), del(member(more)))
	has(guard)
	s.must(s.Kernel, del(member(a)), del(member(more)), del(member(b))) // of which one is not there
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

// networks has tables of two networks beside each other.
func (s *suite) networks() {
	one, more := s.guarded()
	two := one
	two.Net, two.VNI, two.Peers = "two", 2, nil
	table := ip.Table{Family: s.family, Rules: []ip.Rule{{Chain: ip.Forward, Src: ip.Match{Prefix: s.network}, Verdict: ip.Accept}}}
	second := ip.Table{Net: "two", Family: s.family, Rules: []ip.Rule{{Chain: ip.Forward, Dst: ip.Match{Prefix: s.network}, Verdict: ip.Accept}}}
	s.must(s.Kernel, add(one), add(table), add(two), add(second))
	s.owned(ip.State{Guards: []ip.Guard{one, two}, Tables: []ip.Table{table, second}})

	s.must(s.Kernel, add(ip.Member{Net: "two", Peer: more}), del(member(one.Peers[0])))
	s.apply(add(ip.Member{Net: "three", Peer: more}), syscall.ENOENT)
	one.Peers, two.Peers = one.Peers[1:], []ip.Peer{more}
	s.owned(ip.State{Guards: []ip.Guard{one, two}, Tables: []ip.Table{table, second}})

	s.AddInterface(uplinkName, s.uplink)
	for _, g := range []ip.Guard{one, two} {
		s.Knock(uplinkName, one.Peers[0].Addr, s.uplink.Addr(), g.Tunnel(), s.near.IP)
	}
	s.drops("a packet of a peer of the other network", ip.Drops{})
	if by := s.snapshot(s.scope()).Drops["two"].Of(s.family); by != (ip.Drops{Strangers: 1}) {
		s.Errorf("of the second network, dropped are %+v, want one packet", by)
	}

	s.must(s.Kernel, del(one), del(table))
	s.owned(ip.State{Guards: []ip.Guard{two}, Tables: []ip.Table{second}})
	s.must(s.Kernel, del(two), del(second))
	s.owned(ip.State{})
}

// drops looks how many packets have been dropped.
func (s *suite) drops(what string, want ip.Drops) {
	s.Helper()
	if by := s.snapshot(s.scope()).Drops[""]; by.V4.Plus(by.V6) != want {
		s.Errorf("after %s, dropped are %+v, want %+v", what, by, want)
	}
}

// strangers has packets arrive, and looks which of them are dropped.
func (s *suite) strangers() {
	guard, more := s.guarded()
	s.AddInterface(uplinkName, s.uplink)
	var dropped ip.Drops
	knock := func(from netip.Addr, tunnel ip.Tunnel, drops bool) {
		s.Helper()
		s.Knock(uplinkName, from, s.uplink.Addr(), tunnel, s.near.IP)
		if drops {
			dropped.Strangers++
		}
		s.drops(fmt.Sprintf("a packet from %s of %+v", from, tunnel), dropped)
	}
	knock(more.Addr, s.tunnel, false)
	s.apply(add(guard), nil)
	s.owned(ip.State{Guards: []ip.Guard{guard}})
	knock(more.Addr, s.tunnel, true)
	knock(guard.Peers[0].Addr, s.tunnel, false)
	others := []ip.Tunnel{{VNI: 1, Port: 8472}} // what is not Tulle's is left alone
	if !s.tunnel.IPIP {
		others = []ip.Tunnel{{VNI: s.tunnel.VNI, Port: s.tunnel.Port + 1}, {VNI: s.tunnel.VNI + 1, Port: s.tunnel.Port}}
	}
	for _, other := range others {
		knock(more.Addr, other, false)
	}
	s.apply(add(member(more)), nil)
	knock(more.Addr, s.tunnel, false)
	s.apply(del(member(guard.Peers[0])), nil)
	knock(guard.Peers[0].Addr, s.tunnel, true)
	s.apply(del(guard), nil)
	dropped = ip.Drops{}
	knock(more.Addr, s.tunnel, false)
}

// forged has packets arrive from peers, and looks at those inside.
func (s *suite) forged() {
	guard, more := s.checked()
	host, other := guard.Peers[0].Addr, guard.Peers[2].Addr
	s.AddInterface(uplinkName, s.uplink)
	s.apply(add(guard), nil)
	s.owned(ip.State{Guards: []ip.Guard{guard}})
	var dropped ip.Drops
	knock := func(from, inner netip.Addr, drop *uint64) {
		s.Helper()
		s.Knock(uplinkName, from, s.uplink.Addr(), s.tunnel, inner)
		if drop != nil {
			*drop++
		}
		s.drops(fmt.Sprintf("a packet from %s with one from %s in it", from, inner), dropped)
	}
	last, outside := ip.Last(s.route.Dst), ip.Last(s.route.Dst).Next()
	for _, inner := range []netip.Addr{s.route.Dst.Addr(), last} {
		knock(host, inner, nil)
		knock(other, inner, &dropped.Forged)
		knock(more.Addr, inner, &dropped.Strangers)
	}
	foreign := ip.Dual[netip.Addr]{V4: netip.IPv6LinkLocalAllNodes(), V6: netip.AddrFrom4([4]byte{10, 50, 3, 1})}.Of(s.family)
	for _, inner := range []netip.Addr{outside, s.route.Dst.Addr().Prev(), host, s.uplink.Addr(), more.Subnet.Addr(), foreign} {
		knock(host, inner, &dropped.Forged)
	}
	s.must(s.Kernel, add(member(more)), add(member(ip.Peer{Addr: more.Addr})), del(member(guard.Peers[1])))
	knock(more.Addr, more.Subnet.Addr(), nil)
	knock(more.Addr, last, &dropped.Forged)
	knock(host, last, &dropped.Forged)
	want := guard
	want.Peers = []ip.Peer{guard.Peers[0], guard.Peers[2], {Addr: more.Addr}, more}
	s.owned(ip.State{Guards: []ip.Guard{want}})
	s.must(s.Kernel, add(member(guard.Peers[1])), del(member(more)), del(member(more)), del(member(ip.Peer{Addr: more.Addr})))
	s.owned(ip.State{Guards: []ip.Guard{guard}})
	s.apply(replace(guard, guard.Unchecked()), nil)
	s.owned(ip.State{Guards: []ip.Guard{guard.Unchecked()}})
	s.apply(add(member(more)), syscall.ENOENT)
}

// spoofed has packets come in that are for elsewhere.
func (s *suite) spoofed() {
	const in = "up1"
	s.AddInterface(uplinkName, s.uplink)
	s.AddInterface(in, netip.PrefixFrom(s.addr.Prefix.Addr().Next(), s.route.Dst.Bits()))
	s.apply(add(ip.Sysctl{Key: ip.Dual[string]{V4: "net/ipv4/ip_forward", V6: "net/ipv6/conf/all/forwarding"}.Of(s.family), Value: "1"}), nil)
	own := netip.PrefixFrom(s.addr.Prefix.Addr(), s.route.Dst.Bits())
	table := ip.Table{Family: s.family, Rules: []ip.Rule{
		{Chain: ip.Forward, Dst: ip.Match{Prefix: s.network, Not: true}, Verdict: ip.Accept},
		{Chain: ip.Forward, In: in, Src: ip.Match{Prefix: own}, Verdict: ip.Accept},
		{Chain: ip.Forward, In: in, Unrouted: true, Verdict: ip.DropSpoof},
	}}
	s.apply(add(table), nil)
	s.owned(ip.State{Tables: []ip.Table{table}})
	s.apply(add(ip.Route{Dst: s.route.Dst, Via: s.gateway, Link: uplinkName, Metric: 5, Protocol: ip.Protocol, OnLink: true}), nil)
	behind := ip.Dual[netip.Prefix]{V4: netip.MustParsePrefix("198.51.100.0/24"), V6: netip.MustParsePrefix("2001:db8:7::/48")}.Of(s.family)
	s.apply(add(ip.Route{Dst: behind, Via: own.Addr().Next().Next(), Link: in, Metric: 5, Protocol: ip.Protocol, OnLink: true}), nil)
	var dropped ip.Drops
	forward := func(src, dst netip.Addr, drop bool) {
		s.Helper()
		s.Forward(in, src, dst)
		if drop {
			dropped.Spoofed++
		}
		s.drops(fmt.Sprintf("a packet from %s to %s", src, dst), dropped)
	}
	forward(ip.Last(own).Prev(), s.near.IP, false)
	forward(behind.Addr().Next(), s.near.IP, false)
	forward(s.gateway.Next(), s.near.IP, true)
	forward(ip.Last(s.route.Dst).Prev(), s.near.IP, true)
	forward(ip.Last(own).Next().Next(), s.near.IP, true)
	forward(s.gateway.Next(), s.gateway, false)
	s.apply(replace(table, ip.Table{Family: s.family, Rules: table.Rules[1:]}), nil)
	dropped = ip.Drops{}
	forward(s.gateway.Next(), s.gateway, true)
}
