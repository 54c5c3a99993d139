package ip

import (
	"cmp"
	"net/netip"
	"slices"
)

// layer is one kind of object of a State. Whatever is done to a whole State is done to its layers, one by one.
type layer interface {
	sort(s *State)
	equal(a, b *State) bool
	clone(s *State)
	add(to, from *State)
	dedupe(s *State) // sorted
	except(s *State, part Part)
	// keepSurvivors leaves in a state what the kernel does not drop by itself when the links change.
	keepSurvivors(have *State, c linkChanges)
	diff(p *plan, have, want *State)
	// exchange and meets do what State.Exchange and State.Meets do.
	exchange(s, removed, added *State)
	meets(s, removed, added *State) bool
}

// layers are all kinds of objects, in the order in which Diff puts them in place: from the bottom up.
func layers() []layer {
	return []layer{
		kind[Sysctl]{
			of:    func(s *State) *[]Sysctl { return &s.Sysctls },
			order: func(a, b Sysctl) int { return cmp.Compare(a.Key, b.Key) },
			same:  identical[Sysctl],
			on:    func(s Sysctl) string { return s.Link },
			// Those of Tulle's links are put in place with these. Those of other links come before those of the host, which change what they mean.
			steps: func(p *plan, have, want *State) {
				diff(p, have.Sysctls, atHeight(want, onOthers), sysctlKey, keep)
				diff(p, have.Sysctls, atHeight(want, onHost), sysctlKey, keep)
			},
		},
		kind[Guard]{
			of:     func(s *State) *[]Guard { return &s.Guards },
			order:  func(a, b Guard) int { return compareTableID(a.id(), b.id()) },
			same:   Guard.Equal,
			parts:  func(g Guard) { slices.SortFunc(g.Peers, Peer.Compare) },
			clones: Guard.clone,
			steps:  func(p *plan, have, want *State) { diffGuards(p, have.Guards, want.Guards) },
			swap:   swapPeers,
			within: func(g Guard, p Part) bool { return g.Net == p.Net },
		},
		kind[Link]{
			of:     func(s *State) *[]Link { return &s.Links },
			order:  func(a, b Link) int { return cmp.Compare(a.Name, b.Name) },
			same:   identical[Link],
			within: func(l Link, p Part) bool { return slices.Contains(p.Scope.Links, l.Name) },
			steps: func(p *plan, have, want *State) {
				p.set = append(p.set, p.links.set...)
				p.del = append(p.del, p.links.del)
				diff(p, have.Sysctls, atHeight(want, onOwn), sysctlKey, keep)
				// A new link comes up only now: its settings decide what the kernel does at that moment.
				p.set = append(p.set, p.links.up...)
			},
		},
		kind[Addr]{
			of: func(s *State) *[]Addr { return &s.Addrs },
			order: func(a, b Addr) int {
				return cmp.Or(cmp.Compare(a.Link, b.Link), ComparePrefix(a.Prefix, b.Prefix))
			},
			same:  identical[Addr],
			on:    func(a Addr) string { return a.Link },
			steps: func(p *plan, have, want *State) { diff(p, have.Addrs, want.Addrs, addrKey, drop) },
		},
		kind[FDB]{
			of:      func(s *State) *[]FDB { return &s.FDB },
			order:   compareFDB,
			same:    identical[FDB],
			on:      func(f FDB) string { return f.Link },
			steps:   func(p *plan, have, want *State) { diff(p, have.FDB, want.FDB, fdbKey, drop) },
			swap:    swapBy(compareFDB),
			clashes: clashesBy(fdbKey, func(a, b FDB) int { return cmp.Or(cmp.Compare(a.Link, b.Link), slices.Compare(a.MAC[:], b.MAC[:])) }),
		},
		kind[Neighbor]{
			of:      func(s *State) *[]Neighbor { return &s.Neighbors },
			order:   compareNeighbor,
			same:    identical[Neighbor],
			on:      func(n Neighbor) string { return n.Link },
			flushed: true,
			steps:   func(p *plan, have, want *State) { diff(p, have.Neighbors, want.Neighbors, neighborKey, drop) },
			swap:    swapBy(compareNeighbor),
			clashes: clashesBy(neighborKey, compareNeighbor),
		},
		kind[Route]{
			of:     func(s *State) *[]Route { return &s.Routes },
			order:  compareRoute,
			same:   identical[Route],
			on:     func(r Route) string { return r.Link },
			within: func(r Route, p Part) bool { return slices.Contains(p.Scope.Links, r.Link) || p.Scope.contains(r.Dst) },
			steps: func(p *plan, have, want *State) {
				below := len(p.set)
				diff(p, have.Routes, want.Routes, routeKey, drop)
				p.set = append(p.set[:below], insertGatewayRoutes(p.set[below:], have.Routes)...)
			},
			swap:    swapBy(compareRoute),
			clashes: clashesBy(routeKey, func(a, b Route) int { return cmp.Or(ComparePrefix(a.Dst, b.Dst), cmp.Compare(a.Metric, b.Metric)) }),
		},
		kind[UnreachableRoute]{
			of:     func(s *State) *[]UnreachableRoute { return &s.Unreachable },
			order:  func(a, b UnreachableRoute) int { return ComparePrefix(a.Dst, b.Dst) },
			same:   identical[UnreachableRoute],
			within: func(d UnreachableRoute, p Part) bool { return p.Scope.contains(d.Dst) },
			steps: func(p *plan, have, want *State) {
				diff(p, have.Unreachable, want.Unreachable, func(d UnreachableRoute) netip.Prefix { return d.Dst }, drop)
			},
		},
		kind[Table]{
			of:     func(s *State) *[]Table { return &s.Tables },
			order:  func(a, b Table) int { return compareTableID(a.id(), b.id()) },
			same:   Table.Equal,
			within: func(t Table, p Part) bool { return t.Net == p.Net },
			steps:  func(p *plan, have, want *State) { diffTables(p, have.Tables, want.Tables) },
		},
		kind[Opening]{
			of:     func(s *State) *[]Opening { return &s.Openings },
			order:  compareOpening,
			same:   identical[Opening],
			within: func(o Opening, p Part) bool { return p.Scope.contains(o.Src) || p.Scope.contains(o.Dst) },
			steps:  func(p *plan, have, want *State) { diff(p, have.Openings, want.Openings, openingKey, drop) },
		},
		kind[Leftover]{
			of:    func(s *State) *[]Leftover { return &s.Leftovers },
			order: func(a, b Leftover) int { return comparePlace(Place(a), Place(b)) },
			same:  identical[Leftover],
			steps: func(p *plan, have, _ *State) {
				for _, l := range have.Leftovers {
					p.del = append(p.del, []Op{{Verb: Delete, Old: l}})
				}
			},
		},
	}
}

