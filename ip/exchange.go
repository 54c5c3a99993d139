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
func (s *State) Exchange(removed, added State) {
	for _, l := range layers() {
		l.exchange(s, &removed, &added)
	}
}

func exchange[T comparable](all, removed, added []T, compare func(a, b T) int) []T {
	for _, g := range removed {
		if i, found := slices.BinarySearchFunc(all, g, compare); found && all[i] == g && !slices.Contains(added, g) {
			all = slices.Delete(all, i, i+1)
		}
	}
	for _, c := range added {
		if i, found := slices.BinarySearchFunc(all, c, compare); found {
			all[i] = c
		} else {
			all = slices.Insert(all, i, c)
		}
	}
	return all
}

// Meets reports whether s has an object with the identity of one of added that is not the same and not among removed: an
// object of another peer, which Exchange would replace or double. The states must be sorted.
func (s *State) Meets(removed, added State) bool {
	return slices.ContainsFunc(layers(), func(l layer) bool { return l.meets(s, &removed, &added) })
}

// meets looks for the objects by an order in which those of one identity are neighbours.
func meets[T, K comparable](all, removed, added []T, id func(T) K, compare func(a, b T) int) bool {
	for _, c := range added {
		i, found := slices.BinarySearchFunc(all, c, compare)
		for ; found && i < len(all) && id(all[i]) == id(c); i++ {
			if !slices.Contains(removed, all[i]) {
				return true
			}
		}
	}
	return false
}
