package ip

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Uplink is the interface that carries traffic between hosts.
type Uplink struct {
	Link     string
	MTU      int              // bytes: that of the interface, or the smallest that a route over it names
	MTURoute netip.Prefix     // the destination of the route that names it; zero: it is the interface's own
	Addr     Dual[netip.Addr] // on the interface; the source of what this host sends
	Public   Dual[netip.Addr] // where peers send to; differs from Addr behind NAT
}

// Narrowest names what has the uplink's MTU.
func (u Uplink) Narrowest() string {
	if u.MTURoute.IsValid() {
		return fmt.Sprintf("the route to %s over %s", u.MTURoute, u.Link)
	}
	return u.Link
}

// Only returns the uplink with the addresses of some families alone.
func (u Uplink) Only(families []Family) Uplink {
	one := Uplink{Link: u.Link, MTU: u.MTU, MTURoute: u.MTURoute}
	for _, f := range families {
		one.Addr.Set(f, u.Addr.Of(f))
		one.Public.Set(f, u.Public.Of(f))
	}
	return one
}

// UplinkChoice is what an operator says about the uplink. The zero value means the interface of the default route.
type UplinkChoice struct {
	Interfaces  []string         // names or addresses, the first that works is taken
	Patterns    []*regexp.Regexp // tried next, against each address and then each name
	CanReach    netip.Addr       // tried last: the interface and source address that reach this address
	Public      Dual[netip.Addr] // advertised instead of the interface's own
	Established Uplink           // in use for so long that it is kept while it works; without a link if only addresses are known
	Current     Uplink           // chosen last, by the same choice
}

// Explicit reports whether the operator named an interface in any way.
func (c UplinkChoice) Explicit() bool {
	return len(c.Interfaces) > 0 || len(c.Patterns) > 0 || c.CanReach.IsValid()
}

// Choose picks the uplink for the families from what the snapshot shows, in flannel's order: interfaces, patterns,
// reachability; without any of them the owner of the public address, else the interface of the default route. A public
// address that no interface owns belongs to a NAT in front of the host and leaves the choice to the default route. What is established
// comes before the default route: that another is preferred now, or that there is none, says nothing about the way to other hosts.
// An interface that is, or was, in use and now lacks addresses of some of the families comes with those that it had; lacking names these families.
// It fails, with a reason for each candidate, if no interface will do.
func (c UplinkChoice) Choose(snap Snapshot, families []Family) (up Uplink, lacking []Family, err error) {
	var reasons []error
	for _, group := range c.candidates(snap, families) {
		for _, candidate := range group.candidates {
			one, lacks, err := c.uplink(candidate, snap, families)
			switch {
			case err != nil:
				reasons = append(reasons, err)
			case len(lacks) == 0 && (up.Link == "" || up.Link != c.Current.Link):
				return one, nil, nil
			case up.Link == "":
				up, lacking = one, lacks
			}
		}
		if up.Link != "" {
			if now, ok := c.standIn(snap, families); ok { // what took its place is not left for less
				return now, nil, nil
			}
			return up, lacking, nil
		}
		if group.last && len(group.candidates) > 0 {
			break
		}
	}
	able := c.able(snap, families)
	if len(reasons) == 0 {
		return Uplink{}, nil, fmt.Errorf("no interface matches and there is no default route: name the uplink with --iface: %s", able)
	}
	return Uplink{}, nil, fmt.Errorf("no usable uplink: %w: %s", errors.Join(reasons...), able)
}

