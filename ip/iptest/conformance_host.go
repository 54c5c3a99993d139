package iptest

import (
	"net/netip"
	"slices"
	"syscall"
	"time"

	"tulle/ip"
)

const uplinkName = "up0"

// direct is a route to a peer's containers through the uplink.
func (s *suite) direct() ip.Route {
	return ip.Route{Dst: s.route.Dst, Via: s.gateway, Link: uplinkName, Metric: 5, Protocol: ip.Protocol}
}

func (s *suite) gateways() {
	route := s.direct()
	s.apply(add(route), syscall.ENODEV)
	s.AddInterface(uplinkName, s.uplink)
	s.apply(add(route), nil)
	s.owned(ip.State{Routes: []ip.Route{route}})

	astray := route
	astray.Dst, astray.Via = ip.Host(ip.Last(s.network)), s.near.IP
	s.apply(add(astray), s.unreachable())
	astray.OnLink = true
	s.apply(add(astray), nil)
	crooked := route
	crooked.Dst = netip.PrefixFrom(ip.Last(s.route.Dst), s.route.Dst.Bits())
	if s.family == ip.IPv4 {
		s.apply(add(crooked), syscall.EINVAL)
	} else {
		s.apply(add(crooked), nil) // the kernel cuts off what sticks out
	}
	local := route
	local.Via, local.OnLink = s.uplink.Addr(), true
	s.apply(add(local), syscall.EINVAL)
	s.owned(ip.State{Routes: []ip.Route{route, astray}})
}

func (s *suite) uplinkDown() {
	s.AddInterface(uplinkName, s.uplink)
	s.create(s.all())
	route := s.direct()
	s.must(s.Kernel, add(route))
	s.SetInterface(uplinkName, false)
	s.owned(s.all()) // the device is bound to no other, and stays
	s.apply(add(route), s.unreachable())
	route.OnLink = true
	s.apply(add(route), syscall.ENETDOWN)
	s.SetInterface(uplinkName, true)
	s.owned(s.all())
}

// rerouted moves a route between the uplink and our link, as happens when a peer comes into reach.
func (s *suite) rerouted() {
	s.AddInterface(uplinkName, s.uplink)
	s.create(s.all())
	for _, metric := range []uint32{s.route.Metric, s.route.Metric - 1} {
		route := s.direct()
		route.Metric = metric
		direct := s.all()
		direct.Routes = []ip.Route{route}
		s.must(s.Kernel, ip.Diff(s.all(), direct)...)
		s.owned(direct)
		if s.family == ip.IPv6 {
			// Another route to the gateway is in the way, onlink or not: see ip.Diff for what helps.
			s.apply(replace(route, s.route), syscall.EINVAL)
		}
		s.must(s.Kernel, ip.Diff(direct, s.all())...)
		s.owned(s.all())
	}
}

// unreachable is the error for a gateway to which there is no way.
func (s *suite) unreachable() error {
	if s.family == ip.IPv4 {
		return syscall.ENETUNREACH
	}
	return syscall.EHOSTUNREACH
}

func (s *suite) sysctls() {
	host := ip.Sysctl{Key: "net/ipv4/ip_forward", Value: "1"}
	onLink := ip.Sysctl{Key: "net/ipv6/conf/" + linkName + "/accept_ra", Value: "0", Link: linkName}
	scope := s.scope()
	scope.Sysctls = []ip.Sysctl{{Key: host.Key}, {Key: onLink.Key, Link: linkName}}

	s.apply(add(onLink), syscall.ENOENT)
	s.apply(add(host), nil)
	s.same(s.snapshot(scope).Owned, ip.State{Sysctls: []ip.Sysctl{host}})
	if fixed := s.snapshot(scope).Fixed; len(fixed) > 0 {
		s.Errorf("settings that can be written are said to be fixed: %v", fixed)
	}
	s.create(ip.State{Links: []ip.Link{s.link}, Sysctls: []ip.Sysctl{onLink}})
	s.same(s.snapshot(scope).Owned, ip.State{Links: []ip.Link{s.link}, Sysctls: []ip.Sysctl{host, onLink}})
	onLink.Value, host.Value = "2", "0"
	s.apply(replace(onLink, onLink), nil)
	s.apply(replace(host, host), nil)
	s.same(s.snapshot(scope).Owned, ip.State{Links: []ip.Link{s.link}, Sysctls: []ip.Sysctl{host, onLink}})
	s.apply(del(s.link), nil)
	s.same(s.snapshot(scope).Owned, ip.State{Sysctls: []ip.Sysctl{host}})
}

