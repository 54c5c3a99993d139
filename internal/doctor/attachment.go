package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"tulle/ip"
)

// bridgeOf is the bridge that holds the subnet of an address.
func (f Facts) bridgeOf(a netip.Addr) (Link, bool) {
	for _, l := range f.LinksAs(RoleBridge) {
		if slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return l, true
		}
	}
	return Link{}, false
}

func containerDetached(f Facts) (all []Finding) {
	for _, c := range f.All() {
		addrs := f.ofNetwork(c)
		if c.Bridge != "" || c.Port == "" || len(addrs) == 0 {
			continue
		}
		one := Finding{Subject: c.called(), Text: fmt.Sprintf("%s, the host's end of the interface of container %s, which has %s, hangs on no bridge", c.Port, c.called(), joined(addrs))}
		if bridge, ok := f.bridgeOf(addrs[0]); ok {
			port := ip.ShellWord(c.Port)
			one.Fix, one.Undo, one.Safe = []string{"ip link set dev " + port + " master " + ip.ShellWord(bridge.Name)}, []string{"ip link set dev " + port + " nomaster"}, true
		}
		all = append(all, one)
	}
	return all
}

func containerSameAddress(f Facts) (all []Finding) {
	first := map[netip.Addr]Container{}
	for _, c := range f.All() {
		for _, a := range f.ofNetwork(c) {
			other, taken := first[a]
			if !taken {
				first[a] = c
				continue
			}
			if other.called() != c.called() || other.Port != c.Port {
				all = append(all, Finding{Subject: a.String(), Text: fmt.Sprintf("containers %s (behind %s) and %s (behind %s) both have %s", other.called(), other.Port, c.called(), c.Port, a)})
			}
		}
	}
	return all
}

func arpOff(f Facts) (all []Finding) {
	find := func(subject, what string, command func(state string) string) {
		all = append(all, Finding{
			Subject: subject, Text: what + " neither asks nor answers who has an address: ARP, and for IPv6 neighbour discovery, are off on it",
			Fix: []string{command("on")}, Undo: []string{command("off")}, Safe: true,
		})
	}
	for _, l := range f.LinksAs(RoleBridge) {
		if l.NoARP {
			find(l.Name, "bridge "+l.Name, func(state string) string { return "ip link set dev " + ip.ShellWord(l.Name) + " arp " + state })
		}
	}
	for _, c := range f.All() {
		if c.NoARP && len(f.ofNetwork(c)) > 0 {
			find(c.called(), fmt.Sprintf("%s of container %s", c.Link, c.called()), func(state string) string { return c.enter("ip link set dev " + ip.ShellWord(c.Link) + " arp " + state) })
		}
	}
	return all
}

// strangeContainer compares what the host takes for a container's MAC, and the container for its bridge's, with those that they have. What nobody has set mends itself.
func strangeContainer(f Facts) (all []Finding) {
	find := func(n Neighbor, where, whose, mac string, enter func(string) string) {
		if n.State != "PERMANENT" || n.MAC == "" || mac == "" || n.MAC == mac {
			return
		}
		all = append(all, Finding{
			Subject: n.Addr.String(), Text: fmt.Sprintf("%s takes %s for the MAC of %s, and %s has %s (neighbour of %s, permanent)", where, n.MAC, n.Addr, whose, mac, n.Link),
			Fix:  []string{enter(fmt.Sprintf("ip neigh del %s dev %s", n.Addr, ip.ShellWord(n.Link)))},
			Undo: []string{enter(fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent", n.Addr, n.MAC, ip.ShellWord(n.Link)))},
		})
	}
	for _, c := range f.All() {
		for _, n := range c.Known {
			find(n, "this host", "container "+c.called(), c.MAC, func(command string) string { return command })
		}
		for _, l := range f.LinksAs(RoleBridge) {
			for _, n := range c.Neighbors {
				if l.Name == c.Bridge && slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return p.Addr() == n.Addr }) {
					find(n, "container "+c.called(), "bridge "+l.Name, l.MAC, c.enter)
				}
			}
		}
	}
	return all
}

func bridgeFiltered(f Facts) (all []Finding) {
	for _, filter := range f.Filters {
		all = append(all, Finding{
			Subject: filter.Bridge, Sure: Likely,
			Text:   fmt.Sprintf("nft table bridge %s chain %s at %s drops frames of %s, whatever is in them", filter.Table, filter.Chain, filter.Hook, filter.Bridge),
			Remedy: fmt.Sprintf("Have its owner let frames of %s pass, or take away what drops them: nft list chain bridge %s %s shows it.", filter.Bridge, ip.ShellWord(filter.Table), ip.ShellWord(filter.Chain)),
		})
	}
	return all
}
