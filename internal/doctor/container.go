package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"tulle/ip"
)

// called is how people know a container.
func (c Container) called() string {
	switch {
	case c.Name != "":
		return c.Name
	case c.ID != "":
		return c.ID[:min(12, len(c.ID))]
	case len(c.Addrs) > 0:
		return c.Addrs[0].Addr().String()
	}
	return "behind " + c.Port
}

// enter is a command in the container's network namespace.
func (c Container) enter(command string) string {
	return "nsenter --net=" + ip.ShellWord(c.Namespace) + " " + command
}

// ofNetwork lists the container's addresses in the networks of the host.
func (f Facts) ofNetwork(c Container) []netip.Addr {
	var addrs []netip.Addr
	for _, a := range c.Addrs {
		if f.inNetworks(a.Addr()) {
			addrs = append(addrs, a.Addr())
		}
	}
	return addrs
}

func containerForeignAddress(f Facts) (all []Finding) {
	own := f.ownSubnets()
	if len(own) == 0 {
		return nil
	}
	for _, c := range f.All() {
		for _, a := range f.ofNetwork(c) {
			if slices.ContainsFunc(own, func(p netip.Prefix) bool { return p.Contains(a) }) {
				continue
			}
			one := Finding{Subject: c.called(), Text: fmt.Sprintf("container %s has %s, and this host has %s: answers to it go elsewhere", c.called(), a, joined(own))}
			if c.Runtime == "docker" && c.Name != "" {
				one.Fix = []string{"docker restart " + ip.ShellWord(c.Name)}
			}
			all = append(all, one)
		}
	}
	return all
}

func joined[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return strings.Join(texts, " and ")
}

func containerDown(f Facts) (all []Finding) {
	for _, l := range f.LinksAs(RolePort) {
		if !l.Up {
			one := Finding{Subject: l.Name, Text: fmt.Sprintf("%s, the host's end of a container's interface, is down", l.Name), Safe: true}
			one.Fix, one.Undo = up(l.Name)
			all = append(all, one)
		}
	}
	for _, c := range f.All() {
		if !c.Up && len(f.ofNetwork(c)) > 0 {
			all = append(all, Finding{
				Subject: c.called(), Text: fmt.Sprintf("%s of container %s is down", c.Link, c.called()),
				Fix: []string{c.enter("ip link set dev " + ip.ShellWord(c.Link) + " up")}, Undo: []string{c.enter("ip link set dev " + ip.ShellWord(c.Link) + " down")},
			})
		}
	}
	return all
}

// gateway is the address by which a container with an address reaches others: the first of its subnet, the bridge's.
func (f Facts) gateway(a netip.Addr) (gateway netip.Addr, network netip.Prefix) {
	for _, n := range f.Networks() {
		for _, p := range n.Prefixes {
			if p.Contains(a) {
				network = p
			}
		}
		for _, s := range n.Subnets {
			if s.Contains(a) {
				gateway = s.Masked().Addr().Next()
			}
		}
	}
	return gateway, network
}

// wayOut is the container's route to the containers of others.
func (c Container) wayOut(network netip.Prefix) (best Route, ok bool) {
	for _, r := range c.Routes {
		if ip.Contains(r.Dst, network) && (!ok || r.Dst.Bits() > best.Dst.Bits()) {
			best, ok = r, true
		}
	}
	return best, ok
}

func containerRouteless(f Facts) (all []Finding) {
	for _, c := range f.All() {
		for _, a := range f.ofNetwork(c) {
			gateway, network := f.gateway(a)
			if _, ok := c.wayOut(network); ok || !gateway.IsValid() || !c.Up || len(c.Routes) == MaxRoutes {
				continue
			}
			command := ip.FamilyOf(a).Command()
			all = append(all, Finding{
				Subject: c.called(), Text: fmt.Sprintf("container %s has %s, and no route to the rest of %s", c.called(), a, network),
				Fix:  []string{c.enter(fmt.Sprintf("%s route add default via %s dev %s", command, gateway, ip.ShellWord(c.Link)))},
				Undo: []string{c.enter(fmt.Sprintf("%s route del default via %s dev %s", command, gateway, ip.ShellWord(c.Link)))}, Safe: true,
			})
		}
	}
	return all
}

