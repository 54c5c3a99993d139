package inspect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// Other is a route or policy rule of another program.
type Other struct {
	Rule   bool
	Family ip.Family
	Dst    netip.Prefix // of a rule: where packets go that it is for
	Src    netip.Prefix // of a rule: where they come from; invalid: anywhere
	Table  uint32       // of a route; of a rule, the one that it leads to
	Spec   string       // for ip-route(8) or ip-rule(8): what comes after add or del
	Blind  bool         // Spec is enough to delete the rule, and does not say what it does
}

// Others lists the routes that are neither the kernel's nor Tulle's, of any table and longer than a default route, and the policy rules, but those that
// every host has.
func (r *Reader) Others() ([]Other, error) {
	routes, err := dump(func() ([]netlink.Route, error) {
		return r.h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	rules, err := dump(func() ([]netlink.Rule, error) { return r.h.RuleList(netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list policy rules: %w", err)
	}
	names, err := r.names()
	if err != nil {
		return nil, err
	}
	var others []Other
	for _, one := range routes {
		ours := slices.Contains([]int{unix.RTPROT_KERNEL, unix.RTPROT_RA, ip.Protocol}, int(one.Protocol))
		if o := otherRoute(one, names); !ours && o.Dst.Bits() > 0 && !o.Dst.Addr().IsMulticast() && !o.Dst.Addr().IsLinkLocalUnicast() {
			others = append(others, o)
		}
	}
	for _, one := range rules {
		if o := otherRule(one); !slices.Contains([]int{0, 32766, 32767}, one.Priority) {
			others = append(others, o)
		}
	}
	return others, nil
}

func otherRoute(one netlink.Route, names map[int]string) Other {
	route := routeOf(one, names)
	o := Other{Family: ip.FamilyOf(route.Dst.Addr()), Dst: route.Dst, Table: uint32(one.Table)}
	var b strings.Builder
	if route.Kind != ip.Unicast {
		fmt.Fprintf(&b, "%s ", route.Kind)
	}
	b.WriteString(route.Dst.String())
	if len(one.MultiPath) > 0 {
		for _, hop := range one.MultiPath {
			b.WriteString(" nexthop")
			if via, ok := netip.AddrFromSlice(hop.Gw); ok {
				fmt.Fprintf(&b, " via %s", via.Unmap())
			}
			fmt.Fprintf(&b, " dev %s", ip.ShellWord(names[hop.LinkIndex]))
		}
	} else {
		if route.Via.IsValid() {
			fmt.Fprintf(&b, " via %s", route.Via)
		}
		if route.Link != "" && (route.Kind == ip.Unicast || route.Kind == ip.Local) {
			fmt.Fprintf(&b, " dev %s", ip.ShellWord(route.Link))
		}
	}
	if one.Priority != 0 {
		fmt.Fprintf(&b, " metric %d", one.Priority)
	}
	if o.Table != ip.MainTable {
		fmt.Fprintf(&b, " table %d", o.Table)
	}
	o.Spec = b.String()
	return o
}

func otherRule(one netlink.Rule) Other {
	o := Other{Rule: true, Family: ip.IPv4, Table: uint32(one.Table)}
	if one.Family == unix.AF_INET6 {
		o.Family = ip.IPv6
	}
	o.Src, _ = prefixOf(one.Src)
	o.Dst, _ = prefixOf(one.Dst)
	var b strings.Builder
	fmt.Fprintf(&b, "priority %d", one.Priority)
	if one.Invert {
		b.WriteString(" not")
	}
	if o.Src.IsValid() {
		fmt.Fprintf(&b, " from %s", o.Src)
	}
	if o.Dst.IsValid() {
		fmt.Fprintf(&b, " to %s", o.Dst)
	}
	if one.IifName != "" {
		fmt.Fprintf(&b, " iif %s", ip.ShellWord(one.IifName))
	}
	if one.OifName != "" {
		fmt.Fprintf(&b, " oif %s", ip.ShellWord(one.OifName))
	}
	if one.Mark != 0 || one.Mask != nil {
		mask := uint32(0xffffffff)
		if one.Mask != nil {
			mask = *one.Mask
		}
		fmt.Fprintf(&b, " fwmark %#x/%#x", one.Mark, mask)
	}
	switch {
	case one.Goto > 0:
		fmt.Fprintf(&b, " goto %d", one.Goto)
	case o.Table != 0:
		fmt.Fprintf(&b, " lookup %d", o.Table)
	default:
		o.Blind = true
	}
	o.Spec = b.String()
	return o
}
