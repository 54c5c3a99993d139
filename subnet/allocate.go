package subnet

import (
	"crypto/sha256"
	"fmt"
	"math/big"
	"net/netip"
	"slices"

	"tulle/ip"
)

// Allocate chooses subnets for a claim, one per family in use: the previous one if it is free and fits n, else the
// first free one from a place that a hash of the node id gives, so that hosts that start together rarely collide.
//
// Not free is what overlaps a lease of set, whatever its length and state, or holds a public address of a lease or of the
// claim. A lease that covers a whole network can never be used, and must not stop every other host: it is ignored.
// To keep subnets of an own lease that is to be replaced, leave that lease out of set.
func Allocate(n Network, set Set, claim Claim) (Subnets, error) {
	var s Subnets
	families := n.Families()
	if len(families) == 0 {
		return s, ErrNoNetwork
	}
	for _, f := range families {
		p, err := allocate(f, n.Pools.Of(f), set.Leases, claim)
		if err != nil {
			return Subnets{}, err
		}
		s.Set(f, p)
	}
	return s, nil
}

// Fits reports whether s is what n hands out: a subnet of the right length between the bounds for each family in use, none for the others.
func (n Network) Fits(s Subnets) bool {
	for _, f := range ip.Families() {
		pool, p := n.Pools.Of(f), s.Of(f)
		if pool.Enabled() != p.IsValid() || pool.Enabled() && !pool.fits(p) {
			return false
		}
	}
	return true
}

// fits reports whether p is one of the subnets that the pool hands out.
func (p Pool) fits(subnet netip.Prefix) bool {
	return ip.Contains(p.Network, subnet) && subnet == subnet.Masked() && subnet.Bits() == p.SubnetLen &&
		!subnet.Addr().Less(p.Min) && !p.Max.Less(subnet.Addr())
}

func allocate(f ip.Family, pool Pool, leases []Lease, claim Claim) (netip.Prefix, error) {
	taken := takenIn(f, pool, leases, claim)
	if previous := claim.Previous.Of(f); pool.fits(previous) && !taken.overlaps(previous) {
		return previous, nil
	}
	start := pool.start(f, claim.Attrs.Node)
	if p, ok := taken.firstFree(start, pool.Max, pool.SubnetLen); ok {
		return p, nil
	}
	if p, ok := taken.firstFree(pool.Min, start, pool.SubnetLen); ok {
		return p, nil
	}
	return netip.Prefix{}, fmt.Errorf("allocate a /%d between %s and %s of %s beside %d leases: %w",
		pool.SubnetLen, pool.Min, pool.Max, pool.Network, len(leases), ErrExhausted)
}

// start returns the subnet of the pool at which the search for node begins.
func (p Pool) start(f ip.Family, node string) netip.Addr {
	hash := sha256.Sum256([]byte(node))
	size := new(big.Int).Lsh(big.NewInt(1), uint(f.Bits()-p.SubnetLen))
	low := ip.Number(p.Min)
	count := new(big.Int).Sub(ip.Number(p.Max), low)
	count.Div(count, size).Add(count, big.NewInt(1))
	offset := new(big.Int).SetBytes(hash[:])
	offset.Mod(offset, count).Mul(offset, size)
	addr, _ := ip.AddrOf(f, low.Add(low, offset)) // always fits: it is at most Max
	return addr
}

// space is a set of prefixes of one family that do not overlap, in order.
type space []netip.Prefix

func takenIn(f ip.Family, pool Pool, leases []Lease, claim Claim) space {
	all := make(space, 0, 2*len(leases)+4)
	for _, l := range leases {
		if p := l.Subnets.Of(f); p.IsValid() && !ip.Contains(p, pool.Network) {
			all = append(all, p.Masked())
		}
		if addr := l.Attrs.Public.Of(f); addr.IsValid() {
			all = append(all, ip.Host(addr))
		}
	}
	if addr := claim.Attrs.Public.Of(f); addr.IsValid() {
		all = append(all, ip.Host(addr))
	}
	for _, r := range reservedRanges(f) {
		all = append(all, r.prefix)
	}
	slices.SortFunc(all, ip.ComparePrefix)
	// Prefixes either nest or are disjoint, and a wider one sorts before what it holds.
	kept := all[:0]
	for _, p := range all {
		if len(kept) == 0 || !ip.Contains(kept[len(kept)-1], p) {
			kept = append(kept, p)
		}
	}
	return kept
}

// overlaps reports whether p overlaps a prefix of s.
func (s space) overlaps(p netip.Prefix) bool { return slices.ContainsFunc(s, p.Overlaps) }

// firstFree returns the first subnet from first to last, both included, that overlaps nothing. Each step passes a prefix
// of s as a whole, so that the size of the range does not matter.
func (s space) firstFree(first, last netip.Addr, bits int) (netip.Prefix, bool) {
	for addr := first; addr.IsValid() && !last.Less(addr); {
		p := netip.PrefixFrom(addr, bits)
		for len(s) > 0 && s[0].Addr().Less(addr) && !s[0].Overlaps(p) {
			s = s[1:]
		}
		if len(s) == 0 || !s[0].Overlaps(p) {
			return p, true
		}
		blocked := ip.Last(netip.PrefixFrom(ip.Last(s[0]), bits))
		addr = blocked.Next() // invalid after the last address of the family
	}
	return netip.Prefix{}, false
}