func containerMisrouted(f Facts) (all []Finding) {
	for _, c := range f.All() {
		for _, a := range f.ofNetwork(c) {
			gateway, network := f.gateway(a)
			all = append(all, deadEnds(c, network)...)
			r, ok := c.wayOut(network)
			bridge := slices.IndexFunc(f.LinksAs(RoleBridge), func(l Link) bool { return l.Name == c.Bridge })
			if !ok || !gateway.IsValid() || bridge < 0 || r.Via == gateway || r.Link != c.Link ||
				slices.ContainsFunc(f.LinksAs(RoleBridge)[bridge].Addrs, func(p netip.Prefix) bool { return p.Addr() == r.Via }) || r.Via.IsLinkLocalUnicast() {
				continue
			}
			command, dst, via := ip.FamilyOf(a).Command(), r.Dst.String(), "via "+r.Via.String()+" "
			if r.Dst.Bits() == 0 {
				dst = "default"
			}
			by := r.Via.String()
			if !r.Via.IsValid() {
				via, by = "", "no gateway"
			}
			change := func(via string) string {
				return c.enter(fmt.Sprintf("%s route replace %s %sdev %s", command, dst, via, ip.ShellWord(c.Link)))
			}
			all = append(all, Finding{
				Subject: c.called(), Sure: Likely, Text: fmt.Sprintf("container %s reaches the rest of %s by %s, and its bridge %s has %s", c.called(), network, by, c.Bridge, gateway),
				Fix: []string{change("via " + gateway.String() + " ")}, Undo: []string{change(via)},
			})
		}
	}
	return all
}

// deadEnds are routes in the container by which packets into a network are dropped.
func deadEnds(c Container, network netip.Prefix) (all []Finding) {
	for _, r := range c.Routes {
		way, ok := c.wayOut(network)
		// A default route of the kind is there for where nothing else leads.
		if r.Kind != "blackhole" && r.Kind != "unreachable" && r.Kind != "prohibit" || !r.Dst.Overlaps(network) || ip.Contains(r.Dst, network) && ok && way != r {
			continue
		}
		spec := r.Kind + " " + r.Dst.String()
		command := ip.FamilyOf(network.Addr()).Command()
		all = append(all, Finding{
			Subject: c.called(), Sure: Likely, Text: fmt.Sprintf("container %s drops what it sends to %s of %s, by a route of the kind %s", c.called(), r.Dst, network, r.Kind),
			Fix: []string{c.enter(command + " route del " + spec)}, Undo: []string{c.enter(command + " route add " + spec)},
		})
	}
	return all
}

func containerTooLargeMTU(f Facts) (all []Finding) {
	for _, n := range f.Networks() {
		if n.MTU == 0 {
			continue
		}
		inside := func(a netip.Addr) bool {
			return slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		if f.Docker != nil {
			for _, d := range f.Docker.Networks {
				if d.MTU > n.MTU && !foreign(f, d.Subnets) && slices.ContainsFunc(d.Subnets, func(p netip.Prefix) bool { return inside(p.Addr()) }) {
					one := Finding{Subject: d.Name, Text: fmt.Sprintf("Docker's network %s gives containers an MTU of %d, and packets of %d bytes arrive at other hosts", d.Name, d.MTU, n.MTU)}
					if d.Remedy != "" && plain(strings.ReplaceAll(d.Remedy, " && ", " ")) {
						one.Fix = strings.Split(d.Remedy, " && ")
					}
					all = append(all, one)
				}
			}
		}
		for _, c := range f.All() {
			if c.MTU <= n.MTU || !slices.ContainsFunc(c.Addrs, func(p netip.Prefix) bool { return inside(p.Addr()) }) {
				continue
			}
			command := func(mtu int) []string {
				return []string{c.enter(fmt.Sprintf("ip link set dev %s mtu %d", ip.ShellWord(c.Link), mtu))}
			}
			all = append(all, Finding{
				Subject: c.called(), Text: fmt.Sprintf("container %s sends packets of up to %d bytes, and those of %d arrive at other hosts", c.called(), c.MTU, n.MTU),
				Fix: command(n.MTU), Undo: command(c.MTU), Safe: true,
			})
		}
	}
	return all
}
