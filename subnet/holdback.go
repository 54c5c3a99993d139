package subnet

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tulle/ip"
)

// HoldbackTime is how long hosts have to assert their leases again before a sudden loss is believed: etcd's client needs up
// to 6 s to find an etcd that came back with other data.
const HoldbackTime = 15 * time.Second

// Holdback is what a Store puts between what it reads and what Watch delivers. A view is not believed at once if most leases of the last
// one went at once, or if the store has gone back in time, as after a restore from a backup. Until a second
// complete read, the lost leases are delivered beside those of the view. The zero value has seen nothing.
type Holdback struct {
	last    []*Lease // as delivered
	holding bool
	kept    int
}

// Admit returns what to deliver of a view. back tells that the store holds older data than before.
func (h *Holdback) Admit(set Set, back bool) Set {
	if back || suddenLoss(h.last, set.Leases) {
		h.holding = true
	}
	if h.holding {
		set.Leases, h.kept = HoldBack(set.Leases, h.last)
		h.holding = h.kept > 0
	}
	h.last = set.Leases
	return set
}

// Confirm takes in a second complete read, and returns what to deliver: just that.
func (h *Holdback) Confirm(set Set) Set {
	h.last, h.holding = set.Leases, false
	return set
}

// Reason says for people what is held back; it is empty when nothing is.
func (h *Holdback) Reason() string {
	if !h.holding {
		return ""
	}
	what := "1 lease that went at once with others stays"
	if h.kept != 1 {
		what = fmt.Sprintf("%d leases that went at once stay", h.kept)
	}
	return what + " in force until a second look confirms the loss"
}

// suddenLoss reports whether more than half of the last leases went since, some of which may have been made anew: the
// others will be too.
func suddenLoss(last, now []*Lease) bool {
	lost := 0
	for i, j := range Changes(last, now) {
		if i >= 0 && (j < 0 || now[j] != last[i] && now[j].Created != last[i].Created) { // those that are shared need not be looked at
			lost++
		}
	}
	return 2*lost > len(last)
}

// HoldBack returns leases with those of an earlier view that are missing, by subnet, and how many these are. A lease that
// overlaps one that is there is not kept: the subnet belongs to somebody else now. Of a lease that is there in an older
// version, the newer one is kept. What is missing and kept is marked as held back.
func HoldBack(leases, earlier []*Lease) (all []*Lease, kept int) {
	all = slices.Clone(leases)
	at := make(map[Subnets]int, len(leases))
	for i, l := range leases {
		at[l.Subnets] = i
	}
	taken := occupied(leases, earlier)
	for i, l := range earlier {
		if j, ok := at[l.Subnets]; ok {
			if now := leases[j]; now.Attrs.Node == l.Attrs.Node && now.Revision < l.Revision {
				all[j] = l
				kept++
			}
			continue
		}
		if !taken[i] {
			all = append(all, l.heldBack())
			kept++
		}
	}
	slices.SortFunc(all, func(a, b *Lease) int { return CompareSubnets(a.Subnets, b.Subnets) })
	return all, kept
}

func (l *Lease) heldBack() *Lease {
	if l.HeldBack {
		return l
	}
	other := *l
	other.HeldBack = true
	return &other
}

// occupied tells of each of the earlier leases whether one of leases overlaps it.
func occupied(leases, earlier []*Lease) []bool {
	taken := make([]bool, len(earlier))
	for _, f := range ip.Families() {
		prefixes := make([]netip.Prefix, 0, len(leases)+len(earlier))
		for _, list := range [][]*Lease{leases, earlier} {
			for _, l := range list {
				prefixes = append(prefixes, l.Subnets.Of(f))
			}
		}
		all := nest(prefixes)
		for i := range leases {
			if prefixes[i].IsValid() {
				all[i].useSubnet()
			}
		}
		for i := range earlier {
			if j := len(leases) + i; prefixes[j].IsValid() && all[j].overlapped().IsValid() {
				taken[i] = true
			}
		}
	}
	return taken
}
