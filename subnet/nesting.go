package subnet

import (
	"net/netip"
	"slices"

	"tulle/ip"
)

// nesting arranges prefixes of one family by which lies in which, and remembers which of them are in use. Two prefixes overlap
// only if one holds the other, so that every question is a walk from a prefix outwards.
type nesting struct{ places []place }

// place is one distinct prefix.
type place struct {
	prefix netip.Prefix
	outer  int          // index of the smallest place around it, -1 if there is none
	used   bool         // a subnet in use
	within netip.Prefix // some subnet in use here or inside
	host   netip.Addr   // some address in use here or inside
}

func newNesting(prefixes []netip.Prefix) *nesting {
	slices.SortFunc(prefixes, ip.ComparePrefix)
	n := &nesting{places: make([]place, 0, len(prefixes))}
	outer := -1
	for i, p := range prefixes {
		if i > 0 && p == prefixes[i-1] {
			continue
		}
		for outer >= 0 && !ip.Contains(n.places[outer].prefix, p) {
			outer = n.places[outer].outer
		}
		n.places = append(n.places, place{prefix: p, outer: outer})
		outer = len(n.places) - 1
	}
	return n
}

// find returns the index of p, which must be one of the prefixes given to newNesting.
func (n *nesting) find(p netip.Prefix) int {
	i, _ := slices.BinarySearchFunc(n.places, p, func(at place, p netip.Prefix) int { return ip.ComparePrefix(at.prefix, p) })
	return i
}

// useSubnet marks p as a subnet in use.
func (n *nesting) useSubnet(p netip.Prefix) {
	i := n.find(p)
	n.places[i].used = true
	for ; i >= 0; i = n.places[i].outer {
		n.places[i].within = p
	}
}

// useHost marks addr as an underlay address in use.
func (n *nesting) useHost(addr netip.Addr) {
	for i := n.find(ip.Host(addr)); i >= 0; i = n.places[i].outer {
		n.places[i].host = addr
	}
}

// around returns the subnet in use that holds p, if there is one.
func (n *nesting) around(p netip.Prefix) (netip.Prefix, bool) {
	for i := n.find(p); i >= 0; i = n.places[i].outer {
		if n.places[i].used {
			return n.places[i].prefix, true
		}
	}
	return netip.Prefix{}, false
}

// inside returns a subnet in use inside p, and an underlay address inside p; each is invalid if there is none.
func (n *nesting) inside(p netip.Prefix) (netip.Prefix, netip.Addr) {
	at := n.places[n.find(p)]
	return at.within, at.host
}
