package etcd

import (
	"cmp"
	"slices"

	"tulle/subnet"
)

// list is the leases of a view in order. Of ten thousand, few change from one delivery to the next: only these are looked up and sorted.
type list struct {
	keys    []string        // in the order of leases
	leases  []*subnet.Lease // as handed out last, and not to be changed
	changed []listed        // since then
}

// listed is where a lease is, or was, in a list.
type listed struct {
	key     string
	subnets subnet.Subnets
}

func (a listed) compare(b listed) int {
	return cmp.Or(subnet.CompareSubnets(a.subnets, b.subnets), cmp.Compare(a.key, b.key))
}

// of returns the leases among entries, by subnet.
func (l *list) of(entries map[string]entry) []*subnet.Lease {
	if len(l.changed) == 0 && len(l.leases) == len(entries) {
		return l.leases
	}
	slices.SortFunc(l.changed, listed.compare)
	l.changed = slices.CompactFunc(l.changed, func(a, b listed) bool { return a.compare(b) == 0 })
	old := *l
	l.keys, l.leases = make([]string, 0, len(entries)), make([]*subnet.Lease, 0, len(entries))
	from := 0
	for _, c := range old.changed {
		to, there := old.find(c, from)
		l.keys, l.leases = append(l.keys, old.keys[from:to]...), append(l.leases, old.leases[from:to]...)
		if from = to; there {
			from++
		}
		// What has moved was at one place and is at another.
		if e, ok := entries[c.key]; ok && e.Subnets == c.subnets {
			l.keys, l.leases = append(l.keys, c.key), append(l.leases, &e.Lease)
		}
	}
	l.keys, l.leases = append(l.keys, old.keys[from:]...), append(l.leases, old.leases[from:]...)
	l.changed = old.changed[:0]
	return l.leases
}

// find returns where c is, or would be, at from or after it.
func (l *list) find(c listed, from int) (int, bool) {
	low, high := from, len(l.keys)
	for low < high {
		mid := int(uint(low+high) >> 1)
		switch d := (listed{l.keys[mid], l.leases[mid].Subnets}).compare(c); {
		case d == 0:
			return mid, true
		case d < 0:
			low = mid + 1
		default:
			high = mid
		}
	}
	return low, false
}
