package subnet

import (
	"bytes"
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"tulle/ip"
)

// Standing says since when the claims of a lease have stood, as places in the order in which one host has seen claims.
// Zero means since the lease was made: a revision of the store is a place as well.
type Standing struct {
	Subnets Revision // the claim to the subnets
	Attrs   Revision // that to the public addresses and to what the backend publishes, such as a MAC
	Gone    Revision // of a lease that is remembered only: since when it is not there
}

func (l *Lease) subnetsSince() Revision { return cmp.Or(l.Standing.Subnets, l.Created) }
func (l *Lease) attrsSince() Revision   { return cmp.Or(l.Standing.Attrs, l.Created) }

// CompareSubnetClaims orders leases by whose claim to its subnets counts first: of those that are in the store the one that has
// stood for longer, and of two that came at once the one with lower subnets; then those that are only held back.
func CompareSubnetClaims(a, b *Lease) int {
	return compareClaims(a, b, a.subnetsSince(), b.subnetsSince())
}

// CompareAttrsClaims orders leases likewise by whose claim to its addresses and backend data counts first.
func CompareAttrsClaims(a, b *Lease) int { return compareClaims(a, b, a.attrsSince(), b.attrsSince()) }

func compareClaims(a, b *Lease, since, other Revision) int {
	if a.HeldBack != b.HeldBack {
		if b.HeldBack {
			return -1
		}
		return 1
	}
	if since != other {
		return cmp.Compare(since, other)
	}
	return CompareSubnets(a.Subnets, b.Subnets)
}

// mostFormer bounds the leases that are remembered after they went. Those are forgotten first that have been gone for long by the
// time for which they stood: whoever makes and deletes leases cannot make a host forget the others, and hosts that will not
// come back do not stay in the way of those that may.
const mostFormer = 1 << 14

// Memory gives the leases of each view of the store their standing, by what the views before it showed. The store's own age
// of a key begins anew when the key is made anew, after an expiry, a deletion or a wipe; the standing does not, if the
// lease comes back with the same node id and instance: whatever lay in wait for that stays behind it. Nor does a lease
// gain by its age what it says only later. The zero value has seen nothing, and takes the age of the keys.
type Memory struct {
	seen   []*Lease // the last view, by subnet
	ranked []*Lease // the same with their standing
	former map[holder]*Lease
	last   Revision // no place has been given behind this one
}

// holder is the host that had a lease. A flanneld has no node id, and goes by its addresses.
type holder struct {
	node, instance string
	public         ip.Dual[netip.Addr]
}

func holderOf(l *Lease) holder {
	if l.Attrs.Node == "" {
		return holder{public: l.Attrs.Public}
	}
	return holder{node: l.Attrs.Node, instance: l.Attrs.Instance}
}

// Restore makes m remember a view, its leases with their standing, and those that went before it.
func (m *Memory) Restore(set Set, former []*Lease) {
	*m = Memory{seen: set.Leases, ranked: set.Leases, former: make(map[holder]*Lease, len(former)), last: set.Revision}
	for _, l := range set.Leases {
		m.last = max(m.last, l.subnetsSince(), l.attrsSince())
	}
	for _, l := range former {
		m.last = max(m.last, l.subnetsSince(), l.attrsSince(), l.Standing.Gone)
		m.former[holderOf(l)] = l
	}
}

// Former returns the leases that are gone and remembered, in no order.
func (m *Memory) Former() []*Lease {
	return slices.AppendSeq(make([]*Lease, 0, len(m.former)), maps.Values(m.former))
}

// Rank returns the leases of a view, which are ordered by subnet, with their standing. A lease that is shared with the last
// view stays shared. What is new in the view gets a place behind all that has been seen: in a store that lost its data
// the revisions begin anew, and say nothing about what was there before.
func (m *Memory) Rank(set Set) []*Lease {
	if slices.Equal(m.seen, set.Leases) {
		m.last = max(m.last, set.Revision)
		return m.ranked
	}
	if m.seen == nil && m.last == 0 {
		m.Restore(set, nil)
		return m.ranked
	}
	v := viewing{memory: m, ranked: make([]*Lease, len(set.Leases)), gone: map[holder]*Lease{}}
	v.walk(set.Leases)
	v.rankNew()
	m.last = max(m.last, set.Revision)
	m.forget(v.gone)
	m.seen, m.ranked = set.Leases, v.ranked
	return m.ranked
}

// forget takes in what has gone, and lets go what is too much.
func (m *Memory) forget(gone map[holder]*Lease) {
	if m.former == nil {
		m.former = make(map[holder]*Lease, len(gone))
	}
	for who, l := range gone {
		if had := m.former[who]; had == nil || l.subnetsSince() <= had.subnetsSince() {
			went := *l
			went.HeldBack, went.Standing = false, Standing{l.subnetsSince(), l.attrsSince(), m.last}
			m.former[who] = &went
		}
	}
	if len(m.former) > mostFormer {
		all := m.Former()
		slices.SortFunc(all, func(a, b *Lease) int { return cmp.Or(cmp.Compare(b.worth(), a.worth()), CompareSubnetClaims(a, b)) })
		for _, l := range all[mostFormer:] {
			delete(m.former, holderOf(l))
		}
	}
}