// forwarding is switched on and off for the host and for each of its links. Of IPv4, a link does as the host does until told otherwise, and what the
// host is told anew holds for all links.
func (s *suite) forwarding() {
	s.AddInterface(uplinkName, s.uplink)
	host := ip.ForwardingSetting(ip.IPv4)
	scope := s.scope()
	scope.Sysctls = []ip.Sysctl{{Key: host.Key}, ip.LinkSetting(ip.IPv4, ip.EachLink, "forwarding", "")}
	is := func(onHost, onLink, onUplink string) {
		s.Helper()
		want := ip.State{Sysctls: []ip.Sysctl{
			{Key: host.Key, Value: onHost}, ip.LinkSetting(ip.IPv4, linkName, "forwarding", onLink), ip.LinkSetting(ip.IPv4, uplinkName, "forwarding", onUplink),
		}}
		want.Sort()
		s.same(ip.State{Sysctls: s.snapshot(scope).Owned.Sysctls}, want)
	}
	off, onLink := host, ip.LinkSetting(ip.IPv4, linkName, "forwarding", "0")
	off.Value = "0"
	s.create(ip.State{Links: []ip.Link{s.link}})
	s.apply(add(off), nil)
	is("0", "0", "0")
	s.apply(add(host), nil)
	is("1", "1", "1")
	s.apply(add(onLink), nil)
	is("1", "0", "1")
	s.apply(replace(host, host), nil)
	is("1", "0", "1")
	s.apply(add(off), nil)
	s.apply(add(host), nil)
	is("1", "1", "1")
}

// table is what Tulle keeps in nftables.
func (x fixture) table() ip.Table {
	network := ip.Match{Prefix: x.network}
	not := func(m ip.Match) ip.Match { m.Not = true; return m }
	return ip.Table{Family: x.family, Rules: []ip.Rule{
		{Chain: ip.Forward, Src: network, Verdict: ip.Accept},
		{Chain: ip.Forward, Dst: network, Verdict: ip.Accept},
		{Chain: ip.Keeping, Src: network, Dst: network, Verdict: ip.KeepSource},
		{Chain: ip.Postrouting, Src: network, Dst: network, Verdict: ip.Accept},
		{Chain: ip.Postrouting, Src: network, Dst: not(ip.Match{Prefix: x.family.Multicast()}), Verdict: ip.Masquerade},
		{Chain: ip.Postrouting, Src: not(network), Dst: ip.Match{Prefix: x.addr.Prefix}, Verdict: ip.Masquerade},
		{Chain: ip.Postrouting, Verdict: ip.Accept},
		{Chain: ip.Marking, In: linkName, Src: network, Dst: ip.Match{Prefix: x.route.Dst}, Verdict: ip.SetMark},
		{Chain: ip.Marking, Verdict: ip.SetMark},
		{Chain: ip.Forward, In: uplinkName, Verdict: ip.Accept},
		{Chain: ip.Postrouting, Mark: ip.KubeMark, Verdict: ip.Accept},
		{Chain: ip.Postrouting, Mark: ip.Mark, In: linkName, Dst: network, Verdict: ip.Masquerade},
	}}
}

func (s *suite) tables() {
	table := s.table()
	has := func(want ...ip.Table) {
		s.Helper()
		got := s.snapshot(s.scope()).Owned.Tables
		if len(got) != len(want) || len(got) == 1 && !got[0].Equal(want[0]) {
			s.Errorf("tables = %+v, want %+v", got, want)
		}
	}
	s.apply(add(table), nil)
	has(table)
	s.apply(add(table), nil)
	has(table)

	shorter := ip.Table{Family: s.family, Rules: table.Rules[1:4]}
	s.must(s.Other, replace(table, shorter))
	has(shorter)
	s.apply(replace(shorter, table), nil)
	has(table)
	empty := ip.Table{Family: s.family}
	s.apply(replace(table, empty), nil)
	has(empty)
	s.apply(del(empty), nil)
	has()
	s.apply(del(empty), nil)
	has()
}

