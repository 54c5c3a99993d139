package fabric

import (
	"net/netip"
	"slices"

	"tulle/ip"
	"tulle/subnet"
)

// peerView is a usable peer, and how its subnets are routed.
type peerView struct {
	lease *subnet.Lease
	via   string
}

// peerViews tells of each usable peer how its subnets are routed.
func (f *Fabric) peerViews(v view, d decided) []peerView {
	if g := f.lastBaseline; g != nil && v.unchanged && slices.Equal(g.set.Leases, v.set.Leases) {
		return g.peers
	}
	return peerViews(d.usable, d.Want)
}

// peerViews tells of each usable peer how its subnets are routed by what is wanted, which must be sorted.
func peerViews(usable []*subnet.Lease, want ip.State) []peerView {
	views := make([]peerView, len(usable))
	for i, l := range usable {
		views[i] = peerView{l, via(l, want)}
	}
	return views
}

func via(l *subnet.Lease, want ip.State) string {
	all := "none"
	for _, f := range ip.Families() {
		p := l.Subnets.Of(f)
		if !p.IsValid() {
			continue
		}
		i, found := slices.BinarySearchFunc(want.Routes, p, func(r ip.Route, p netip.Prefix) int { return ip.ComparePrefix(r.Dst, p) })
		one := ""
		if found {
			one = over(want.Links, want.Routes[i].Link)
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

func peerStatus(views []peerView) []PeerStatus {
	peers := make([]PeerStatus, len(views))
	for i, v := range views {
		l := v.lease
		peers[i] = PeerStatus{Node: l.Attrs.Node, Subnets: prefixes(l.Subnets), Public: ip.Addrs(l.Attrs.Public), Via: v.via}
	}
	return peers
}

// exchange returns the views without those of some leases and with others, all by subnet.
func exchange(views []peerView, gone []*subnet.Lease, come []peerView) []peerView {
	out := make([]peerView, 0, len(views)+len(come))
	order := func(a, b peerView) int { return subnet.CompareSubnets(a.lease.Subnets, b.lease.Subnets) }
	for _, v := range views {
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
