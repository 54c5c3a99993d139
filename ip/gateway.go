package ip

import (
	"net/netip"
	"slices"
)

// insertGatewayRoutes puts a passing route to the gateway before some of the route changes in set, and takes it away after.
//
// Linux takes an IPv6 address for no gateway on a link, even if told that it is one, as long as the best route to that
// address goes through another link (ip6_route_check_nh_onlink in net/ipv6/route.c). So it is with each route that moves
// to another link, because its gateway lies in the subnet that it leads to. The passing route is more specific, and
// spares us to take the old one away first.
func insertGatewayRoutes(set Plan, have []Route) Plan {
	if !slices.ContainsFunc(set, func(op Op) bool { return hasGateway6(op.New.(Route)) }) {
		return set
	}
	links := map[netip.Prefix]string{} // through which each prefix is reached now; empty if through several
	for _, h := range have {
		if link, ok := links[h.Dst]; ok && link != h.Link {
			links[h.Dst] = ""
		} else {
			links[h.Dst] = h.Link
		}
	}
	var out Plan
	for _, op := range set {
		r := op.New.(Route)
		link, there := links[r.Dst]
		if !hasGateway6(r) || !there || link == r.Link {
			out = append(out, op)
			continue
		}
		gateway := Route{Dst: Host(r.Via), Link: r.Link, Metric: r.Metric, Protocol: r.Protocol}
		out = append(out, Op{Verb: Add, New: gateway}, op, Op{Verb: Delete, Old: gateway})
	}
	return out
}

// hasGateway6 reports whether Linux is told, and checks, that r has its IPv6 gateway on the link.
func hasGateway6(r Route) bool { return r.OnLink && r.Dst.Addr().Is6() }
