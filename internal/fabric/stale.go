package fabric

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tulle/ip"
	"tulle/subnet"
)

// dockerBridge is Docker's default bridge.
const dockerBridge = "docker0"

// stale tells which bridges hold a subnet that this host leased before, in this network or in one that was configured earlier: their containers are cut
// off from other hosts, and nothing of them is torn down. They do not keep the host from being ready: Docker, which is to be restarted with another
// subnet, waits for that.
func stale(v facts, n subnet.Network, earlier []netip.Prefix) []string {
	var texts []string
	for _, i := range v.snap.Interfaces {
		if !forContainers(v, i) {
			continue
		}
		for _, a := range i.Addrs {
			family := ip.FamilyOf(a.Prefix.Addr())
			own, former := v.self.Subnets.Of(family), slices.IndexFunc(earlier, func(p netip.Prefix) bool { return ip.Contains(p, a.Prefix) })
			var whose string
			switch {
			case own.Overlaps(a.Prefix):
				continue
			case ip.Contains(n.Pools.Of(family).Network, a.Prefix):
				whose = owner(v, a.Prefix)
			case former >= 0 && i.Kind == "bridge":
				whose = fmt.Sprintf("the network %s, which is configured no more", earlier[former])
			default:
				continue
			}
			has := own.String()
			if !own.IsValid() {
				has = fmt.Sprintf("no %s subnet", family)
			}
			texts = append(texts, fmt.Sprintf("%s holds %s of %s, and this host has %s now: %s", i.Name, a.Prefix, whose, has, move(i.Name, a)))
		}
	}
	return texts
}

// owner is whose a prefix of the network is.
func owner(v facts, p netip.Prefix) string {
	i := slices.IndexFunc(v.set.Leases, func(l *subnet.Lease) bool { return l.Subnets.Of(ip.FamilyOf(p.Addr())).Overlaps(p) })
	if i < 0 {
		return "an earlier lease"
	}
	return v.set.Leases[i].Attrs.Owner()
}

// overlaps tells which networks that this host is in share addresses with the network: what is there and what is in a lease shadow each other.
func overlaps(v facts, n subnet.Network) []string {
	var texts []string
	eachHostNetwork(v, n, func(link string, p, network netip.Prefix) {
		texts = append(texts, fmt.Sprintf("%s is in %s, which overlaps with the network %s: hosts there and containers of leases shadow each other: "+
			"give the network other addresses with tulle config set, or keep leases out of there with its SubnetMin and SubnetMax", link, p, network))
	})
	return texts
}

// hostNetworks are the same, in order: a new lease of this host stays out of them.
func hostNetworks(v facts, n subnet.Network) []netip.Prefix {
	var all []netip.Prefix
	eachHostNetwork(v, n, func(_ string, p, _ netip.Prefix) { all = append(all, p) })
	slices.SortFunc(all, ip.ComparePrefix)
	return slices.Compact(all)
}

// eachHostNetwork calls do for each network of other hosts that this one is in by one of its links and that shares addresses with n.
func eachHostNetwork(v facts, n subnet.Network, do func(link string, p, network netip.Prefix)) {
	for _, i := range v.snap.Interfaces {
		if i.Loopback || v.host.Owns(i.Name) || forContainers(v, i) {
			continue
		}
		for _, a := range i.Addrs {
			if network := n.Pools.Of(ip.FamilyOf(a.Prefix.Addr())).Network; network.IsValid() && network.Overlaps(a.Prefix) {
				do(i.Name, a.Prefix.Masked(), network)
			}
		}
	}
}

// forContainers reports whether an interface leads, for all that is known, to containers and not to other hosts.
func forContainers(v facts, i ip.Interface) bool {
	return !i.Loopback && i.Name != v.host.Uplink.Link && !v.host.Owns(i.Name) && (i.Kind == "bridge" || i.Kind == "veth" || i.Kind == "")
}

// shared tells which bridges hold the same addresses of this host's subnet: the programs that made them hand them out twice. Two that hold a half each
// do not. An interface whose prefix is wider than the network is one of the underlay.
func shared(v facts, n subnet.Network) []string {
	var texts []string
	for _, f := range ip.Families() {
		own := v.self.Subnets.Of(f)
		var names []string
		var prefixes []netip.Prefix
		for _, i := range v.snap.Interfaces {
			// An address alone, on a container's veth or a tunnel, hands out none.
			holds := func(a ip.InterfaceAddr) bool {
				return own.Overlaps(a.Prefix) && !a.Prefix.IsSingleIP() && a.Prefix.Bits() >= n.Pools.Of(f).Network.Bits()
			}
			if at := slices.IndexFunc(i.Addrs, holds); at >= 0 && !i.Loopback && i.Name != v.host.Uplink.Link {
				names, prefixes = append(names, i.Name), append(prefixes, i.Addrs[at].Prefix)
			}
		}
		var twice []string
		for i, p := range prefixes {
			if slices.ContainsFunc(slices.Delete(slices.Clone(prefixes), i, i+1), p.Overlaps) {
				twice = append(twice, names[i])
			}
		}
		if len(twice) > 0 {
			texts = append(texts, fmt.Sprintf("%s all hold %s, so containers get the same addresses twice: stop those on all but one, and take the subnet from "+
				"the others: tulle docker unconfigure --restart for docker0, docker network rm for a Docker network, ip link del for the bridge of a CNI plugin",
				strings.Join(twice, ", "), own))
		}
	}
	return texts
}

// move is what moves a bridge to the present subnet.
func move(bridge string, a ip.InterfaceAddr) string {
	if bridge == dockerBridge {
		return "run tulle docker configure --restart"
	}
	return fmt.Sprintf("for a Docker network, tulle docker status has the command; a CNI bridge moves when, its containers gone, "+
		"ip address del %s dev %s is run", a.Prefix, ip.ShellWord(bridge))
}
