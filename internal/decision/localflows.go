package decision

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"tulle/ip"
)

// localFlows are the packets between containers of this host. A bridge that is called by br_netfilter has those between its own
// ports filtered too, and with IPv6 the multicast by which they find each other. Docker's bridges protect their containers from each other
// and from others (`"icc": false`, ports that are not published), and are left alone.
func localFlows(in Inputs, want ip.State) []ip.Flow {
	var all []ip.Flow
	for _, f := range in.Network.Families() {
		own := in.Self.Subnets.Of(f)
		others, dockers := otherBridges(in, own, LinksToHosts(want, f))
		for i, bridge := range others {
			all = append(all,
				ip.Flow{Src: own, Dst: own, In: bridge, Out: bridge, Local: true},
				ip.Flow{Src: own, Dst: f.Multicast(), In: bridge, Out: bridge, Local: true})
			// An opening for one other bridge is one for all, which may not be if one is Docker's.
			if next := others[(i+1)%len(others)]; next != bridge && !dockers {
				all = append(all, ip.Flow{Src: own, Dst: own, In: bridge, Out: next, Local: true})
			}
		}
	}
	return all
}

// publishedFlows are the connections from anywhere to a port of this host that somebody has translated to a container, and what the
// container answers.
func publishedFlows(in Inputs, want ip.State) []ip.Flow {
	var all []ip.Flow
	for _, f := range in.Network.Families() {
		own, world := in.Self.Subnets.Of(f), anywhere(f)
		others, _ := otherBridges(in, own, LinksToHosts(want, f))
		for _, bridge := range others {
			all = append(all,
				ip.Flow{Src: world, Dst: own, Out: bridge, Local: true, DNAT: true},
				ip.Flow{Src: own, Dst: world, In: bridge, Local: true, Known: true})
		}
	}
	return all
}

// otherBridges are the interfaces that lead to this host's containers and are not Docker's, and whether there are others that are.
func otherBridges(in Inputs, own netip.Prefix, except []string) (others []string, dockers bool) {
	if !own.IsValid() {
		return nil, false
	}
	for _, name := range bridges(in.Kernel.Interfaces, own, except) {
		switch {
		case name == "":
		case dockersBridge(in.Kernel.Filters, name):
			dockers = true
		default:
			others = append(others, name)
		}
	}
	return others, dockers
}

// anywhere is the prefix of all addresses.
func anywhere(f ip.Family) netip.Prefix {
	if f == ip.IPv4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// dockersName matches the names that Docker gives bridges unless it is told others.
var dockersName = regexp.MustCompile(`^(docker0|docker_gwbridge|br-[0-9a-f]{12})$`)

// dockersBridge reports whether an interface has a name of Docker's or is named in one of its chains.
func dockersBridge(filters []ip.Filter, name string) bool {
	named := func(r ip.FilterRule) bool { return r.In.Name == name || r.Out.Name == name }
	return dockersName.MatchString(name) || slices.ContainsFunc(filters, func(f ip.Filter) bool {
		inside := f.Table == dockerTable || dockersChain(f.Chain)
		return slices.ContainsFunc(f.Rules, func(r ip.FilterRule) bool {
			return named(r) && (inside || dockersChain(r.Target))
		})
	})
}

// dockersChain reports whether Docker alone writes to the chain.
func dockersChain(name string) bool {
	return strings.HasPrefix(name, "DOCKER") && name != ip.DockerUserChain
}

// forwarded decides how flows get through the filters: what is opened, what is marked, and where they end.
func forwarded(in Inputs, want ip.State) (passage ip.Passage, closed []ip.Blockade) {
	filters := remaining(in.Kernel)
	passage = ip.Open(filters, slices.Concat(flows(in, want), localFlows(in, want)))
	published, out := publishedFlows(in, want), exits(in, want)
	opened := ip.Open(filters, published).Openings
	passage.Openings = union(passage.Openings, append(opened, ip.OpenLast(filters, out)...))
	return passage, closedTo(filters, passage, append(published, out...))
}

// closedTo is where flows end for sure that are not among those of the network itself: what is published and what may be reached
// outside is the operator's to say, so that it is told but keeps no host from being ready. A place is not
// told twice.
func closedTo(filters []ip.Filter, passage ip.Passage, flows []ip.Flow) []ip.Blockade {
	nowhere := func(f ip.Flow) bool { return !f.Local && (f.In == "" || f.Out == "") }
	flows = slices.DeleteFunc(flows, nowhere) // there is no bridge yet
	return slices.DeleteFunc(ip.Blocked(filters, passage.Openings, flows), func(b ip.Blockade) bool {
		known := func(other ip.Blockade) bool { return other.At == b.At }
		return !b.Sure || slices.ContainsFunc(passage.Blockades, known)
	})
}
