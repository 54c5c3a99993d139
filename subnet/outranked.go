package subnet

import (
	"slices"
	"strings"

	"tulle/ip"
)

// Outranked returns the leases for which whoever sees the store for the first time, and so goes by the age of its keys
// alone, leaves out the lease with the given subnets: an older one that overlaps it, or that captures one's public
// address with the other's subnet. It returns none if there is no such lease, or if it is only held back.
func Outranked(n Network, leases []*Lease, subnets Subnets) []Problem {
	i, found := slices.BinarySearchFunc(leases, subnets, func(l *Lease, s Subnets) int { return CompareSubnets(l.Subnets, s) })
	if !found || leases[i].HeldBack {
		return nil
	}
	mine := leases[i].asStored()
	var suspects []*Lease
	for _, l := range leases {
		if l.Created <= mine.Created && !l.HeldBack && l.Subnets != subnets && meet(l, mine) {
			if l = l.asStored(); CompareSubnetClaims(l, mine) < 0 {
				suspects = append(suspects, l)
			}
		}
	}
	if len(suspects) == 0 {
		return nil
	}
	fresh := make([]*Lease, 0, len(leases))
	for _, l := range leases {
		if !l.HeldBack {
			fresh = append(fresh, l.asStored())
		}
	}
	reasons := against(n, fresh, mine)
	if len(reasons) == 0 {
		return nil
	}
	var problems []Problem
	for _, s := range suspects {
		if len(against(n, []*Lease{s, mine}, mine)) > 0 { // one that nobody uses takes nothing away
			problems = append(problems, Problem{Key: KeyOf(s.Subnets), Reason: strings.Join(reasons, "; ")})
		}
	}
	return problems
}

// against says why a newcomer leaves out one of the leases.
func against(n Network, leases []*Lease, mine *Lease) (reasons []string) {
	_, refused := Judge(n, leases, Self{})
	for _, p := range refused {
		if p.Key == KeyOf(mine.Subnets) {
			reasons = append(reasons, p.Reason)
		}
	}
	return reasons
}

// meet reports whether two leases have anything to do with each other.
func meet(a, b *Lease) bool {
	for _, f := range ip.Families() {
		p, q := a.Subnets.Of(f), b.Subnets.Of(f)
		if p.IsValid() && q.IsValid() && p.Overlaps(q) ||
			p.IsValid() && p.Contains(b.Attrs.Public.Of(f)) || q.IsValid() && q.Contains(a.Attrs.Public.Of(f)) {
			return true
		}
	}
	return false
}

// asStored returns the lease as a host sees it that has seen nothing before.
func (l *Lease) asStored() *Lease {
	if l.Standing == (Standing{}) {
		return l
	}
	other := *l
	other.Standing = Standing{}
	return &other
}