func (s *suite) foreign() {
	s.AddInterface(uplinkName, s.uplink)
	s.create(s.all())
	theirs := s.direct()
	theirs.Protocol, theirs.Metric = 4, 20
	local := theirs
	local.Via, local.Metric = netip.Addr{}, 30
	outside := theirs
	outside.Dst = ip.Host(s.gateway.Next())
	standard := ip.Route{
		Dst: netip.PrefixFrom(s.gateway, 0).Masked(), Via: s.gateway, Link: uplinkName, Metric: 200, Protocol: 4,
	}
	better := standard
	better.Metric = 100
	ours := outside
	ours.Protocol = ip.Protocol // but not to a container network
	s.must(s.Other, add(theirs), add(local), add(outside), add(standard), add(better), replace(outside, ours))

	want := ip.Snapshot{Owned: s.all(), Foreign: []ip.Route{theirs}, Defaults: []ip.Route{better, standard}}
	got := s.snapshot(s.scope())
	s.same(ip.Snapshot{Owned: got.Owned, Foreign: got.Foreign, Defaults: got.Defaults}, want)

	// A route of another program through our link is ours: flanneld's are.
	stray := s.route
	stray.Dst, stray.Via, stray.Protocol = ip.Host(ip.Last(s.network)), ip.Last(s.network), 3
	s.must(s.Other, add(stray))
	want.Owned.Routes = []ip.Route{s.route, stray}
	s.same(s.snapshot(s.scope()).Owned, want.Owned)

	// Taking away all that is ours leaves the rest alone.
	s.must(s.Kernel, ip.Diff(s.snapshot(s.scope()).Owned, ip.State{})...)
	got = s.snapshot(s.scope())
	s.same(ip.Snapshot{Owned: got.Owned, Foreign: got.Foreign, Defaults: got.Defaults},
		ip.Snapshot{Foreign: []ip.Route{theirs}, Defaults: []ip.Route{better, standard}})
}

// defaultElsewhere is a default route of another table, to which a rule leads: it counts where the main table has none.
func (s *suite) defaultElsewhere() {
	s.AddInterface(uplinkName, s.uplink)
	has := func(want ...ip.Route) {
		s.Helper()
		s.same(s.snapshot(s.scope()).Defaults, want)
	}
	has()
	r := TableRoute{Route: ip.Route{Dst: s.family.All(), Via: s.gateway, Link: uplinkName, Metric: 100, Protocol: 4}, Table: 100, Kind: ip.Unicast}
	s.AddRoute(r)
	has()
	rule := Rule{To: ip.Host(s.family.Elsewhere()), Table: 100} // the gateway is still found in the main table
	s.AddRule(rule)
	has(ip.Route{Dst: s.family.All(), Via: s.gateway, Link: uplinkName})
	main := r.Route
	main.Metric = 200
	s.must(s.Other, add(main))
	has(main)
	s.must(s.Other, del(main))
	has(ip.Route{Dst: s.family.All(), Via: s.gateway, Link: uplinkName})
	s.DelRule(rule)
	has()
}

// unreachableRoutes are for what no other route of the network takes.
func (s *suite) unreachableRoutes() {
	s.AddInterface(uplinkName, s.uplink)
	unspecified := ip.Dual[netip.Addr]{V4: netip.IPv4Unspecified(), V6: netip.IPv6Unspecified()}.Of(s.family)
	s.must(s.Kernel, add(ip.Route{Dst: netip.PrefixFrom(unspecified, 0), Via: s.gateway, Link: uplinkName}))
	state := s.all()
	s.create(state)
	leased, other := s.route.Dst.Addr().Next(), s.addr.Prefix.Addr().Next()
	leads := func(addr netip.Addr, want string) {
		s.Helper()
		scope := s.scope()
		scope.Paths = []netip.Addr{addr}
		if got := s.snapshot(scope).Paths[addr].Link; got != want {
			s.Errorf("to %s the way is by %q, want %q", addr, got, want)
		}
	}
	leads(leased, linkName)
	leads(other, uplinkName)
	end := ip.UnreachableRoute{Dst: s.network}
	with := s.all()
	with.Unreachable = []ip.UnreachableRoute{end}
	s.must(s.Kernel, ip.Diff(state, with)...)
	s.owned(with)
	leads(leased, linkName)
	leads(other, "")
	s.apply(add(end), nil)
	s.owned(with)
	s.must(s.Kernel, ip.Diff(with, state)...)
	s.owned(state)
	leads(other, uplinkName)
	s.apply(del(end), nil)
}

