package subnet

import (
	"cmp"
	"math/big"
	"net/netip"
	"slices"

	"tulle/ip"
)

// FormerOwner is who had a subnet last, whether it is leased now or not.
type FormerOwner struct {
	Subnet   netip.Prefix
	Node     string   // that had it last
	Released bool     // given back; else it expired, or is leased
	Revision Revision // when it was recorded
}

// formerOwners are former subnets that are free, in the order in which they are handed out again.
type formerOwners []FormerOwner

// formerOwners picks from all what p hands out and what is free, and lists every subnet of the family that has been had.
func (p Pool) formerOwners(f ip.Family, all []FormerOwner, taken space) (free formerOwners, had []netip.Prefix) {
	for _, one := range all {
		if !one.Subnet.IsValid() || ip.FamilyOf(one.Subnet.Addr()) != f {
			continue
		}
		had = append(had, one.Subnet.Masked())
		if p.fits(one.Subnet) && !taken.overlaps(one.Subnet) {
			free = append(free, one)
		}
	}
	slices.SortFunc(free, func(a, b FormerOwner) int {
		if a.Released != b.Released {
			if a.Released {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), ip.ComparePrefix(a.Subnet, b.Subnet))
	})
	return free, had
}

// lastOf returns what a node had last.
func (ps formerOwners) lastOf(node string) (netip.Prefix, bool) {
	var last FormerOwner
	for _, p := range ps {
		if p.Node == node && p.Revision >= last.Revision {
			last = p
		}
	}
	return last.Subnet, last.Subnet.IsValid()
}

// oldest returns the subnet that is handed out next. With each lost race a node draws from more of those that follow:
// many hosts may want one at once.
func (ps formerOwners) oldest(node string, lost int) (netip.Prefix, bool) {
	if len(ps) == 0 {
		return netip.Prefix{}, false
	}
	window := 1
	for i := 0; i < lost && window < len(ps); i++ {
		window *= 8
	}
	number := draw(node, lost)
	return ps[number.Mod(number, big.NewInt(int64(min(window, len(ps))))).Int64()].Subnet, true
}
