package decision

import (
	"slices"

	"tulle/ip"
)

// FastLinks is the fast path without its peers: the bridges whose ports lead to containers of the lease, and the uplink beside the links that routes
// without a tunnel lead over. It is cheap to find, and what FastPath needs beside what is wanted of the kernel.
func FastLinks(in Inputs, want ip.State) ip.FastPath {
	f := ip.FastPath{Exclude: in.Options.FastPathExclude}
	for _, i := range in.Kernel.Interfaces {
		if i.Kind == "bridge" && holdsSubnet(in, i) {
			f.Bridges = append(f.Bridges, i.Name)
		}
	}
	slices.Sort(f.Bridges)
	if uplink := in.Host.Uplink.Link; uplink != "" {
		f.Uplinks = []string{uplink}
	}
	last := ""
	for _, r := range want.Routes {
		if r.Link == last || slices.Contains(f.Uplinks, r.Link) {
			continue
		}
		if last = r.Link; !slices.ContainsFunc(want.Links, func(l ip.Link) bool { return l.Name == r.Link }) {
			f.Uplinks = append(f.Uplinks, r.Link)
		}
	}
	slices.Sort(f.Uplinks)
	for _, family := range ip.Families() {
		if own := in.Self.Subnets.Of(family); own.IsValid() {
			f.Subnets = append(f.Subnets, own)
		}
	}
	return f
}

// FastPath is what is wanted of the fast path, for what is wanted of the kernel: all of it, or the part of some leases.
func FastPath(links ip.FastPath, want ip.State) ip.FastPath {
	return ip.FastPathOf(want, links.Uplinks, links.Bridges, links.Subnets, links.Exclude)
}

// beLiberal has connection tracking take a TCP segment for one of its connection whose numbers it has not followed
// (nf_conntrack-sysctl). Without it, packets that took the fast path would make those that come after them invalid.
func beLiberal() ip.Sysctl {
	return ip.Sysctl{Key: "net/netfilter/nf_conntrack_tcp_be_liberal", Value: "1", Optional: true}
}