// kind is the layer of objects of type T. Of the functions, those that may be nil do nothing then.
type kind[T any] struct {
	of      func(*State) *[]T
	order   func(a, b T) int
	same    func(a, b T) bool
	parts   func(T)                // sorts what an object holds; may be nil
	clones  func(T) T              // of objects that Exchange changes from within; may be nil
	on      func(T) string         // the link that an object is on; may be nil
	flushed bool                   // a new MAC of that link takes it away as well
	within  func(o T, p Part) bool // is, or may be, of a network; nil: unless it is on another's link
	steps   func(p *plan, have, want *State)

	// For those that serve peers, see State.Exchange and State.Meets; may be nil.
	swap    func(all, removed, added []T) []T
	clashes func(all, removed, added []T) bool
}

func (k kind[T]) sort(s *State) {
	all := *k.of(s)
	slices.SortFunc(all, k.order)
	if k.parts != nil {
		for _, o := range all {
			k.parts(o)
		}
	}
}

func (k kind[T]) equal(a, b *State) bool { return slices.EqualFunc(*k.of(a), *k.of(b), k.same) }

func (k kind[T]) clone(s *State) {
	if k.swap == nil {
		return
	}
	all := slices.Clone(*k.of(s))
	for i := range all {
		if k.clones != nil {
			all[i] = k.clones(all[i])
		}
	}
	*k.of(s) = all
}

func (k kind[T]) except(s *State, part Part) {
	within := k.within
	if within == nil {
		within = func(o T, p Part) bool { return k.on == nil || slices.Contains(p.Scope.Links, k.on(o)) }
	}
	*k.of(s) = without(*k.of(s), func(o T) bool { return within(o, part) })
}

func (k kind[T]) dedupe(s *State) { *k.of(s) = slices.CompactFunc(*k.of(s), k.same) }

func (k kind[T]) add(to, from *State) { *k.of(to) = append(*k.of(to), *k.of(from)...) }

func (k kind[T]) keepSurvivors(have *State, c linkChanges) {
	if k.on == nil || len(c.emptied) == 0 && len(c.renamed) == 0 {
		return
	}
	*k.of(have) = without(*k.of(have), func(o T) bool { return c.emptied[k.on(o)] || k.flushed && c.renamed[k.on(o)] })
}

func (k kind[T]) diff(p *plan, have, want *State) { k.steps(p, have, want) }

func (k kind[T]) exchange(s, removed, added *State) {
	if k.swap != nil {
		*k.of(s) = k.swap(*k.of(s), *k.of(removed), *k.of(added))
	}
}

func (k kind[T]) meets(s, removed, added *State) bool {
	return k.clashes != nil && k.clashes(*k.of(s), *k.of(removed), *k.of(added))
}

func identical[T comparable](a, b T) bool { return a == b }

// swapBy is exchange for objects in an order.
func swapBy[T comparable](order func(a, b T) int) func(all, removed, added []T) []T {
	return func(all, removed, added []T) []T { return exchange(all, removed, added, order) }
}

// clashesBy is meets for objects with an identity, by an order in which those of one identity are neighbours.
func clashesBy[T, K comparable](id func(T) K, order func(a, b T) int) func(all, removed, added []T) bool {
	return func(all, removed, added []T) bool { return meets(all, removed, added, id, order) }
}
