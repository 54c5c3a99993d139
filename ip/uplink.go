package ip

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

// Uplink is the interface that carries traffic between hosts.
type Uplink struct {
	Link   string
	MTU    int              // bytes
	Addr   Dual[netip.Addr] // on the interface; the source of what this host sends
	Public Dual[netip.Addr] // where peers send to; differs from Addr behind NAT
}

// Only returns the uplink with the addresses of some families alone.
func (u Uplink) Only(families []Family) Uplink {
	one := Uplink{Link: u.Link, MTU: u.MTU}
	for _, f := range families {
		one.Addr.Set(f, u.Addr.Of(f))
		one.Public.Set(f, u.Public.Of(f))
	}
	return one
}

// UplinkChoice is what an operator says about the uplink. The zero value means the interface of the default route.
type UplinkChoice struct {
	Interfaces []string         // names or addresses, the first that works is taken
	Patterns   []*regexp.Regexp // tried next, against each address and then each name
	CanReach   netip.Addr       // tried last: the interface and source address that reach this address
	Public     Dual[netip.Addr] // advertised instead of the interface's own
	Current    Dual[netip.Addr] // used in the last pass: taken of an interface whose other addresses are hardly better
	Settled    Uplink           // in use for so long that it is kept while it works; of an earlier run only the addresses are known
}

// Explicit reports whether the operator named an interface in any way.
func (c UplinkChoice) Explicit() bool {
	return len(c.Interfaces) > 0 || len(c.Patterns) > 0 || c.CanReach.IsValid()
}

// Choose picks the uplink for the families from what the snapshot shows, in flannel's order: interfaces, patterns,
// reachability; without any of them the owner of the public address, else the interface of the default route. A public
// address that no interface owns belongs to a NAT in front of the host and leaves the choice to the default route. What is settled
// comes before the default route: that another is preferred now, or that there is none, says nothing about the way to other hosts.
// It fails, with a reason for each candidate, if none has an address of every family.
func (c UplinkChoice) Choose(snap Snapshot, families []Family) (Uplink, error) {
	var reasons []error
	for _, candidate := range c.candidates(snap, families) {
		up, err := candidate.uplink(snap, families, c.Current)
		if err != nil {
			reasons = append(reasons, err)
			continue
		}
		for _, f := range families {
			up.Public.Set(f, c.public(f, up))
		}
		return up, nil
	}
	if len(reasons) == 0 {
		return Uplink{}, errors.New("no interface matches and there is no default route: name the uplink with --iface")
	}
	return Uplink{}, fmt.Errorf("no usable uplink: %w", errors.Join(reasons...))
}

// candidate is an interface to try, with the addresses that its selection fixed.
type candidate struct {
	link  string
	fixed []netip.Addr
	why   string
}

func (c UplinkChoice) candidates(snap Snapshot, families []Family) []candidate {
	var cs []candidate
	for _, name := range c.Interfaces {
		why := "--iface " + name
		if addr, err := netip.ParseAddr(name); err == nil {
			cs = append(cs, candidate{link: owner(snap, addr), fixed: []netip.Addr{addr}, why: why})
		} else {
			cs = append(cs, candidate{link: name, why: why})
		}
	}
	for _, re := range c.Patterns {
		cs = append(cs, matches(snap, re)...)
	}
	if c.CanReach.IsValid() {
		path := snap.Paths[c.CanReach]
		cs = append(cs, candidate{link: path.Link, fixed: []netip.Addr{path.Source}, why: fmt.Sprintf("--iface-can-reach %s", c.CanReach)})
	}
	if c.Explicit() {
		return cs
	}
	for _, f := range families {
		if p := c.Public.Of(f); p.IsValid() && owner(snap, p) != "" {
			cs = append(cs, candidate{link: owner(snap, p), fixed: []netip.Addr{p}, why: fmt.Sprintf("owner of the public address %s", p)})
		}
	}
	cs = append(cs, c.settled(snap)...)
	for _, f := range families {
		for _, r := range snap.Defaults {
			if FamilyOf(r.Dst.Addr()) == f {
				cs = append(cs, candidate{link: r.Link, why: f.String() + " default route"})
			}
		}
	}
	return cs
}

// settled lists the interfaces that may be the settled uplink: that of its name, and those that have some of its addresses.
func (c UplinkChoice) settled(snap Snapshot) []candidate {
	var cs []candidate
	for _, i := range snap.Interfaces {
		has := func(a InterfaceAddr) bool {
			addr := a.Prefix.Addr()
			return c.Settled.Addr.Of(FamilyOf(addr)) == addr && !a.Deprecated
		}
		switch one := (candidate{link: i.Name, why: "in use so far"}); {
		case i.Loopback || !i.Up:
		case i.Name == c.Settled.Link:
			cs = slices.Insert(cs, 0, one)
		case slices.ContainsFunc(i.Addrs, has):
			cs = append(cs, one)
		}
	}
	return cs
}

