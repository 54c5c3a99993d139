package agent

import (
	"maps"
	"net/netip"
	"slices"

	"tulle/ip"
	"tulle/subnet"
)

// filter takes out of what a backend wants what is switched off.
func (a *Agent) filter(s *ip.State) {
	if !a.cfg.PeerFilter {
		s.Guards = nil
	}
	if !a.cfg.SourceCheck {
		for i, g := range s.Guards {
			s.Guards[i] = g.Unchecked()
		}
	}
}

// checkSources puts first in the tables what drops packets on their way to other hosts' containers whose source is not of this host's
// subnet. From the bridges of containers, no other source goes out but what this host routes back to that bridge, and so knows to
// be behind it. From elsewhere, a source in the network must be routed to where it comes from, unless other hosts send that way.
func checkSources(v view, n subnet.Network, want *ip.State) {
	for i := range want.Tables {
		t := &want.Tables[i]
		network, own := n.Pools.Of(t.Family).Network, v.self.Subnets.Of(t.Family)
		if own.IsValid() {
			links := fabricLinks(*want, t.Family)
			t.Rules = append(sourceRules(network, own, addrsInside(v.snap, own), links, bridges(v.snap.Interfaces, own, links)), t.Rules...)
		}
	}
}

// addrsInside are the addresses of this host in a prefix.
func addrsInside(snap ip.Snapshot, p netip.Prefix) []netip.Addr {
	addrs := slices.DeleteFunc(slices.Collect(maps.Keys(ownAddrs(snap))), func(addr netip.Addr) bool { return !p.Contains(addr) })
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs
}

func sourceRules(network, own netip.Prefix, self []netip.Addr, links, bridges []string) []ip.Rule {
	inside, here := ip.Match{Prefix: network}, ip.Match{Prefix: own}
	bridges = slices.DeleteFunc(slices.Clone(bridges), func(name string) bool { return name == "" })
	rules := []ip.Rule{{Dst: here, Verdict: ip.Accept}} // between its own containers, a bridge does not ask
	for _, addr := range self {
		// What this host sends itself is not forwarded. With IPv4 the kernel drops such packets anyway.
		rules = append(rules, ip.Rule{Src: ip.Match{Prefix: netip.PrefixFrom(addr, addr.BitLen())}, Verdict: ip.DropSpoof})
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

// tally sums up counters that begin anew whenever their table is made anew.
type tally struct {
	total Dropped
	last  ip.Dual[ip.Drops]
}

// add takes in a reading and returns the sums.
func (t *tally) add(read ip.Dual[ip.Drops]) Dropped {
	for _, f := range ip.Families() {
		last, now := t.last.Of(f), read.Of(f)
		for _, c := range []struct {
			total     *uint64
			last, now uint64
		}{
			{&t.total.Strangers, last.Strangers, now.Strangers},
			{&t.total.Forged, last.Forged, now.Forged},
			{&t.total.Injected, last.Injected, now.Injected},
			{&t.total.Spoofed, last.Spoofed, now.Spoofed},
		} {
			if c.now < c.last {
				c.last = 0
			}
			*c.total += c.now - c.last
		}
	}
	t.last = read
	return t.total
}
