package subnet

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"tulle/ip"
)

// Self is the host for which leases are judged.
type Self struct {
	Node     string
	Subnets  Subnets      // its own; invalid as long as it has none
	Underlay []netip.Addr // its addresses, and whatever else must stay reachable outside the network
}

// Judge tells which leases of other hosts may be programmed, and why the others may not; both results are ordered by subnet.
//
// A subnet is refused if it is not a proper part of the network, is reserved space, overlaps one that counts more, or holds
// an underlay address; so is the subnet of a host whose public address lies in a subnet that counts more. This host's own
// subnets and addresses count most, then the older lease does: whoever comes later with a bad lease harms only itself.
// Families are judged apart: a refused subnet is taken out of its lease, and what remains is usable. A family that the
// network does not use is taken out without a word, since a cluster changes families host by host.
func Judge(n Network, leases []Lease, self Self) (usable []Lease, refused []Problem) {
	others := make([]int, 0, len(leases))
	for i, l := range leases {
		if !self.owns(l) {
			others = append(others, i)
		}
	}
	slices.SortFunc(others, func(a, b int) int {
		if leases[a].Created != leases[b].Created {
			return cmp.Compare(leases[a].Created, leases[b].Created)
		}
		return cmp.Compare(KeyOf(leases[a].Subnets), KeyOf(leases[b].Subnets))
	})
	kept := make([]Subnets, len(leases))
	reasons := make([][]string, len(leases))
	for _, f := range n.Families() {
		court := newCourt(f, n.Pools.Of(f), leases, self)
		for _, i := range others {
			p, reason := court.hear(leases[i])
			kept[i].Set(f, p)
			if reason != "" {
				reasons[i] = append(reasons[i], reason)
			}
		}
	}
	slices.SortFunc(others, func(a, b int) int { return CompareSubnets(leases[a].Subnets, leases[b].Subnets) })
	for _, i := range others {
		l := leases[i]
		if kept[i] == (Subnets{}) && len(reasons[i]) == 0 {
			reasons[i] = []string{"the network configuration does not use its family"}
		}
		for _, reason := range reasons[i] {
			refused = append(refused, Problem{Key: KeyOf(l.Subnets), Reason: reason})
		}
		if kept[i] != (Subnets{}) {
			l.Subnets = kept[i]
			usable = append(usable, l)
		}
	}
	return usable, refused
}

// owns reports whether l is this host's own lease.
func (s Self) owns(l Lease) bool {
	return s.Node != "" && l.Attrs.Node == s.Node || s.Subnets != (Subnets{}) && l.Subnets == s.Subnets
}

// court judges the leases of one family, those that count more first.
type court struct {
	family ip.Family
	pool   Pool
	mine   netip.Prefix
	seen   *nesting
}

func newCourt(f ip.Family, pool Pool, leases []Lease, self Self) *court {
	c := &court{family: f, pool: pool, mine: self.Subnets.Of(f)}
	own := underlay(f, self, leases)
	prefixes := make([]netip.Prefix, 0, 2*len(leases)+len(own)+1)
	for _, addr := range own {
		prefixes = append(prefixes, ip.Host(addr))
	}
	if c.mine.IsValid() {
		prefixes = append(prefixes, c.mine)
	}
	for _, l := range leases {
		if p := l.Subnets.Of(f); p.IsValid() {
			prefixes = append(prefixes, p)
		}
		if addr := l.Attrs.Public.Of(f); addr.IsValid() {
			prefixes = append(prefixes, ip.Host(addr))
		}
	}
	c.seen = newNesting(prefixes)
	for _, addr := range own {
		c.seen.useHost(addr)
	}
	if c.mine.IsValid() {
		c.seen.useSubnet(c.mine)
	}
	return c
}

// underlay returns this host's own addresses of family f, those it publishes included: behind NAT it does not see them.
func underlay(f ip.Family, self Self, leases []Lease) []netip.Addr {
	var addrs []netip.Addr
	for _, addr := range self.Underlay {
		if addr.BitLen() == f.Bits() {
			addrs = append(addrs, addr.WithZone(""))
		}
	}
	for _, l := range leases {
		if addr := l.Attrs.Public.Of(f); addr.IsValid() && self.owns(l) {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// hear returns the subnet of l if it may be used, else the reason against it; neither if l has no subnet of the family.
func (c *court) hear(l Lease) (netip.Prefix, string) {
	p, addr := l.Subnets.Of(c.family), l.Attrs.Public.Of(c.family)
	var captor netip.Prefix
	captured := false
	if addr.IsValid() {
		if captor, captured = c.seen.around(ip.Host(addr)); !captured {
			c.seen.useHost(addr)
		}
	}
	if !p.IsValid() {
		return netip.Prefix{}, ""
	}
	reason := c.misfit(p)
	if reason == "" {
		reason = c.overlap(p)
	}
	if reason == "" && captured {
		reason = fmt.Sprintf("its public address %s lies in %s, %s", addr, captor, c.whose(captor))
	}
	if reason != "" {
		return netip.Prefix{}, reason
	}
	c.seen.useSubnet(p)
	return p, ""
}

// misfit says what is wrong with p whatever other leases there are.
func (c *court) misfit(p netip.Prefix) string {
	switch {
	case p != p.Masked():
		return fmt.Sprintf("%s is not a network address: want %s", p, p.Masked())
	case !ip.Contains(c.pool.Network, p):
		return fmt.Sprintf("%s is outside the network %s", p, c.pool.Network)
	case p.Bits() < c.pool.SubnetLen:
		return fmt.Sprintf("%s is larger than a subnet, which is a /%d", p, c.pool.SubnetLen)
	}
	for _, r := range reservedRanges(c.family) {
		if r.prefix.Overlaps(p) {
			return fmt.Sprintf("%s is %s space", p, r.name)
		}
	}
	return ""
}

// overlap says what p would take away from others.
func (c *court) overlap(p netip.Prefix) string {
	other, overlaps := c.seen.around(p)
	within, host := c.seen.inside(p)
	if !overlaps {
		other, overlaps = within, within.IsValid()
	}
	switch {
	case overlaps:
		return fmt.Sprintf("%s overlaps %s, %s", p, other, c.whose(other))
	case host.IsValid():
		return fmt.Sprintf("%s holds the underlay address %s", p, host)
	}
	return ""
}

func (c *court) whose(p netip.Prefix) string {
	if p == c.mine {
		return "this host's own subnet"
	}
	return "an older lease"
}
