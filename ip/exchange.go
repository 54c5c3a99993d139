package ip

import (
	"cmp"
	"slices"
)

func compareFDB(a, b FDB) int {
	return cmp.Or(cmp.Compare(a.Link, b.Link), slices.Compare(a.MAC[:], b.MAC[:]), a.Dst.Compare(b.Dst))
}

func compareNeighbor(a, b Neighbor) int {
	return cmp.Or(cmp.Compare(a.Link, b.Link), a.IP.Compare(b.IP))
}

func compareRoute(a, b Route) int {
	return cmp.Or(ComparePrefix(a.Dst, b.Dst), cmp.Compare(a.Metric, b.Metric), a.Via.Compare(b.Via), cmp.Compare(a.Link, b.Link))
}

// Exchange takes what serves some peers out of s and puts what serves others into it: forwarding entries, neighbours, routes, and
// the peers of guards. All three states must be sorted. It changes s in place, in a time that hardly depends on its size.
func (s *State) Exchange(gone, come State) {
	s.FDB = exchange(s.FDB, gone.FDB, come.FDB, compareFDB)
	s.Neighbors = exchange(s.Neighbors, gone.Neighbors, come.Neighbors, compareNeighbor)
	s.Routes = exchange(s.Routes, gone.Routes, come.Routes, compareRoute)
	for i, g := range s.Guards {
		s.Guards[i].Peers = exchange(g.Peers, peersOf(gone, g), peersOf(come, g), Peer.Compare)
	}
}

func peersOf(s State, guard Guard) []Peer {
	for _, g := range s.Guards {
		if g.guards(guard) {
			return g.Peers
		}
	}
	return nil
}

func exchange[T comparable](all, gone, come []T, compare func(a, b T) int) []T {
	for _, g := range gone {
		if i, found := slices.BinarySearchFunc(all, g, compare); found && all[i] == g && !slices.Contains(come, g) {
			all = slices.Delete(all, i, i+1)
		}
	}
	for _, c := range come {
		if i, found := slices.BinarySearchFunc(all, c, compare); found {
			all[i] = c
		} else {
			all = slices.Insert(all, i, c)
		}
	}
	return all
}

// Meets reports whether s has an object with the identity of one of come that is not the same and not among gone: an
// object of another peer, which Exchange would replace or double. The states must be sorted.
func (s *State) Meets(gone, come State) bool {
	return meets(s.FDB, gone.FDB, come.FDB, fdbKey, func(a, b FDB) int {
		return cmp.Or(cmp.Compare(a.Link, b.Link), slices.Compare(a.MAC[:], b.MAC[:]))
	}) || meets(s.Neighbors, gone.Neighbors, come.Neighbors, neighborKey, compareNeighbor) ||
		meets(s.Routes, gone.Routes, come.Routes, routeKey, func(a, b Route) int {
			return cmp.Or(ComparePrefix(a.Dst, b.Dst), cmp.Compare(a.Metric, b.Metric))
		})
}

// meets looks for the objects by an order in which those of one identity are neighbours.
func meets[T, K comparable](all, gone, come []T, id func(T) K, compare func(a, b T) int) bool {
	for _, c := range come {
		i, found := slices.BinarySearchFunc(all, c, compare)
		for ; found && i < len(all) && id(all[i]) == id(c); i++ {
			if !slices.Contains(gone, all[i]) {
				return true
			}
		}
	}
	return false
}
