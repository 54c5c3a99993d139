package fabric

import (
	"net/netip"
	"slices"

	"tulle/backend"
	"tulle/internal/probe"
	"tulle/ip"
	"tulle/subnet"
)

// Probing is where this host is asked whether packets arrive, and whom it asks, for one network. It never changes.
type Probing struct {
	Self  probe.Self
	Peers []probe.Peer // in no order

	network  string          // its name on this host
	prefixes []netip.Prefix  // of the network
	carriers ip.Dual[string] // of packets over the fabric, as messages name them
}

// UseRouteMTUs says which routes are to name an MTU from the next full pass on: by the peer's subnet, in bytes. The map must not be changed any more.
func (f *Fabric) UseRouteMTUs(mtus map[netip.Prefix]int) { f.routeMTUs = mtus }

// has reports whether a peer is of this network.
func (g *Probing) has(p probe.Peer) bool {
	subnets, _ := subnet.ParseKey(p.Lease)
	return slices.ContainsFunc(g.prefixes, func(n netip.Prefix) bool { return ip.Contains(n, subnets.Of(p.Family)) })
}

// Probing is what the network wants of the prober, as the last pass that decided says; nil before, and where hosts do not ask each other. When something
// else is wanted, it points elsewhere.
func (f *Fabric) Probing() *Probing { return f.probing }

// wantProbing derives from a decision who is to be asked. A cached view does not say by which keys hosts are asked that were started since.
func (f *Fabric) wantProbing(v facts, d decided) {
	if f.cfg.Probe == (subnet.Probe{}) || v.set.cached {
		return
	}
	if g := f.lastBaseline; g != nil && f.probing != nil && v.unchanged && g.facts.host.Uplink == v.host.Uplink && slices.Equal(g.set.Leases, v.set.Leases) {
		return
	}
	p := &Probing{network: f.cfg.Name, prefixes: f.network.Prefixes(), Self: probe.Self{Key: probe.Key(f.cfg.Probe.Key), Port: f.cfg.Probe.Port}}
	for _, family := range f.network.Families() {
		p.Self.Addr[probe.Underlay].Set(family, v.host.Uplink.Addr.Of(family))
		own := v.self.Subnets.Of(family)
		if i := slices.IndexFunc(d.Want.Addrs, func(a ip.Addr) bool { return own.IsValid() && a.Prefix == ip.Host(own.Addr()) }); i >= 0 {
			p.Self.Addr[probe.Fabric].Set(family, own.Addr())
			p.carriers.Set(family, carrier(d.Want.Links, d.Want.Addrs[i].Link))
		}
	}
	p.Peers = probePeers(d.usable, d.Want, v.host.Uplink.MTU)
	if old := f.probing; old != nil && old.Self == p.Self && old.carriers == p.carriers && slices.Equal(old.Peers, p.Peers) {
		return
	}
	f.probing = p
}

// exchangeProbing takes in that some peers have gone and others have come.
func (f *Fabric) exchangeProbing(gone []*subnet.Lease, come []probe.Peer) {
	asked := func(l *subnet.Lease) bool { return l.Attrs.Probe != (subnet.Probe{}) }
	if f.probing == nil || len(come) == 0 && !slices.ContainsFunc(gone, asked) {
		return
	}
	left := make(map[string]bool, len(gone))
	for _, l := range gone {
		left[subnet.KeyOf(l.Subnets)] = true
	}
	now := *f.probing
	now.Peers = make([]probe.Peer, 0, len(f.probing.Peers)+len(come))
	for _, p := range f.probing.Peers {
		if !left[p.Lease] {
			now.Peers = append(now.Peers, p)
		}
	}
	now.Peers = append(now.Peers, come...)
	f.probing = &now
}

// probePeers are the peers that say where they are asked, in each family in which packets go there by what is wanted, which must be sorted: over the
// underlay and, where a tunnel leads there, over that. uplink is the MTU of the uplink.
func probePeers(usable []*subnet.Lease, want ip.State, uplink int) []probe.Peer {
	var peers []probe.Peer
	for _, l := range usable {
		if l.Attrs.Probe == (subnet.Probe{}) {
			continue
		}
		key := subnet.KeyOf(l.Subnets)
		for _, f := range ip.Families() {
			own, public := l.Subnets.Of(f), l.Attrs.Public.Of(f)
			route, found := routeOf(want.Routes, own)
			if !own.IsValid() || !found {
				continue
			}
			p := probe.Peer{Lease: key, Node: l.Attrs.Node, Family: f, Key: probe.Key(l.Attrs.Probe.Key)}
			if public.IsValid() {
				p.At[probe.Underlay], p.Size[probe.Underlay] = netip.AddrPortFrom(public, l.Attrs.Probe.Port), uplink
			}
			if i := slices.IndexFunc(want.Links, func(l ip.Link) bool { return l.Name == route.Link && l.Kind != nil }); i >= 0 {
				p.At[probe.Fabric], p.Size[probe.Fabric] = netip.AddrPortFrom(own.Addr(), l.Attrs.Probe.Port), want.Links[i].MTU
			}
			peers = append(peers, p)
		}
	}
	return peers
}

// routeOf finds the route to exactly a prefix among sorted ones.
func routeOf(routes []ip.Route, p netip.Prefix) (ip.Route, bool) {
	i, found := slices.BinarySearchFunc(routes, p, func(r ip.Route, p netip.Prefix) int { return ip.ComparePrefix(r.Dst, p) })
	if !found {
		return ip.Route{}, false
	}
	return routes[i], true
}

// RouteMTUs are the sizes that routes to peers should name, so that the kernel tells senders: those of the largest packets that arrive, by the peers'
// subnets. Of a peer that is no longer reached, or not asked again yet, it stays what it was.
func RouteMTUs(reports []probe.Report) map[netip.Prefix]int {
	mtus := map[netip.Prefix]int{}
	for _, r := range reports {
		way := inUse(r.Peer)
		v, f := r.Ways[way], r.Peer.Family
		size := max(v.Size, backend.LeastMTU(f))
		if v.Size == 0 || size >= r.Peer.Size[way] {
			continue
		}
		if subnets, err := subnet.ParseKey(r.Peer.Lease); err == nil && subnets.Of(f).IsValid() {
			mtus[subnets.Of(f)] = size
		}
	}
	return mtus
}

// inUse is the way that packets between containers take to a peer.
func inUse(p probe.Peer) probe.Way {
	if p.At[probe.Fabric].IsValid() {
		return probe.Fabric
	}
	return probe.Underlay
}
