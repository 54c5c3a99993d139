package decision

import (
	"net/netip"
	"slices"

	"tulle/ip"
	"tulle/subnet"
)

// protocolBoot is what ip(8) and flanneld mark routes with (rtnetlink(7), RTPROT_BOOT).
const protocolBoot = 3

// host returns what every backend needs: forwarding switched on, and the packet filter rules.
func host(in Inputs) ip.State {
	s := ip.State{Sysctls: settings(in)}
	for _, f := range in.Network.Families() {
		t := table(f, in.Network.Pools.Of(f), in.Self.Subnets.Of(f), in.Options.IPMasq)
		t.Net = in.Net
		s.Tables = append(s.Tables, t)
		if network := in.Network.Pools.Of(f).Network; !needs(in, network) {
			s.Unreachable = append(s.Unreachable, ip.UnreachableRoute{Dst: network})
		}
	}
	return s
}

// needs reports whether the host reaches something in a network without Tulle, such as a LAN of its own or other hosts.
// What is for subnets that nobody leases must not end on this host then.
func needs(in Inputs, network netip.Prefix) bool {
	return slices.ContainsFunc(in.Precious, func(addr netip.Addr) bool { return network.Contains(addr) && !onBridge(in, addr) }) ||
		slices.ContainsFunc(in.Leases, func(l *subnet.Lease) bool { return network.Contains(l.Attrs.Public.Of(ip.FamilyOf(network.Addr()))) })
}

// onBridge reports whether an address is of a bridge of this host, as one of containers is that holds an earlier subnet.
func onBridge(in Inputs, addr netip.Addr) bool {
	return slices.ContainsFunc(in.Kernel.Interfaces, func(i ip.Interface) bool {
		return i.Kind == "bridge" && slices.ContainsFunc(i.Addrs, func(a ip.InterfaceAddr) bool { return a.Prefix.Addr() == addr })
	})
}

// table accepts what is forwarded from or to the network. Packets from this host's containers to those of others keep
// their source address, whatever Docker or CNI masquerade; what stays on the host is left to them. If asked, the table masquerades
// what leaves the network, except multicast, and what comes into it from elsewhere for another host, so that the answer comes back
// the same way; but not what kube-proxy masquerades itself, and not towards this host's containers, which see clients as they
// are (docs/adr/0022-masquerade-into-the-network.md).
func table(f ip.Family, p subnet.Pool, own netip.Prefix, masquerade bool) ip.Table {
	inside := ip.Match{Prefix: p.Network}
	t := ip.Table{Family: f, Rules: []ip.Rule{
		{Chain: ip.Forward, Src: inside, Verdict: ip.Accept},
		{Chain: ip.Forward, Dst: inside, Verdict: ip.Accept},
	}}
	if own.IsValid() {
		here := ip.Match{Prefix: own}
		t.Rules = append(t.Rules,
			ip.Rule{Chain: ip.Keeping, Src: here, Dst: here, Verdict: ip.Accept},
			ip.Rule{Chain: ip.Keeping, Src: here, Dst: inside, Verdict: ip.KeepSource},
		)
	}
	if masquerade {
		t.Rules = append(t.Rules,
			ip.Rule{Chain: ip.Postrouting, Mark: ip.KubeMark, Verdict: ip.Accept},
			ip.Rule{Chain: ip.Postrouting, Src: inside, Dst: inside, Verdict: ip.Accept},
			ip.Rule{Chain: ip.Postrouting, Src: inside, Dst: ip.Match{Prefix: f.Multicast(), Not: true}, Verdict: ip.Masquerade},
		)
		if own.IsValid() {
			t.Rules = append(t.Rules,
				ip.Rule{Chain: ip.Postrouting, Dst: ip.Match{Prefix: own}, Verdict: ip.Accept},
				ip.Rule{Chain: ip.Postrouting, Dst: inside, Verdict: ip.Masquerade}, // from elsewhere: all else has been decided
			)
		}
	}
	return t
}

// mark adds to the tables what marks the flows.
func mark(tables []ip.Table, flows []ip.Flow) {
	for i := range tables {
		t := &tables[i]
		for _, f := range flows {
			r := ip.Rule{Chain: ip.Marking, In: f.In, Src: ip.Match{Prefix: f.Src}, Dst: ip.Match{Prefix: f.Dst}, Verdict: ip.SetMark}
			if ip.FamilyOf(f.Src.Addr()) == t.Family && !slices.Contains(t.Rules, r) {
				t.Rules = append(t.Rules, r)
			}
		}
	}
}

// abandoned picks from the foreign routes those that a flanneld left behind: towards a subnet that this host now
// routes itself, through a host that holds a lease, and marked as flanneld marks them.
func abandoned(foreign []ip.Route, want ip.State, leases []*subnet.Lease) []ip.Route {
	if len(foreign) == 0 {
		return nil
	}
	routed := map[netip.Prefix]bool{}
	for _, r := range want.Routes {
		routed[r.Dst] = true
	}
	hosts := map[netip.Addr]bool{}
	for _, l := range leases {
		for _, f := range ip.Families() {
			hosts[l.Attrs.Public.Of(f)] = true
		}
	}
	var out []ip.Route
	for _, r := range foreign {
		if r.Protocol == protocolBoot && routed[r.Dst] && hosts[r.Via] {
			out = append(out, r)
		}
	}
	return out
}
