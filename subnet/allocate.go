package subnet

import (
	"crypto/sha256"
	"fmt"
	"math/big"
	"net/netip"
	"slices"

	"tulle/ip"
)

// Allocate chooses subnets for a claim, one per family in use: the previous one if it is free and fits n, else the one that
// set.FormerOwners says the node had last. A host without either gets one that nobody has had, from a place that a hash of the node id gives, so that
// hosts that start together rarely collide; then those given back, the longest ago first, and then those that expired, likewise.
//
// Not free is what overlaps a lease of set, whatever its length and state, or holds a public address of a lease or of the
// claim. A lease that covers a whole network can never be used, and must not stop every other host: it is ignored.
// To keep subnets of an own lease that is to be replaced, leave that lease out of set.
//
// Other than the previous one, it gives no subnet that overlaps what the claim avoids. What is to be avoided and is wider than the whole
// network leaves nothing to choose: the network was cut out of it, and it is ignored.
func Allocate(n Network, set Set, claim Claim) (Subnets, error) {
	return allocateAgain(n, set, claim, 0)
}

// allocateAgain is Allocate for a claim that lost races for what it was given. Each moves it elsewhere, so that hosts
// that met once part ways.
func allocateAgain(n Network, set Set, claim Claim, lost int) (Subnets, error) {
	var s Subnets
	families := n.Families()
	if len(families) == 0 {
		return s, ErrNoNetwork
	}
	for _, f := range families {
		p, err := allocate(f, n.Pools.Of(f), set, claim, lost)
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

func allocate(f ip.Family, pool Pool, set Set, claim Claim, lost int) (netip.Prefix, error) {
	taken := takenIn(f, pool, set.Leases, claim)
	if previous := claim.Previous.Of(f); pool.fits(previous) && !taken.overlaps(previous) {
		return previous, nil
	}
	avoided := slices.DeleteFunc(slices.Clone(claim.Avoid), func(p netip.Prefix) bool {
		return !p.Overlaps(pool.Network) || p.Bits() < pool.Network.Bits()
	})
	taken = newSpace(slices.Concat(taken, avoided))
	free, had := pool.formerOwners(f, set.FormerOwners, taken)
	if p, ok := free.lastOf(claim.Attrs.Node); ok {
		return p, nil
	}
	start := pool.start(f, draw(claim.Attrs.Node, lost))
	if p, ok := newSpace(slices.Concat(taken, had)).firstFreeAround(start, pool); ok {
		return p, nil
	}
	if p, ok := free.oldest(claim.Attrs.Node, lost); ok {
		return p, nil
	}
	if p, ok := taken.firstFreeAround(start, pool); ok {
		return p, nil
	}
	err := fmt.Errorf("allocate a /%d between %s and %s of %s beside %d leases: %w", pool.SubnetLen, pool.Min, pool.Max, pool.Network, len(set.Leases), ErrExhausted)
	if len(avoided) > 0 {
		err = fmt.Errorf("%w that does not overlap %s, which this host is in: give the network other addresses with tulle config set", err, avoided)
	}
	return netip.Prefix{}, err
}

// draw is a number that depends on the node and on the races that it lost, and on nothing else.
func draw(node string, lost int) *big.Int {
	if lost > 0 {
		node = fmt.Sprintf("%s %d", node, lost)
	}
	hash := sha256.Sum256([]byte(node))
	return new(big.Int).SetBytes(hash[:])
}

// start returns the subnet of the pool at which the search begins.
func (p Pool) start(f ip.Family, number *big.Int) netip.Addr {
	size := new(big.Int).Lsh(big.NewInt(1), uint(f.Bits()-p.SubnetLen))
	low := ip.Number(p.Min)
	count := new(big.Int).Sub(ip.Number(p.Max), low)
	count.Div(count, size).Add(count, big.NewInt(1))
	offset := number.Mod(number, count)
	offset.Mul(offset, size)
	addr, _ := ip.AddrOf(f, low.Add(low, offset)) // always fits: it is at most Max
	return addr
}

// space is a set of prefixes of one family that do not overlap, in order.
type space []netip.Prefix

func takenIn(f ip.Family, pool Pool, leases []*Lease, claim Claim) space {
	all := make([]netip.Prefix, 0, 2*len(leases)+4)
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
	for _, r := range ReservedRanges(f) {
		all = append(all, r.Prefix)
	}
	return newSpace(all)
}

// newSpace takes over the slice.
func newSpace(all []netip.Prefix) space {
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
func (s space) overlaps(p netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(s, p.Addr(), func(q netip.Prefix, addr netip.Addr) int { return q.Addr().Compare(addr) })
	return i < len(s) && s[i].Overlaps(p) || i > 0 && s[i-1].Overlaps(p)
}

// firstFreeAround returns the first subnet of the pool from start on that overlaps nothing, or the first from its beginning.
func (s space) firstFreeAround(start netip.Addr, pool Pool) (netip.Prefix, bool) {
	if p, ok := s.firstFree(start, pool.Max, pool.SubnetLen); ok {
		return p, true
	}
	return s.firstFree(pool.Min, start, pool.SubnetLen)
}

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
