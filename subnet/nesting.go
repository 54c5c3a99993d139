package subnet

import (
	"net/netip"
	"slices"

	"tulle/ip"
)

// place is one prefix among others of its family, with what is in use there. Two prefixes overlap only if one holds the
// other, so that every question is answered at the place itself or on the way outwards.
type place struct {
	prefix netip.Prefix
	outer  *place     // the smallest place around it; nil if there is none
	used   bool       // the prefix itself is a subnet in use
	subnet *place     // a subnet in use here or inside; nil if there is none
	host   netip.Addr // an underlay address in use here or inside
}

// nest returns the place of each prefix, at the same index; equal prefixes share one. All must be masked or invalid.
func nest(prefixes []netip.Prefix) []*place {
	order := make([]int, len(prefixes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return ip.ComparePrefix(prefixes[a], prefixes[b]) })
	places := make([]*place, len(prefixes))
	all := make([]place, 0, len(prefixes))
	var last *place
	for _, i := range order {
		p := prefixes[i]
		if last == nil || last.prefix != p {
			for last != nil && !ip.Contains(last.prefix, p) {
				last = last.outer
			}
			all = append(all, place{prefix: p, outer: last})
			last = &all[len(all)-1]
		}
		places[i] = last
	}
	return places
}

func (p *place) useSubnet() {
	p.used = true
	for at := p; at != nil; at = at.outer {
		at.subnet = p
	}
}

func (p *place) useHost(addr netip.Addr) {
	for at := p; at != nil; at = at.outer {
		at.host = addr
	}
}

// overlapped returns a subnet in use that overlaps the place, invalid if there is none.
func (p *place) overlapped() netip.Prefix {
	for at := p; at != nil; at = at.outer {
		if at.used {
			return at.prefix
		}
	}
	if p.subnet != nil {
		return p.subnet.prefix
	}
	return netip.Prefix{}
}
