package main

import (
	"context"
	"fmt"
	"slices"

	"tulle/ip"
	"tulle/ip/kernel"
	"tulle/subnet"
)

// overlaps tells what this host has in the addresses of a network that is to be configured: networks that it is in, and routes that are not
// Tulle's. It is advice: where the host cannot be read, or the command does not run on a host of the network, there is none.
func overlaps(ctx context.Context, n subnet.Network) []string {
	k, err := kernel.Open()
	if err != nil {
		return nil
	}
	defer k.Close()
	snap, err := k.Snapshot(ctx, ip.Scope{Networks: n.Prefixes()})
	if err != nil {
		return nil
	}
	return overlapsIn(snap, n)
}

func overlapsIn(snap ip.Snapshot, n subnet.Network) []string {
	const remedy = "hosts there and containers shadow each other: choose other addresses, or keep leases out of there with SubnetMin and SubnetMax"
	var texts []string
	for _, i := range snap.Interfaces {
		if i.Loopback || forContainers(snap, i) {
			continue
		}
		for _, a := range i.Addrs {
			if network := n.Pools.Of(ip.FamilyOf(a.Prefix.Addr())).Network; network.IsValid() && network.Overlaps(a.Prefix) {
				texts = append(texts, fmt.Sprintf("this host is in %s by %s, which overlaps with the network %s: %s", a.Prefix.Masked(), i.Name, network, remedy))
			}
		}
	}
	kinds := map[string]string{}
	for _, i := range snap.Interfaces {
		kinds[i.Name] = i.Kind
	}
	for _, f := range n.Families() {
		routes := slices.DeleteFunc(slices.Clone(snap.Foreign), func(r ip.Route) bool { return ip.FamilyOf(r.Dst.Addr()) != f || tunnel(kinds[r.Link]) })
		if len(routes) == 0 {
			continue
		}
		text := fmt.Sprintf("this host has a route to %s via %s, which is in the network %s", routes[0].Dst, routes[0].Via, n.Pools.Of(f).Network)
		if more := len(routes) - 1; more > 0 {
			text += fmt.Sprintf(", and %d more like it", more)
		}
		texts = append(texts, text+": "+remedy)
	}
	return texts
}

// forContainers reports whether an interface holds a subnet of a network, for all that is known, and leads to no other hosts.
func forContainers(snap ip.Snapshot, i ip.Interface) bool {
	leadsOut := slices.ContainsFunc(snap.Defaults, func(r ip.Route) bool { return r.Link == i.Name })
	return !leadsOut && (i.Kind == "bridge" || i.Kind == "veth" || tunnel(i.Kind))
}

// tunnel reports whether links of a kind may be Tulle's or flannel's.
func tunnel(kind string) bool { return kind == "vxlan" || kind == "ipip" }