// worth is for how much longer a lease stood than it has been gone for, up to what is the same for all.
func (l *Lease) worth() Revision { return 2*l.Standing.Gone - l.subnetsSince() }

// viewing is the ranking of one view.
type viewing struct {
	memory   *Memory
	ranked   []*Lease
	gone     map[holder]*Lease // since the last view
	come     []int             // made since, by index
	placings []placing
}

// placing is what gets a place of its own.
type placing struct {
	lease          int // index
	at             Revision
	subnets, attrs bool
}

// walk compares two views, both ordered by subnet, and carries over what has stood before.
func (v *viewing) walk(leases []*Lease) {
	m := v.memory
	for i, j := range Changes(m.seen, leases) {
		if j < 0 {
			v.leave(m.ranked[i])
			continue
		}
		l := leases[j]
		if i < 0 {
			v.ranked[j] = l
			v.come = append(v.come, j)
			continue
		}
		was := m.ranked[i]
		switch {
		case m.seen[i] == l:
			v.ranked[j] = was
		case l.Created == was.Created || holderOf(l) == holderOf(was):
			v.carry(j, l, was, l.Revision)
		default:
			v.leave(was)
			v.ranked[j] = l
			v.come = append(v.come, j)
		}
	}
	for _, j := range v.come {
		l := leases[j]
		who := holderOf(l)
		was := v.gone[who]
		if had := m.former[who]; was == nil || had != nil && CompareSubnetClaims(had, was) < 0 {
			was = had
		}
		if was == nil || was.Subnets != l.Subnets && !sameAttrs(was, l) {
			v.placings = append(v.placings, placing{lease: j, at: l.Created, subnets: true, attrs: true})
			continue
		}
		v.carry(j, l, was, l.Created)
		if was.Subnets == l.Subnets {
			delete(v.gone, who)
			delete(m.former, who)
		}
	}
}

func (v *viewing) leave(l *Lease) {
	who := holderOf(l)
	if who == (holder{}) {
		return
	}
	if had := v.gone[who]; had == nil || CompareSubnetClaims(l, had) < 0 {
		v.gone[who] = l
	}
}

// carry gives a lease the standing of an earlier one in what it has in common with it; the rest came at a revision.
func (v *viewing) carry(j int, l, was *Lease, at Revision) {
	rest := placing{lease: j, at: at, subnets: was.Subnets != l.Subnets, attrs: !sameAttrs(was, l)}
	var s Standing
	if !rest.subnets {
		s.Subnets = was.subnetsSince()
	}
	if !rest.attrs {
		s.Attrs = was.attrsSince()
	}
	v.ranked[j] = l.standing(s)
	if rest.subnets || rest.attrs {
		v.placings = append(v.placings, rest)
	}
}

// rankNew gives what is new its place: its revision if all that has been seen is older, as it is but in a store that lost
// data, or for a key that was no lease before.
func (v *viewing) rankNew() {
	slices.SortFunc(v.placings, func(a, b placing) int {
		return cmp.Or(cmp.Compare(a.at, b.at), CompareSubnets(v.ranked[a.lease].Subnets, v.ranked[b.lease].Subnets))
	})
	before := v.memory.last
	last := before
	for _, p := range v.placings {
		at := p.at
		if at <= before || at < last {
			at = last + 1
		}
		last = at
		l := v.ranked[p.lease]
		s := Standing{Subnets: l.subnetsSince(), Attrs: l.attrsSince()}
		if p.subnets {
			s.Subnets = at
		}
		if p.attrs {
			s.Attrs = at
		}
		v.ranked[p.lease] = l.standing(s)
	}
	v.memory.last = last
}

// standing returns a lease with a standing: l itself if that is what its key's age says.
func (l *Lease) standing(s Standing) *Lease {
	if l.subnetsSince() == cmp.Or(s.Subnets, l.Created) && l.attrsSince() == cmp.Or(s.Attrs, l.Created) {
		return l
	}
	other := *l
	other.Standing = s
	return &other
}

// sameAttrs reports whether two leases say the same of where their host is reached.
func sameAttrs(a, b *Lease) bool {
	return a.Attrs.Public == b.Attrs.Public && a.Attrs.BackendType == b.Attrs.BackendType &&
		bytes.Equal(a.Attrs.BackendData.V4, b.Attrs.BackendData.V4) && bytes.Equal(a.Attrs.BackendData.V6, b.Attrs.BackendData.V6)
}
