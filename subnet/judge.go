package subnet

import (
	"fmt"
	"net/netip"
	"slices"

	"tulle/ip"
)

// Self is the host for which leases are judged. What it holds and publishes it knows by itself: anybody who may write to
// the store can write its node id into a lease.
type Self struct {
	Node     string
	Instance string
	Subnets  Subnets      // of the lease that it holds; invalid as long as it has none
	Underlay []netip.Addr // its addresses, those that it publishes, and whatever else must stay reachable outside the network
}

// Judge tells which leases of other hosts may be programmed, and why the others may not; both results are ordered by subnet.
//
// A subnet is refused if it is not a proper part of the network, is reserved space, overlaps one that counts more, or holds
// an underlay address; so is the subnet of a host whose public address lies in a subnet that counts more. This host's own
// subnets and addresses count most, then the claim that has stood for longer does (see Standing): whoever comes later with
// a bad lease harms only itself.
// Families are judged apart: a refused subnet is taken out of its lease, and what remains is usable. A family that the
// network does not use is taken out silently, since a cluster changes families host by host.
//
// A lease that names this host and is not the one that it holds is refused, and takes nothing from others: nobody but this
// host could be reached there.
func Judge(n Network, leases []*Lease, self Self) (usable []*Lease, refused []Problem) {
	bySubnet := make([]int, 0, len(leases)) // the other hosts' leases
	for i := range leases {
		if !self.owns(leases[i]) {
			bySubnet = append(bySubnet, i)
		}
	}
	slices.SortFunc(bySubnet, func(a, b int) int { return CompareSubnets(leases[a].Subnets, leases[b].Subnets) })
	kept := make([]Subnets, len(leases))
	reasons := make([][]string, len(leases))
	judged := make([]int, 0, len(bySubnet))
	for _, i := range bySubnet {
		if reason := self.impostor(leases[i]); reason != "" {
			reasons[i] = []string{reason}
		} else {
			judged = append(judged, i)
		}
	}
	byAge := claims(leases, judged)
	for _, f := range n.Families() {
		judgment := newJudgment(f, n.Pools.Of(f), leases, &self)
		for _, c := range byAge {
			if c.address {
				judgment.judgeAddress(c.lease)
			}
			if c.subnets {
				judgment.judgeSubnet(c.lease)
			}
		}
		for _, i := range judged {
			p, reason := judgment.verdict(i)
			kept[i].Set(f, p)
			if reason != "" {
				reasons[i] = append(reasons[i], reason)
			}
		}
	}
	usable = make([]*Lease, 0, len(bySubnet))
	for _, i := range bySubnet {
		if kept[i] == (Subnets{}) && len(reasons[i]) == 0 {
			reasons[i] = []string{"the network configuration does not use its family"}
		}
		for _, reason := range reasons[i] {
			refused = append(refused, Problem{Key: KeyOf(leases[i].Subnets), Reason: reason})
		}
		if kept[i] != (Subnets{}) {
			usable = append(usable, leases[i].with(kept[i]))
		}
	}
	return usable, refused
}

// owns reports whether l is this host's own lease: the one that it holds, whatever is written there; one that it has left,
// by its instance; or a reservation for it, which names no address.
func (s *Self) owns(l *Lease) bool {
	if s.Subnets != (Subnets{}) && l.Subnets == s.Subnets {
		return true
	}
	if s.Node == "" || l.Attrs.Node != s.Node {
		return false
	}
	return l.Attrs.Instance == s.Instance || l.Reserved && !l.Attrs.Address().IsValid()
}

// impostor says what is wrong with a lease that names this host and is not its own; empty if it names another.
func (s *Self) impostor(l *Lease) string {
	if s.Node == "" || l.Attrs.Node != s.Node {
		return ""
	}
	text := fmt.Sprintf("it names this host's node id, and is not this host's lease: end it with tulle leases release '%s'", KeyOf(l.Subnets))
	if addr := l.Attrs.Address(); addr.IsValid() {
		text += fmt.Sprintf(", or give the machine at %s a node id of its own", addr)
	}
	return text
}

// claimed is what is judged of a lease at once: of most all that they claim.
type claimed struct {
	lease            int // index
	address, subnets bool
}

// claims returns what some leases claim, that which counts more first.
func claims(leases []*Lease, some []int) []claimed {
	all := make([]claimed, 0, len(some))
	for _, i := range some {
		if leases[i].attrsSince() == leases[i].subnetsSince() {
			all = append(all, claimed{i, true, true})
			continue
		}
		all = append(all, claimed{lease: i, address: true}, claimed{lease: i, subnets: true})
	}
	since := func(c claimed) Revision {
		if c.subnets {
			return leases[c.lease].subnetsSince()
		}
		return leases[c.lease].attrsSince()
	}
	slices.SortFunc(all, func(a, b claimed) int { return compareClaims(leases[a.lease], leases[b.lease], since(a), since(b)) })
	return all
}

