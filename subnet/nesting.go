package subnet

import (
	"net/netip"
	"slices"

	"tulle/ip"
)

// nested is one prefix among others of its family, with what is in use there. Two prefixes overlap only if one holds the
// other, so that every question is answered at the prefix itself or on the way outwards.
type nested struct {
	prefix netip.Prefix
	outer  *nested    // the smallest one around it; nil if there is none
	used   bool       // the prefix itself is a subnet in use
	subnet *nested    // a subnet in use here or inside; nil if there is none
	host   netip.Addr // an underlay address in use here or inside
}

// nest returns each prefix as nested in the others, at the same index; equal prefixes share one. All must be masked or invalid.
func nest(prefixes []netip.Prefix) []*nested {
	order := make([]int, len(prefixes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return ip.ComparePrefix(prefixes[a], prefixes[b]) })
	where := make([]*nested, len(prefixes))
	all := make([]nested, 0, len(prefixes))
	var last *nested
	for _, i := range order {
		p := prefixes[i]
		if last == nil || last.prefix != p {
			for last != nil && !ip.Contains(last.prefix, p) {
				last = last.outer
			}
			all = append(all, nested{prefix: p, outer: last})
			last = &all[len(all)-1]
		}
		where[i] = last
	}
	return where
}

func (p *nested) useSubnet() {
	p.used = true
	for at := p; at != nil; at = at.outer {
		at.subnet = p
	}
}

func (p *nested) useHost(addr netip.Addr) {
	for at := p; at != nil; at = at.outer {
		at.host = addr
	}
}

// overlapped returns a subnet in use that overlaps the prefix, invalid if there is none.
func (p *nested) overlapped() netip.Prefix {
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
