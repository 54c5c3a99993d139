package fabric

import (
	"slices"

	"tulle/ip"
	"tulle/subnet"
)

// routedPeer is a usable peer, and how its subnets are routed.
type routedPeer struct {
	lease *subnet.Lease
	via   string
}

// routedPeers tells of each usable peer how its subnets are routed.
func (f *Fabric) routedPeers(v facts, d decided) []routedPeer {
	if g := f.lastBaseline; g != nil && v.unchanged && slices.Equal(g.set.Leases, v.set.Leases) {
		return g.peers
	}
	return routedPeers(d.usable, d.Want)
}

// routedPeers tells of each usable peer how its subnets are routed by what is wanted, which must be sorted.
func routedPeers(usable []*subnet.Lease, want ip.State) []routedPeer {
	routed := make([]routedPeer, len(usable))
	for i, l := range usable {
		routed[i] = routedPeer{l, via(l, want)}
	}
	return routed
}

func via(l *subnet.Lease, want ip.State) string {
	all := "none"
	for _, f := range ip.Families() {
		p := l.Subnets.Of(f)
		if !p.IsValid() {
			continue
		}
		one := ""
		if route, found := routeOf(want.Routes, p); found {
			one = over(want.Links, route.Link)
		}
		switch {
		case one == "" || all == one:
		case all == "none":
			all = one
		default:
			all = "mixed"
		}
	}
	return all
}

// over names the kind of a link of Tulle's.
func over(links []ip.Link, name string) string {
	for _, l := range links {
		if l.Name == name && l.Kind != nil {
			return l.Kind.Type()
		}
	}
	return "direct"
}

func peerStatus(routed []routedPeer) []PeerStatus {
	peers := make([]PeerStatus, len(routed))
	for i, v := range routed {
		l := v.lease
		peers[i] = PeerStatus{Node: l.Attrs.Node, Subnets: prefixes(l.Subnets), Public: ip.Addrs(l.Attrs.Public), Via: v.via}
	}
	return peers
}

// exchange returns the routed without those of some leases and with others, all by subnet.
func exchange(routed []routedPeer, gone []*subnet.Lease, come []routedPeer) []routedPeer {
	out := make([]routedPeer, 0, len(routed)+len(come))
	order := func(a, b routedPeer) int { return subnet.CompareSubnets(a.lease.Subnets, b.lease.Subnets) }
	for _, v := range routed {
		if !slices.Contains(gone, v.lease) {
			out = append(out, v)
		}
	}
	for _, c := range come {
		i, _ := slices.BinarySearchFunc(out, c, order)
		out = slices.Insert(out, i, c)
	}
	return out
}