// able tells which interfaces could be named: bridges too, behind which there may be containers or other hosts.
func (c UplinkChoice) able(snap Snapshot, families []Family) string {
	const most = 10 // of many, as a host with containers has, the first
	var names []string
	for _, i := range snap.Interfaces {
		if _, _, err := (UplinkChoice{}).uplink(candidate{link: i.Name}, snap, families); err == nil && !i.Loopback {
			names = append(names, i.Name)
		}
	}
	switch {
	case len(names) == 0:
		return "none of this host is up and has the addresses"
	case len(names) > most:
		return fmt.Sprintf("could be %s, or one of %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return "could be " + strings.Join(names, ", ")
}

// standIn is the uplink chosen last, if that is not an operator's and still has all addresses.
func (c UplinkChoice) standIn(snap Snapshot, families []Family) (up Uplink, ok bool) {
	if c.Explicit() {
		return up, false
	}
	for _, group := range interfacesOf(c.Current, snap) {
		for _, candidate := range group {
			if up, lacking, err := c.uplink(candidate, snap, families); err == nil && len(lacking) == 0 {
				return up, true
			}
		}
	}
	return up, false
}

// group is of candidates that are preferred to those that follow, even if what they were used with is not all there.
type group struct {
	candidates []candidate
	last       bool // if there are such, and none will do, no other will
}

// candidate is an interface to try, with the addresses that its selection fixed.
type candidate struct {
	link   string
	fixed  []netip.Addr
	strict bool // no other address will do
	why    string
}

func (c UplinkChoice) candidates(snap Snapshot, families []Family) []group {
	var cs []candidate
	for _, name := range c.Interfaces {
		why := "--iface " + name
		if addr, err := netip.ParseAddr(name); err == nil {
			cs = append(cs, candidate{link: owner(snap, addr), fixed: []netip.Addr{addr}, why: why})
		} else {
			cs = append(cs, candidate{link: named(snap, name), why: why})
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
		var used []candidate // it may have lost just what told that it was meant
		for _, one := range slices.Concat(interfacesOf(c.meant(), snap)...) {
			one.fixed, one.strict = Addrs(c.meant().Addr), true
			used = append(used, one)
		}
		if len(c.Interfaces)+len(c.Patterns) == 0 { // where the way to an address leads is asked once: a VPN may take it later
			return []group{{candidates: used}, {candidates: cs}}
		}
		return []group{{candidates: cs}, {candidates: used}}
	}
	for _, f := range families {
		if p := c.Public.Of(f); p.IsValid() && owner(snap, p) != "" {
			cs = append(cs, candidate{link: owner(snap, p), fixed: []netip.Addr{p}, why: fmt.Sprintf("owner of the public address %s", p)})
		}
	}
	var defaults []candidate
	for _, f := range families {
		for _, r := range snap.Defaults {
			if FamilyOf(r.Dst.Addr()) == f {
				defaults = append(defaults, candidate{link: r.Link, why: f.String() + " default route"})
			}
		}
	}
	established, current := interfacesOf(c.Established, snap), interfacesOf(c.Current, snap)
	return []group{{candidates: cs}, {candidates: established[0], last: c.Established.Link != ""}, {candidates: established[1]}, {candidates: defaults}, {candidates: current[0]}, {candidates: current[1]}}
}

// meant is what is known to have been chosen in the way of this choice: that of this run, or that of an earlier one which had the address that is named.
func (c UplinkChoice) meant() Uplink {
	named := func(addr netip.Addr) bool { return slices.Contains(c.Interfaces, addr.String()) }
	if c.Current.Link == "" && slices.ContainsFunc(Addrs(c.Established.Addr), named) {
		return c.Established
	}
	return c.Current
}

// interfacesOf lists the interfaces that may be an uplink of earlier, in two groups: those that have one of its addresses, of its name first, and that of
// its name alone. Names may change at a boot.
func interfacesOf(used Uplink, snap Snapshot) [][]candidate {
	groups := make([][]candidate, 2)
	for _, i := range snap.Interfaces {
		named, has := i.Name == used.Link, i.hasAny(used.Addr)
		one := candidate{link: i.Name, why: "in use so far"}
		switch {
		case i.Loopback || !i.Up:
		case named && has:
			groups[0] = slices.Insert(groups[0], 0, one)
		case has:
			groups[0] = append(groups[0], one)
		case named:
			groups[1] = append(groups[1], one)
		}
	}
	return groups
}

// hasAny reports whether the interface has one of the addresses, and may go on with it.
func (i Interface) hasAny(addrs Dual[netip.Addr]) bool { return i.has(addrs.V4) || i.has(addrs.V6) }

func (i Interface) has(addr netip.Addr) bool {
	return slices.ContainsFunc(i.Addrs, func(a InterfaceAddr) bool { return a.Prefix.Addr() == addr && !a.Unusable })
}

// used is what is known of an interface that is, or was, in use; zero if it was not.
func (c UplinkChoice) used(i Interface) Uplink {
	if c.Current.Link == i.Name {
		return c.Current
	}
	for _, u := range []Uplink{c.Established, c.Current} {
		if u.Link == i.Name || i.hasAny(u.Addr) {
			return u
		}
	}
	return Uplink{}
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

// named is the name of the interface that an operator calls name, which may be another name of it; name if there is none.
func named(snap Snapshot, name string) string {
	for _, i := range snap.Interfaces {
		if slices.Contains(i.AltNames, name) {
			return i.Name
		}
	}
	return name
}

// owner is the name of the interface that has addr, one that is up if there is any; empty if none has.
func owner(snap Snapshot, addr netip.Addr) string {
	name := ""
	for _, i := range snap.Interfaces {
		if slices.ContainsFunc(i.Addrs, func(a InterfaceAddr) bool { return a.Prefix.Addr() == addr }) && (name == "" || i.Up) {
			name = i.Name
			if i.Up {
				break
			}
		}
	}
	return name
}

// uplink is the candidate as an uplink. Addresses that an interface in use had stand for those that it lacks, but not for all.
func (c UplinkChoice) uplink(one candidate, snap Snapshot, families []Family) (up Uplink, lacking []Family, err error) {
	n := slices.IndexFunc(snap.Interfaces, func(i Interface) bool { return i.Name == one.link })
	if n < 0 {
		return Uplink{}, nil, fmt.Errorf("%s: %s", one.why, ifElse(one.link == "", "no interface leads there, or has that address", "no such interface on this host, Tulle's own aside"))
	}
	i := snap.Interfaces[n]
	if !i.Up {
		return Uplink{}, nil, fmt.Errorf("%s: interface %s is down", one.why, i.Name)
	}
	up, used := Uplink{Link: i.Name, MTU: i.MTU}, c.used(i)
	if r := i.RouteMTU; r.Bytes > 0 && r.Bytes < i.MTU {
		up.MTU, up.MTURoute = r.Bytes, r.Dst
	}
	for _, f := range families {
		keep := used.Addr.Of(f)
		if established := c.Established.Addr.Of(f); i.has(established) {
			keep = established
		}
		addr, public := one.addr(i, f, keep), netip.Addr{}
		if !addr.IsValid() && i.hasAny(used.Addr) { // another interface may have its name by now
			addr, public = used.Addr.Of(f), used.Public.Of(f)
			lacking = append(lacking, f)
		}
		if !addr.IsValid() || len(lacking) == len(families) {
			return Uplink{}, nil, fmt.Errorf("%s: interface %s has no %s address that other hosts reach", one.why, i.Name, f)
		}
		up.Addr.Set(f, addr)
		up.Public.Set(f, cmp.Or(c.Public.Of(f), public, addr))
	}
	return up, lacking, nil
}

// addr picks one of the addresses that the selection fixed, even if it is to be used no more, else the best of the interface.
func (c candidate) addr(i Interface, f Family, keep netip.Addr) netip.Addr {
	fixed := slices.DeleteFunc(slices.Clone(i.Addrs), func(a InterfaceAddr) bool {
		addr := a.Prefix.Addr()
		return !slices.Contains(c.fixed, addr) || FamilyOf(addr) != f || !BetweenHosts(addr)
	})
	if len(fixed) == 0 && !c.strict {
		return best(i.Addrs, f, keep)
	}
	if addr := best(fixed, f, keep); addr.IsValid() || len(fixed) == 0 {
		return addr
	}
	return fixed[0].Prefix.Addr()
}

// best picks the address to use as a source: IPv4 link-local last, then deprecated ones (RFC 4862), then temporary ones (RFC 8981). Of the others it takes keep, since one that is added must
// change nothing, and else what a default route names as its source, then a permanent one before one with a lifetime; in IPv4 one with a prefix of its full length, as virtual addresses are, comes after these.
func best(addrs []InterfaceAddr, f Family, keep netip.Addr) netip.Addr {
	usable := slices.DeleteFunc(slices.Clone(addrs), func(a InterfaceAddr) bool {
		return a.Unusable || FamilyOf(a.Prefix.Addr()) != f || !BetweenHosts(a.Prefix.Addr())
	})
	if len(usable) == 0 {
		return netip.Addr{}
	}
	rank := func(a InterfaceAddr) int {
		r := 0
		if a.Prefix.Addr().IsLinkLocalUnicast() {
			r += 32
		}
		if a.Deprecated {
			r += 16
		}
		if a.Temporary {
			r += 8
		}
		if a.Prefix.Addr() == keep {
			return r - 2
		}
		if a.Preferred {
			return r - 1
		}
		switch virtual := a.Prefix.IsSingleIP() && f == IPv4; { // but some clouds hand out such
		case virtual && a.Dynamic:
			r += 3
		case virtual:
			r += 4
		case a.Dynamic:
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
