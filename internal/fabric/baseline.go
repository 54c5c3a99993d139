package fabric

import (
	"maps"
	"net/netip"
	"slices"

	"tulle/internal/decision"
	"tulle/ip"
	"tulle/subnet"
)

// baseline is what a full pass leaves, and what an incremental pass goes on from. Most leases are independent: each a subnet of the network's length
// that overlaps no other, of a host of its own that lies outside of the network. What such a lease is worth depends on no other, unless it touches one
// of the odd ones, which are the rest, those that are refused, and those that the backend cannot serve.
type baseline struct {
	set      subnet.Set   // of the store
	facts    facts        // without what is kept here
	precious []netip.Addr // that no lease may capture
	paths    map[netip.Addr]ip.Path
	want     ip.State
	links    ip.Dual[[]string] // that routes lead over
	peers    []routedPeer
	usage    usage
	odd      []*subnet.Lease  // that are not independent, or left out
	leftOut  []subnet.Problem // leases that are refused or not served
	unserved ip.State         // what would be wanted for those that are not served, if there were no others: one may be in their way
}

// usage counts the leases that use a subnet or a host's address.
type usage struct {
	subnets map[netip.Prefix]int
	hosts   map[netip.Addr]int
}

func newUsage(leases []*subnet.Lease) usage {
	u := usage{make(map[netip.Prefix]int, len(leases)), make(map[netip.Addr]int, len(leases))}
	for _, l := range leases {
		u.add(l, 1)
	}
	return u
}

// add counts a lease n times.
func (u usage) add(l *subnet.Lease, n int) {
	for _, f := range ip.Families() {
		if p := l.Subnets.Of(f); p.IsValid() {
			count(u.subnets, p, n)
		}
		if h := l.Attrs.Public.Of(f); h.IsValid() {
			count(u.hosts, h, n)
		}
	}
}

// apply counts the leases of a view instead of those of the one before.
func (u usage) apply(d leaseDiff) {
	for _, l := range d.removed {
		u.add(l, -1)
	}
	for _, l := range d.added {
		u.add(l, 1)
	}
}

func count[K comparable](counts map[K]int, key K, n int) {
	if counts[key] += n; counts[key] == 0 {
		delete(counts, key)
	}
}

// independent reports whether a lease, which has been counted, concerns no other.
func (u usage) independent(n *subnet.Network, l *subnet.Lease) bool {
	if !n.Fits(l.Subnets) {
		return false
	}
	for _, f := range ip.Families() {
		p, h := l.Subnets.Of(f), l.Attrs.Public.Of(f)
		if p.IsValid() && u.subnets[p] != 1 || h.IsValid() && u.hosts[h] != 1 {
			return false
		}
		if network := n.Pools.Of(f).Network; network.IsValid() && network.Contains(h) {
			return false
		}
	}
	return true
}

// touchesOdd reports whether what a lease is worth may depend on an odd one, or the other way round.
func (b *baseline) touchesOdd(l *subnet.Lease) bool {
	return slices.ContainsFunc(b.odd, func(o *subnet.Lease) bool { return touch(l, o) })
}

// touch reports whether two leases are of one node or host, overlap, or one holds the address of the other's host.
func touch(a, b *subnet.Lease) bool {
	if a.Attrs.Node != "" && a.Attrs.Node == b.Attrs.Node {
		return true
	}
	for _, f := range ip.Families() {
		p, q, h, k := a.Subnets.Of(f), b.Subnets.Of(f), a.Attrs.Public.Of(f), b.Attrs.Public.Of(f)
		if p.Overlaps(q) || p.Contains(k) || q.Contains(h) || h.IsValid() && h == k {
			return true
		}
	}
	return false
}

// setBaseline takes note of what a full pass has left for an incremental pass to go on from.
func (f *Fabric) setBaseline(v facts, d decided, peers []routedPeer) {
	b := &baseline{set: v.set.Set, facts: v, precious: f.precious(v), paths: v.snap.Paths, want: d.Want, peers: peers, leftOut: d.problems}
	if len(d.Unserved) > 0 {
		unserved := keysOf(d.Unserved)
		b.unserved, _ = f.decidePeers(v.host, v.self, slices.DeleteFunc(slices.Clone(d.usable), func(l *subnet.Lease) bool { return !unserved[subnet.KeyOf(l.Subnets)] }))
	}
	b.facts.set, b.facts.snap.Owned, b.facts.snap.Paths, b.facts.host.Paths = storeView{}, ip.State{}, nil, nil
	for _, family := range ip.Families() {
		b.links.Set(family, decision.LinksToHosts(d.Want, family))
	}
	if last := f.lastBaseline; last != nil && slices.Equal(last.set.Leases, b.set.Leases) && slices.Equal(last.leftOut, b.leftOut) {
		b.usage, b.odd = last.usage, last.odd
		f.baseline = b
		return
	}
	b.usage = newUsage(b.set.Leases)
	leftOut := keysOf(b.leftOut)
	for _, l := range b.set.Leases {
		if !b.usage.independent(f.network, l) || len(leftOut) > 0 && leftOut[subnet.KeyOf(l.Subnets)] {
			b.odd = append(b.odd, l)
		}
	}
	f.baseline = b
}

func keysOf(problems []subnet.Problem) map[string]bool {
	keys := make(map[string]bool, len(problems))
	for _, p := range problems {
		keys[p.Key] = true
	}
	return keys
}

// setPaths keeps the paths to the hosts of leases that were added, and forgets those of leases that were removed.
func (b *baseline) setPaths(d leaseDiff, paths map[netip.Addr]ip.Path) {
	for _, l := range d.removed {
		for _, f := range ip.Families() {
			delete(b.paths, l.Attrs.Public.Of(f))
		}
	}
	maps.Copy(b.paths, paths)
}

// linksKnown reports whether the routes of a state lead over links that have routes already: other links need other openings.
func (b *baseline) linksKnown(s ip.State) bool {
	for _, r := range s.Routes {
		if !slices.Contains(b.links.Of(ip.FamilyOf(r.Dst.Addr())), r.Link) {
			return false
		}
	}
	return true
}

// linkUnused reports whether no route leads any longer over a link that those of a former state led over: its openings may go.
func (b *baseline) linkUnused(former ip.State) bool {
	for _, r := range former.Routes {
		f := ip.FamilyOf(r.Dst.Addr())
		over := func(o ip.Route) bool { return o.Link == r.Link && ip.FamilyOf(o.Dst.Addr()) == f }
		own := func(l ip.Link) bool { return l.Name == r.Link }
		if !slices.ContainsFunc(b.want.Links, own) && !slices.ContainsFunc(b.want.Routes, over) {
			return true
		}
	}
	return false
}
