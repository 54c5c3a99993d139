package fabric

import (
	"fmt"
	"slices"
	"strings"

	"tulle/ip"
	"tulle/subnet"
)

// dockerBridge is Docker's default bridge.
const dockerBridge = "docker0"

// stale tells which bridges hold a subnet that this host leased before: their containers are cut off from other hosts,
// and nothing of them is torn down.
func stale(v facts, n subnet.Network) []string {
	var texts []string
	for _, i := range v.snap.Interfaces {
		if i.Loopback || i.Name == v.host.Uplink.Link || slices.ContainsFunc(v.host.Links, func(l ip.Link) bool { return l.Name == i.Name }) {
			continue
		}
		for _, a := range i.Addrs {
			f := ip.FamilyOf(a.Prefix.Addr())
			if own := v.self.Subnets.Of(f); ip.Contains(n.Pools.Of(f).Network, a.Prefix) && !own.Overlaps(a.Prefix) {
				texts = append(texts, fmt.Sprintf("%s holds %s of an earlier lease, and this host has %s now: %s", i.Name, a.Prefix, own, move(i.Name, a)))
			}
		}
	}
	return texts
}

// shared tells which bridges hold this host's subnet, if more than one does: the programs that made them hand out the same addresses. An interface
// whose prefix is wider than the network is one of the underlay.
func shared(v facts, n subnet.Network) []string {
	var texts []string
	for _, f := range ip.Families() {
		own := v.self.Subnets.Of(f)
		var names []string
		for _, i := range v.snap.Interfaces {
			// An address alone, on a container's veth or a tunnel, hands out none.
			holds := func(a ip.InterfaceAddr) bool {
				return own.Overlaps(a.Prefix) && !a.Prefix.IsSingleIP() && a.Prefix.Bits() >= n.Pools.Of(f).Network.Bits()
			}
			if !i.Loopback && slices.ContainsFunc(i.Addrs, holds) && i.Name != v.host.Uplink.Link && !slices.Contains(names, i.Name) {
				names = append(names, i.Name)
			}
		}
		if len(names) > 1 {
			texts = append(texts, fmt.Sprintf("%s all hold %s, so containers get the same addresses twice: stop those on all but one, and take the subnet from "+
				"the others: tulle docker unconfigure --restart for docker0, docker network rm for a Docker network, ip link del for the bridge of a CNI plugin",
				strings.Join(names, ", "), own))
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