// Lacking returns the settled uplink with those of the families that it has addresses of; false if it has none at all.
func (c UplinkChoice) Lacking(snap Snapshot, families []Family) (up Uplink, ok bool) {
	for _, candidate := range c.settled(snap) {
		for _, f := range families {
			if one, err := candidate.uplink(snap, []Family{f}, c.Current); err == nil {
				up.Link, up.MTU = one.Link, one.MTU
				up.Addr.Set(f, one.Addr.Of(f))
				up.Public.Set(f, c.public(f, one))
			}
		}
		if up.Link != "" {
			return up, true
		}
	}
	return up, false
}

// public is where peers send to.
func (c UplinkChoice) public(f Family, up Uplink) netip.Addr {
	return cmp.Or(c.Public.Of(f), up.Addr.Of(f))
}

// matches tries a pattern against every address, then against every name.
func matches(snap Snapshot, re *regexp.Regexp) []candidate {
	var cs []candidate
	why := "--iface-regex " + re.String()
	for _, i := range snap.Interfaces {
		var hits []netip.Addr
		for _, a := range i.Addrs {
			if re.MatchString(a.Prefix.Addr().String()) {
				hits = append(hits, a.Prefix.Addr())
			}
		}
		if len(hits) > 0 {
			cs = append(cs, candidate{link: i.Name, fixed: hits, why: why})
		}
	}
	for _, i := range snap.Interfaces {
		if re.MatchString(i.Name) {
			cs = append(cs, candidate{link: i.Name, why: why})
		}
	}
	return cs
}

// owner is the name of the interface that has addr, empty if none has.
func owner(snap Snapshot, addr netip.Addr) string {
	for _, i := range snap.Interfaces {
		if slices.ContainsFunc(i.Addrs, func(a InterfaceAddr) bool { return a.Prefix.Addr() == addr }) {
			return i.Name
		}
	}
	return ""
}

func (c candidate) uplink(snap Snapshot, families []Family, keep Dual[netip.Addr]) (Uplink, error) {
	n := slices.IndexFunc(snap.Interfaces, func(i Interface) bool { return i.Name == c.link })
	if n < 0 {
		return Uplink{}, fmt.Errorf("%s: no such interface on this host", c.why)
	}
	i := snap.Interfaces[n]
	if !i.Up {
		return Uplink{}, fmt.Errorf("%s: interface %s is down", c.why, i.Name)
	}
	up := Uplink{Link: i.Name, MTU: i.MTU}
	for _, f := range families {
		addr := c.addr(i, f, keep.Of(f))
		if !addr.IsValid() {
			return Uplink{}, fmt.Errorf("%s: interface %s has no %s address that other hosts reach", c.why, i.Name, f)
		}
		up.Addr.Set(f, addr)
	}
	return up, nil
}

// addr picks one of the addresses that the selection fixed, even if it is to be used no more, else the best of the interface.
func (c candidate) addr(i Interface, f Family, keep netip.Addr) netip.Addr {
	fixed := slices.DeleteFunc(slices.Clone(i.Addrs), func(a InterfaceAddr) bool {
		addr := a.Prefix.Addr()
		return !slices.Contains(c.fixed, addr) || FamilyOf(addr) != f || !BetweenHosts(addr)
	})
	if len(fixed) == 0 {
		return best(i.Addrs, f, keep)
	}
	if addr := best(fixed, f, keep); addr.IsValid() {
		return addr
	}
	return fixed[0].Prefix.Addr()
}

// best picks the address to use as a source: IPv4 link-local last, then temporary ones (RFC 8981). Of the others it takes keep, since one that is added must
// change nothing, and else a permanent one before one with a lifetime; in IPv4 one with a prefix of its full length, as virtual addresses are, comes after these.
func best(addrs []InterfaceAddr, f Family, keep netip.Addr) netip.Addr {
	usable := slices.DeleteFunc(slices.Clone(addrs), func(a InterfaceAddr) bool {
		return a.Deprecated || FamilyOf(a.Prefix.Addr()) != f || !BetweenHosts(a.Prefix.Addr())
	})
	if len(usable) == 0 {
		return netip.Addr{}
	}
	rank := func(a InterfaceAddr) int {
		r := 0
		if a.Prefix.Addr().IsLinkLocalUnicast() {
			r += 16
		}
		if a.Temporary {
			r += 8
		}
		if a.Prefix.Addr() == keep {
			return r - 1
		}
		if a.Prefix.IsSingleIP() && f == IPv4 {
			r += 4
		}
		if a.Dynamic {
			r += 2
		}
		return r
	}
	return slices.MinFunc(usable, func(a, b InterfaceAddr) int { return cmp.Compare(rank(a), rank(b)) }).Prefix.Addr()
}

// BetweenHosts reports whether addr can be where one host reaches another. IPv6 has a link-local address on every link, so that alone
// it says nothing (RFC 4007, 6), and an interface that has just come up has no other yet; IPv4 has one where it has no other.
func BetweenHosts(addr netip.Addr) bool {
	broadcast := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	return !addr.IsUnspecified() && !addr.IsMulticast() && !addr.IsLoopback() && addr != broadcast && !(addr.Is6() && addr.IsLinkLocalUnicast())
}
