package decision

import (
	"net/netip"
	"slices"

	"tulle/ip"
)

// applyFilters takes out of what a backend wants what is switched off.
func applyFilters(s *ip.State, o Options) {
	if !o.PeerFilter {
		s.Guards = nil
	}
	if !o.SourceCheck {
		for i, g := range s.Guards {
			s.Guards[i] = g.Unchecked()
		}
	}
}

// checkSources puts first in the tables what drops packets on their way to other hosts' containers whose source is not of this host's
// subnet. From the bridges of containers, no other source goes out but what this host routes back to that bridge, and so knows to
// be behind it. From elsewhere, a source in the network must be routed to where it comes from, unless other hosts send that way.
func checkSources(in Inputs, want *ip.State) {
	for i := range want.Tables {
		t := &want.Tables[i]
		network, own := in.Network.Pools.Of(t.Family).Network, in.Self.Subnets.Of(t.Family)
		if own.IsValid() {
			links := LinksToHosts(*want, t.Family)
			t.Rules = append(sourceRules(network, own, selfInside(in.Kernel, *want, own), links, bridges(in.Kernel.Interfaces, own, links)), t.Rules...)
		}
	}
}

// selfInside is what this host has of a prefix that containers must not send as: on its own devices what shall be there, on others what is.
// Nothing that the host sends itself is forwarded; and of what comes in with an address of its own, IPv4 lets nothing through (RFC 1812, 5.3.7).
func selfInside(snap ip.Snapshot, want ip.State, p netip.Prefix) []netip.Prefix {
	if p.Addr().Is4() {
		return nil
	}
	var all []netip.Prefix
	add := func(addr netip.Addr) {
		if own := ip.Host(addr); p.Contains(addr) && !slices.Contains(all, own) {
			all = append(all, own)
		}
	}
	for _, a := range want.Addrs {
		add(a.Prefix.Addr())
	}
	for _, i := range snap.Interfaces {
		if slices.ContainsFunc(want.Links, func(l ip.Link) bool { return l.Name == i.Name }) {
			continue
		}
		for _, a := range i.Addrs {
			add(a.Prefix.Addr())
		}
	}
	slices.SortFunc(all, ip.ComparePrefix)
	// The device and the bridge have the first two, which one look tells.
	if first := netip.PrefixFrom(p.Addr(), p.Addr().BitLen()-1); len(all) > 1 && all[0].Addr() == first.Addr() && first.Contains(all[1].Addr()) {
		all = append([]netip.Prefix{first}, all[2:]...)
	}
	return all
}

func sourceRules(network, own netip.Prefix, self []netip.Prefix, links, bridges []string) []ip.Rule {
	inside, here := ip.Match{Prefix: network}, ip.Match{Prefix: own}
	bridges = slices.DeleteFunc(slices.Clone(bridges), func(name string) bool { return name == "" })
	rules := []ip.Rule{{Dst: here, Verdict: ip.Accept}} // between its own containers, a bridge does not ask
	for _, p := range self {
		rules = append(rules, ip.Rule{Src: ip.Match{Prefix: p}, Verdict: ip.DropSpoof})
	}
	for _, bridge := range bridges {
		rules = append(rules, ip.Rule{In: bridge, Src: here, Verdict: ip.Accept})
	}
	rules = append(rules, ip.Rule{Dst: ip.Match{Prefix: network, Not: true}, Verdict: ip.Accept})
	for _, link := range links {
		rules = append(rules, ip.Rule{In: link, Verdict: ip.Accept})
	}
	for _, bridge := range bridges {
		rules = append(rules, ip.Rule{In: bridge, Unrouted: true, Verdict: ip.DropSpoof})
	}
	rules = append(rules, ip.Rule{Src: inside, Unrouted: true, Verdict: ip.DropSpoof})
	for i := range rules {
		rules[i].Chain = ip.Forward
	}
	return rules
}