func (s *suite) paths() {
	s.AddInterface(uplinkName, s.uplink)
	scope := s.scope()
	own, neighbour, far := s.uplink.Addr(), s.gateway.Next(), s.near.IP
	scope.Paths = []netip.Addr{own, neighbour, far}
	onLink := ip.Path{Link: uplinkName, Source: own}
	s.same(s.snapshot(scope).Paths, map[netip.Addr]ip.Path{
		own: {Link: "lo", Source: own}, neighbour: onLink,
	})
	s.must(s.Other, add(ip.Route{
		Dst: netip.PrefixFrom(s.gateway, 0).Masked(), Via: s.gateway, Link: uplinkName, Metric: 200, Protocol: 4,
	}))
	all := map[netip.Addr]ip.Path{
		own: {Link: "lo", Source: own}, neighbour: onLink, far: {Link: uplinkName, Gateway: s.gateway, Source: own},
	}
	s.same(s.snapshot(scope).Paths, all)
	s.answers([]ip.Question{{Dst: own}, {Dst: neighbour}, {Dst: far}}, []ip.Answer{
		{Path: all[own], Kind: ip.Local}, {Path: all[neighbour], Kind: ip.Unicast, Table: ip.MainTable},
		{Path: all[far], Kind: ip.Unicast, Table: ip.MainTable},
	})
}

func (s *suite) answers(questions []ip.Question, want []ip.Answer) {
	s.Helper()
	got, err := s.Kernel.Lookup(s.Context(), questions)
	if err != nil {
		s.Fatal(err)
	}
	for i, q := range questions {
		if got[i] != want[i] {
			s.Errorf("%+v: %+v, want %+v", q, got[i], want[i])
		}
	}
}

// onBridge brings up a bridge with the first address of this host's subnet, and returns that and the next one.
func (s *suite) onBridge() (own, container netip.Addr) {
	own = s.addr.Prefix.Addr().Next()
	s.AddInterface("br0", netip.PrefixFrom(own, s.route.Dst.Bits()))
	s.apply(add(ip.ForwardingSetting(s.family)), nil)
	return own, own.Next()
}

