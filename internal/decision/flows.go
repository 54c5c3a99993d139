package decision

import (
	"net/netip"
	"slices"

	"tulle/ip"
)

// flows are the packets between this host's containers and those of others, by every way that they take.
func flows(in Inputs, want ip.State) []ip.Flow {
	var all []ip.Flow
	for _, f := range in.Network.Families() {
		network, own := in.Network.Pools.Of(f).Network, in.Self.Subnets.Of(f)
		if !own.IsValid() {
			continue
		}
		links := LinksToHosts(want, f)
		for _, bridge := range bridges(in.Kernel.Interfaces, own, links) {
			for _, link := range links {
				all = append(all,
					ip.Flow{Src: network, Dst: own, In: link, Out: bridge, Inbound: true},
					ip.Flow{Src: own, Dst: network, In: bridge, Out: link})
			}
		}
	}
	return all
}

// exits are the packets between this host's containers and the world outside.
func exits(in Inputs, want ip.State) []ip.Flow {
	var all []ip.Flow
	for _, f := range in.Network.Families() {
		i := slices.IndexFunc(in.Kernel.Defaults, func(r ip.Route) bool { return ip.FamilyOf(r.Dst.Addr()) == f })
		own := in.Self.Subnets.Of(f)
		if i < 0 || !own.IsValid() {
			continue
		}
		link, anywhere := in.Kernel.Defaults[i].Link, in.Kernel.Defaults[i].Dst
		for _, bridge := range bridges(in.Kernel.Interfaces, own, LinksToHosts(want, f)) {
			all = append(all,
				ip.Flow{Src: own, Dst: anywhere, In: bridge, Out: link},
				ip.Flow{Src: anywhere, Dst: own, In: link, Out: bridge, Inbound: true, Known: true})
		}
	}
	return all
}

// remaining are the filters that will be there once the leftovers are gone: what a flanneld accepts does not count.
func remaining(s ip.Snapshot) []ip.Filter {
	return slices.DeleteFunc(slices.Clone(s.Filters), func(f ip.Filter) bool {
		return slices.Contains(s.Owned.Leftovers, ip.Leftover(f.Place))
	})
}

// LinksToHosts are the interfaces that lead to other hosts: Tulle's own and those of its routes.
func LinksToHosts(want ip.State, f ip.Family) []string {
	var links []string
	for _, a := range want.Addrs {
		if ip.FamilyOf(a.Prefix.Addr()) == f {
			links = union(links, []string{a.Link})
		}
	}
	for _, r := range want.Routes {
		if ip.FamilyOf(r.Dst.Addr()) == f {
			links = union(links, []string{r.Link})
		}
	}
	slices.Sort(links)
	return links
}

// bridges are the interfaces that lead to this host's containers; one without a name if there is none yet.
func bridges(interfaces []ip.Interface, own netip.Prefix, except []string) []string {
	var names []string
	for _, i := range interfaces {
		inside := func(a ip.InterfaceAddr) bool { return own.Contains(a.Prefix.Addr()) }
		if !i.Loopback && !slices.Contains(except, i.Name) && slices.ContainsFunc(i.Addrs, inside) {
			names = append(names, i.Name)
		}
	}
	if names == nil {
		names = []string{""}
	}
	return names
}

// union returns a with what of b it lacks.
func union[T comparable](a, b []T) []T {
	out := slices.Clip(a)
	for _, v := range b {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}
