package subnet

import (
	"cmp"

	"tulle/ip"
)

// Mine returns the lease in set that is the claim's own: the one with its node id; if there is none, the one with its
// public address (IPv4 first) and no node id, which a flanneld on this host or a reservation left. Among several it
// takes the one that the host held before, else the oldest.
func Mine(set Set, claim Claim) (Lease, bool) {
	if claim.Attrs.Node != "" {
		mine, ok := pick(set.Leases, claim.Previous, func(l Lease) bool { return l.Attrs.Node == claim.Attrs.Node })
		if ok {
			return mine, true
		}
	}
	for _, f := range ip.Families() {
		addr := claim.Attrs.Public.Of(f)
		if !addr.IsValid() || addr.IsUnspecified() {
			continue
		}
		mine, ok := pick(set.Leases, claim.Previous, func(l Lease) bool {
			return l.Attrs.Node == "" && l.Attrs.Public.Of(f) == addr
		})
		if ok {
			return mine, true
		}
	}
	return Lease{}, false
}

func pick(leases []*Lease, previous Subnets, matches func(Lease) bool) (best Lease, found bool) {
	for _, l := range leases {
		switch {
		case !matches(*l):
		case l.Subnets == previous:
			return *l, true
		case !found || older(*l, best):
			best, found = *l, true
		}
	}
	return best, found
}

// older reports whether a counts before b.
func older(a, b Lease) bool { return compareAge(&a, &b) < 0 }

// compareAge orders leases by what counts first: the older one, and of two created at once the one with lower subnets.
func compareAge(a, b *Lease) int {
	if c := cmp.Compare(a.Created, b.Created); c != 0 {
		return c
	}
	return CompareSubnets(a.Subnets, b.Subnets)
}
