package subnet

import "tulle/ip"

// Mine returns the lease in set that is the claim's own: the one with its node id; if there is none, the one with its
// public address (IPv4 first) and no node id, which a flanneld on this host or a reservation left. Among several it
// takes that of its instance, else the one that the host held before, else one that is not known to be of another machine,
// else the oldest.
func Mine(set Set, claim Claim) (Lease, bool) {
	if claim.Attrs.Node != "" {
		mine, ok := pick(set.Leases, claim, func(l *Lease) bool { return l.Attrs.Node == claim.Attrs.Node })
		if ok {
			return mine, true
		}
	}
	for _, f := range ip.Families() {
		addr := claim.Attrs.Public.Of(f)
		if !addr.IsValid() || addr.IsUnspecified() {
			continue
		}
		mine, ok := pick(set.Leases, claim, func(l *Lease) bool {
			return l.Attrs.Node == "" && l.Attrs.Public.Of(f) == addr
		})
		if ok {
			return mine, true
		}
	}
	return Lease{}, false
}

func pick(leases []*Lease, claim Claim, matches func(*Lease) bool) (best Lease, found bool) {
	for _, l := range leases {
		if matches(l) && (!found || claim.prefers(l, &best)) {
			best, found = *l, true
		}
	}
	return best, found
}

// prefers reports whether a is the claim's own rather than b.
func (c Claim) prefers(a, b *Lease) bool {
	for _, likely := range []func(*Lease) bool{
		c.wrote,
		func(l *Lease) bool { return l.Subnets == c.Previous },
		func(l *Lease) bool { return !l.Attrs.Elsewhere(c.Attrs) },
	} {
		if x, y := likely(a), likely(b); x != y {
			return x
		}
	}
	return CompareSubnetClaims(a, b) < 0
}

// wrote reports whether the claim's instance wrote l, since its machine booted.
func (c Claim) wrote(l *Lease) bool {
	return c.Attrs.Instance != "" && l.Attrs.Node == c.Attrs.Node && l.Attrs.Instance == c.Attrs.Instance
}
