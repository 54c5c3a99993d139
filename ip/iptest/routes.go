package iptest

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"tulle/ip"
)

// routes are those of the main table by their destination, the preferred one of each first.
type routes map[netip.Prefix][]ip.Route

// put adds a route, in place of one of the same destination and metric.
func (t routes) put(r ip.Route) {
	n, found := slices.BinarySearchFunc(t[r.Dst], r, byMetric)
	if found {
		t[r.Dst][n] = r
		return
	}
	t[r.Dst] = slices.Insert(t[r.Dst], n, r)
}

func byMetric(a, b ip.Route) int { return cmp.Compare(a.Metric, b.Metric) }

// deleteFirst deletes the preferred one of the routes to a destination that are meant.
func (t routes) deleteFirst(dst netip.Prefix, meant func(ip.Route) bool) {
	if n := slices.IndexFunc(t[dst], meant); n >= 0 {
		t.set(dst, slices.Delete(t[dst], n, n+1))
	}
}

func (t routes) deleteFunc(meant func(ip.Route) bool) {
	for dst, all := range t {
		t.set(dst, slices.DeleteFunc(all, meant))
	}
}

func (t routes) set(dst netip.Prefix, all []ip.Route) {
	if t[dst] = all; len(all) == 0 {
		delete(t, dst)
	}
}

func (t routes) all() iter.Seq[ip.Route] {
	return func(yield func(ip.Route) bool) {
		for _, all := range t {
			for _, r := range all {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// lookup finds the route with the longest prefix that addr is in.
func (t routes) lookup(addr netip.Addr) (best ip.Route, ok bool) {
	for bits := addr.BitLen(); bits >= 0; bits-- {
		if all := t[netip.PrefixFrom(addr, bits).Masked()]; len(all) > 0 {
			return all[0], true
		}
	}
	return best, false
}