// judgment judges the leases of one family, those that count more first.
type judgment struct {
	family   ip.Family
	pool     Pool
	reserved []ReservedRange
	mine     netip.Prefix
	leases   []*Lease
	subnets  []*nested      // of each lease
	hosts    []*nested      // of each lease's public address
	captors  []netip.Prefix // that each lease's public address lies in
	reasons  []string       // against each lease's subnet
}

func newJudgment(f ip.Family, pool Pool, leases []*Lease, self *Self) *judgment {
	c := &judgment{family: f, pool: pool, reserved: ReservedRanges(f), mine: self.Subnets.Of(f).Masked(), leases: leases}
	c.captors, c.reasons = make([]netip.Prefix, len(leases)), make([]string, len(leases))
	own := self.addresses(f)
	count := len(leases)
	prefixes := make([]netip.Prefix, 2*count, 2*count+len(own)+1) // invalid where a lease has nothing of the family
	for i := range leases {
		prefixes[i] = leases[i].Subnets.Of(f).Masked()
		prefixes[count+i] = hostPrefix(leases[i].Attrs.Public.Of(f))
	}
	for _, addr := range own {
		prefixes = append(prefixes, ip.Host(addr))
	}
	all := nest(append(prefixes, c.mine))
	c.subnets, c.hosts = all[:count], all[count:2*count]
	for i, addr := range own {
		all[2*count+i].useHost(addr)
	}
	if c.mine.IsValid() {
		all[len(all)-1].useSubnet()
	}
	return c
}

// addresses returns what must stay reachable of family f.
func (s *Self) addresses(f ip.Family) []netip.Addr {
	var addrs []netip.Addr
	for _, addr := range s.Underlay {
		if addr.BitLen() == f.Bits() {
			addrs = append(addrs, addr.WithZone(""))
		}
	}
	return addrs
}

func hostPrefix(addr netip.Addr) netip.Prefix {
	if !addr.IsValid() {
		return netip.Prefix{}
	}
	return ip.Host(addr)
}

func (c *judgment) judgeAddress(i int) {
	if addr := c.leases[i].Attrs.Public.Of(c.family); addr.IsValid() {
		if c.captors[i] = c.hosts[i].overlapped(); !c.captors[i].IsValid() {
			c.hosts[i].useHost(addr)
		}
	}
}

func (c *judgment) judgeSubnet(i int) {
	p := c.leases[i].Subnets.Of(c.family)
	if !p.IsValid() {
		return
	}
	reason := c.misfit(p)
	if reason == "" {
		reason = c.capture(c.subnets[i])
	}
	if c.reasons[i] = reason; reason == "" && !c.captors[i].IsValid() {
		c.subnets[i].useSubnet()
	}
}

// verdict returns the subnet of lease i if it may be used, else the reason against it; neither if the lease has no subnet
// of the family.
func (c *judgment) verdict(i int) (netip.Prefix, string) {
	p, captor := c.leases[i].Subnets.Of(c.family), c.captors[i]
	switch {
	case !p.IsValid():
		return netip.Prefix{}, ""
	case c.reasons[i] != "":
		return netip.Prefix{}, c.reasons[i]
	case captor.IsValid():
		return netip.Prefix{}, fmt.Sprintf("its public address %s lies in %s, %s", c.leases[i].Attrs.Public.Of(c.family), captor, c.whose(captor))
	}
	return p, ""
}

// misfit says what is wrong with p whatever other leases there are.
func (c *judgment) misfit(p netip.Prefix) string {
	switch {
	case p != p.Masked():
		return fmt.Sprintf("%s is not a network address, which would be %s", p, p.Masked())
	case !ip.Contains(c.pool.Network, p):
		return fmt.Sprintf("%s is not inside the network %s", p, c.pool.Network)
	case p.Bits() < c.pool.SubnetLen:
		return fmt.Sprintf("%s is larger than a subnet of the network, which is a /%d", p, c.pool.SubnetLen)
	}
	for _, r := range c.reserved {
		if r.Prefix.Overlaps(p) {
			return fmt.Sprintf("%s overlaps the %s range %s", p, r.Name, r.Prefix)
		}
	}
	return ""
}

// capture says what p would take away from leases that count more.
func (c *judgment) capture(p *nested) string {
	if other := p.overlapped(); other.IsValid() {
		return fmt.Sprintf("%s overlaps %s, %s", p.prefix, other, c.whose(other))
	}
	if p.host.IsValid() {
		return fmt.Sprintf("%s holds the underlay address %s", p.prefix, p.host)
	}
	return ""
}

func (c *judgment) whose(p netip.Prefix) string {
	if p == c.mine {
		return "this host's own subnet"
	}
	return "the subnet of an older lease"
}