// routeTypes is what becomes of a packet for a peer's container: of the host, of the bridge and of a container.
func (s *suite) routeTypes() {
	s.AddInterface(uplinkName, s.uplink)
	own, container := s.onBridge()
	dst := s.route.Dst.Addr().Next()
	questions := []ip.Question{{Dst: dst}, {Dst: dst, Src: own}, {Dst: dst, Src: container, In: "br0"}, {Dst: dst, Src: container, In: "br9"}}
	check := func(host, bridge, container ip.Answer) {
		s.Helper()
		s.answers(questions[1:], []ip.Answer{bridge, container, {}})
		got, err := s.Kernel.Lookup(s.Context(), questions[:1])
		if err != nil {
			s.Fatal(err)
		}
		got[0].Source = netip.Addr{}
		s.same(got, []ip.Answer{host})
	}
	all := func(a ip.Answer) { s.Helper(); check(a, a, a) }
	nothing := ip.Answer{Kind: ip.Unrouted}
	all(nothing)

	s.create(s.all())
	ours := ip.Answer{Path: ip.Path{Link: linkName, Gateway: s.route.Via}, Kind: ip.Unicast, Table: ip.MainTable}
	all(ours)

	theirs := TableRoute{Route: s.direct(), Table: ip.MainTable, Kind: ip.Unicast}
	theirs.Protocol = 4
	for _, shadow := range []struct {
		dst  netip.Prefix
		kind ip.RouteType
	}{
		{s.route.Dst, ip.Unicast},
		{netip.PrefixFrom(s.route.Dst.Addr(), s.route.Dst.Bits()+1), ip.Unicast},
		{s.route.Dst, ip.Blackhole}, {s.route.Dst, ip.Unreachable}, {s.route.Dst, ip.Prohibit},
	} {
		r := theirs
		r.Dst, r.Kind = shadow.dst, shadow.kind
		want := ip.Answer{Kind: r.Kind}
		if r.Kind == ip.Unicast {
			want = ip.Answer{Path: ip.Path{Link: uplinkName, Gateway: s.gateway}, Kind: ip.Unicast, Table: ip.MainTable}
		}
		s.AddRoute(r)
		all(want)
		s.DelRoute(r)
		all(ours)
	}

	r := theirs
	r.Dst, r.Table = netip.PrefixFrom(s.gateway, 0).Masked(), 100
	s.AddRoute(r)
	all(ours)
	past := ip.Answer{Path: ip.Path{Link: uplinkName, Gateway: s.gateway}, Kind: ip.Unicast, Table: 100}
	for _, rule := range []Rule{{To: r.Dst, Table: 100}, {To: s.route.Dst, Table: 100}} {
		s.AddRule(rule)
		all(past)
		s.DelRule(rule)
		all(ours)
	}
	from := Rule{From: s.network, Table: 100}
	s.AddRule(from)
	check(ours, past, past)
	s.DelRule(from)
	all(ours)
}

// waitForAddresses waits until no address is tentative any longer: its route comes then (RFC 4862, 5.4).
func (s *suite) waitForAddresses() {
	s.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if !slices.ContainsFunc(s.snapshot(ip.Scope{}).Interfaces, func(i ip.Interface) bool {
			return !i.Loopback && slices.ContainsFunc(i.Addrs, func(a ip.InterfaceAddr) bool { return a.Unusable })
		}) {
			return
		}
	}
	s.Fatal("addresses stay tentative")
}

// others change with what other programs do, and with nothing that Tulle does.
func (s *suite) others() {
	s.AddInterface(uplinkName, s.uplink)
	s.create(ip.State{Links: []ip.Link{s.link}, Addrs: []ip.Addr{s.addr}})
	s.waitForAddresses()
	before := s.snapshot(s.scope()).Others
	s.create(ip.State{FDB: []ip.FDB{s.fdb}, Neighbors: []ip.Neighbor{s.near}, Routes: []ip.Route{s.route}})
	s.same(s.snapshot(s.scope()).Others, before)
	is := func(what string, into ...netip.Prefix) {
		s.Helper()
		now := s.snapshot(s.scope()).Others
		added := slices.DeleteFunc(slices.Clone(now.Into), func(p netip.Prefix) bool { return slices.Contains(before.Into, p) })
		if now.Sum == before.Sum || !slices.Equal(added, into) {
			s.Errorf("%s: others are %+v, before %+v", what, now, before)
		}
	}
	r := TableRoute{Route: s.direct(), Table: 100, Kind: ip.Unicast}
	r.Protocol = 4
	for _, change := range []struct {
		dst   netip.Prefix
		table uint32
		kind  ip.RouteType
		into  []netip.Prefix
	}{
		{s.route.Dst, ip.MainTable, ip.Blackhole, []netip.Prefix{s.route.Dst}},
		{s.route.Dst, 100, ip.Unicast, []netip.Prefix{s.route.Dst}},
		{netip.PrefixFrom(s.gateway, 0).Masked(), 100, ip.Unicast, nil},
	} {
		r.Dst, r.Table, r.Kind = change.dst, change.table, change.kind
		s.AddRoute(r)
		is("route", change.into...)
		s.DelRoute(r)
		s.same(s.snapshot(s.scope()).Others, before)
	}
	for _, rule := range []Rule{{From: s.network, Table: 100}, {To: s.route.Dst, Table: 100}} {
		s.AddRule(rule)
		if rule.To.IsValid() {
			is("rule", rule.To)
		} else {
			is("rule")
		}
		s.DelRule(rule)
		s.same(s.snapshot(s.scope()).Others, before)
	}
}
