package invariant

import (
	"fmt"
	"net/netip"
	"slices"

	"tulle/ip"
	"tulle/subnet"
)

// PeersOnly is the name of what Filtered holds.
const PeersOnly = "peers only"

// Filtered holds if the guards of a host let in exactly the underlay addresses of its peers: every one that packets go to,
// and none that has no usable lease; and if they look inside the packets, exactly what comes from the subnets of these leases.
// Each tunnel has its guard; with the filter off there is none.
// The state must be sorted.
func Filtered(s ip.State, on bool, usable []*subnet.Lease) []Violation {
	var vs []Violation
	for _, f := range ip.Families() {
		l, tunnels := tunnel(s, f)
		i := slices.IndexFunc(s.Guards, func(g ip.Guard) bool { return g.Family == f })
		switch {
		case i < 0 && on && tunnels:
			vs = append(vs, Violation{PeersOnly, fmt.Sprintf("anybody may send %s to %s", f, l.Name)})
		case i < 0:
		case !on || !tunnels:
			vs = append(vs, Violation{PeersOnly, fmt.Sprintf("a guard of %s is there that nothing calls for", f)})
		default:
			vs = append(vs, heard(s, s.Guards[i], l, usable)...)
		}
	}
	return vs
}

// tunnel returns the link whose outer packets are of a family.
func tunnel(s ip.State, f ip.Family) (ip.Link, bool) {
	i := slices.IndexFunc(s.Links, func(l ip.Link) bool {
		return l.Kind != nil && l.Kind.Source().IsValid() && ip.FamilyOf(l.Kind.Source()) == f
	})
	if i < 0 {
		return ip.Link{}, false
	}
	return s.Links[i], true
}

// What speaks for an address that a guard lets in.
const (
	sentTo = 1 << iota
	leased
)

// heard holds a guard against what goes out by the device and around it, and against the leases.
func heard(s ip.State, g ip.Guard, l ip.Link, usable []*subnet.Lease) []Violation {
	if g.Tunnel() != l.Kind.Tunnel() {
		return []Violation{{PeersOnly, fmt.Sprintf("the guard of %+v is not that of %s", g.Tunnel(), l.Name)}}
	}
	var vs []Violation
	reasons := make([]uint8, len(g.Peers))
	markPeer := func(p ip.Peer, reason uint8) bool {
		i, ok := slices.BinarySearchFunc(g.Peers, p, ip.Peer.Compare)
		if ok {
			reasons[i] |= reason
		}
		return ok
	}
	mark := func(addr netip.Addr, reason uint8) bool { return markPeer(ip.Peer{Addr: addr}, reason) }
	for i := range s.FDB {
		if dst := s.FDB[i].Dst; s.FDB[i].Link == l.Name && !mark(dst, sentTo) {
			vs = append(vs, Violation{PeersOnly, fmt.Sprintf("packets go to %s, and what comes from there is dropped", dst)})
		}
	}
	for i := range s.Routes {
		r := &s.Routes[i]
		if on := linkNamed(&s, r.Link); ip.FamilyOf(r.Dst.Addr()) == g.Family && (on == nil || !framed(on)) && !mark(r.Via, sentTo) {
			vs = append(vs, Violation{PeersOnly, fmt.Sprintf("the route to %s leads to %s, and what comes from there is dropped", r.Dst, r.Via)})
		}
	}
	for i := range usable {
		own, public := usable[i].Subnets.Of(g.Family), usable[i].Attrs.Public.Of(g.Family)
		if !own.IsValid() || !mark(public, leased) || g.Bits == 0 {
			continue
		}
		around := netip.PrefixFrom(own.Addr(), g.Bits).Masked()
		if !markPeer(ip.Peer{Addr: public, Subnet: around}, sentTo|leased) && served(&s, own) {
			vs = append(vs, Violation{PeersOnly, fmt.Sprintf("%s is let in, and what it sends from %s is dropped", public, own)})
		}
	}
	for i, why := range reasons {
		if why != sentTo|leased {
			vs = append(vs, Violation{PeersOnly, fmt.Sprintf("%s is let in: packets go there %t, it has a usable lease %t", g.Peers[i], why&sentTo != 0, why&leased != 0)})
		}
	}
	return vs
}

// served reports whether packets go to a subnet. The routes must be sorted.
func served(s *ip.State, subnet netip.Prefix) bool {
	_, ok := slices.BinarySearchFunc(s.Routes, subnet, func(r ip.Route, p netip.Prefix) int { return ip.ComparePrefix(r.Dst, p) })
	return ok
}

// admits reports whether the guards of a host let in what the containers of a subnet send from a device of another through a tunnel.
func admits(s ip.State, from ip.Link, own netip.Prefix) bool {
	return !slices.ContainsFunc(s.Guards, func(g ip.Guard) bool {
		p := ip.Peer{Addr: from.Kind.Source()}
		if g.Bits > 0 && own.IsValid() {
			p.Subnet = netip.PrefixFrom(own.Addr(), g.Bits).Masked()
		}
		return g.Family == ip.FamilyOf(p.Addr) && g.Tunnel() == from.Kind.Tunnel() && !slices.Contains(g.Peers, p)
	})
}
