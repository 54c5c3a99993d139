package subnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"tulle/ip"
)

// Assignment is what a claim gets by one view of the store.
type Assignment struct {
	Mine    Lease   // the claim's own lease; zero without one
	Held    bool    // there is such a lease
	Subnets Subnets // to be held from now on: those of Mine as far as they are still good
}

// Assign decides what a claim gets: its own lease if the network still hands it out and no older lease overlaps it, else
// the good part of it beside newly allocated subnets, else newly allocated ones.
func Assign(set Set, claim Claim) (Assignment, error) { return AssignAgain(set, claim, 0) }

// AssignAgain is Assign for a claim that lost races. After each, the search begins elsewhere, so that hosts
// that met once part ways.
func AssignAgain(set Set, claim Claim, lost int) (Assignment, error) {
	if set.Network == nil {
		return Assignment{}, ErrNoNetwork
	}
	wanted := claim.Previous
	mine, held := Mine(set, claim)
	moves := held && claim.Only && mine.Subnets != wanted // containers use wanted, whatever the store came to say meanwhile
	if moves && mine.Attrs.Node == "" {
		mine, held = Lease{}, false // a reservation waits for a restart
	}
	others := set
	others.Leases = make([]*Lease, 0, len(set.Leases))
	for _, l := range set.Leases {
		if !held || l.Subnets != mine.Subnets {
			others.Leases = append(others.Leases, l)
		}
	}
	p := Assignment{Mine: mine, Held: held, Subnets: mine.Subnets}
	if held && !moves {
		good := goodParts(*set.Network, mine, others.Leases)
		if good == mine.Subnets && set.Network.Fits(good) {
			return p, nil
		}
		for _, f := range ip.Families() {
			if good.Of(f).IsValid() {
				claim.Previous.Set(f, good.Of(f))
			}
		}
	}
	var err error
	p.Subnets, err = allocateAgain(*set.Network, others, claim, lost)
	if claim.Only && p.Subnets != wanted && (err == nil || errors.Is(err, ErrExhausted)) {
		return p, taken(*set.Network, wanted, others.Leases)
	}
	return p, err
}

// taken says which host has what a claim insists on.
func taken(n Network, wanted Subnets, others []*Lease) error {
	for _, l := range others {
		if l.Takes(wanted, &n) {
			return LostTo(wanted, *l)
		}
	}
	for _, l := range others {
		for _, f := range ip.Families() {
			if public := l.Attrs.Public.Of(f); wanted.Of(f).Contains(public) {
				return fmt.Errorf("%w: %s has the public address %s of %s, which holds %s: if it should not, run: tulle leases release '%s'",
					ErrLost, KeyOf(wanted), public, l.Attrs.Owner(), KeyOf(l.Subnets), KeyOf(l.Subnets))
			}
		}
	}
	return fmt.Errorf("%w: the network no longer hands out %s", ErrLost, KeyOf(wanted))
}

// goodParts returns the subnets of mine that n hands out and that no older lease overlaps. A lease that no host uses
// because it is too wide or outside the network does not count: one stray key must not make hosts renumber.
func goodParts(n Network, mine Lease, others []*Lease) (good Subnets) {
	for _, f := range ip.Families() {
		if n.Pools.Of(f).fits(mine.Subnets.Of(f)) {
			good.Set(f, mine.Subnets.Of(f))
		}
	}
	for _, l := range others {
		if CompareSubnetClaims(l, &mine) >= 0 {
			continue
		}
		for _, f := range Overlap(good, l.Subnets) {
			pool, other := n.Pools.Of(f), l.Subnets.Of(f)
			if other.Bits() >= pool.SubnetLen && ip.Contains(pool.Network, other) {
				good.Set(f, netip.Prefix{})
			}
		}
	}
	return good
}

// Takes reports whether a lease has a part of some subnets. One that covers a whole network can never be used, and must not stop every other host. A
// network that is nil is not known.
func (l *Lease) Takes(some Subnets, n *Network) bool {
	return slices.ContainsFunc(Overlap(l.Subnets, some), func(f ip.Family) bool { return n == nil || !ip.Contains(l.Subnets.Of(f), n.Pools.Of(f).Network) })
}

// Overlap returns the families in which a and b share addresses.
func Overlap(a, b Subnets) []ip.Family {
	var shared []ip.Family
	for _, f := range ip.Families() {
		if a.Of(f).IsValid() && b.Of(f).IsValid() && a.Of(f).Overlaps(b.Of(f)) {
			shared = append(shared, f)
		}
	}
	return shared
}
