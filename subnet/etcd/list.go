package etcd

import (
	"slices"

	"tulle/subnet"
)

// list is the leases of a view in order. Of ten thousand, few change from one delivery to the next: only these are looked up and sorted.
type list struct {
	leases  []*subnet.Lease // as handed out last, and not to be changed; nil before the first time
	changed []listed        // since then
}

// listed is a key and the subnets that it names.
type listed struct {
	key     string
	subnets subnet.Subnets
}

func (a listed) compare(b listed) int { return subnet.CompareSubnets(a.subnets, b.subnets) }

// touch takes in that a lease has come, gone or changed.
func (l *list) touch(key string, s subnet.Subnets) {
	if l.leases != nil {
		l.changed = append(l.changed, listed{key, s})
	}
}

// of returns the leases among entries, by subnet.
func (l *list) of(entries map[string]*entry) []*subnet.Lease {
	if l.leases == nil {
		return l.all(entries)
	}
	if len(l.changed) == 0 {
		return l.leases
	}
	slices.SortFunc(l.changed, listed.compare)
	l.changed = slices.CompactFunc(l.changed, func(a, b listed) bool { return a.key == b.key })
	old := l.leases
	l.leases = make([]*subnet.Lease, 0, len(entries))
	for _, c := range l.changed {
		to, there := slices.BinarySearchFunc(old, c.subnets, func(o *subnet.Lease, s subnet.Subnets) int { return subnet.CompareSubnets(o.Subnets, s) })
		l.leases = append(l.leases, old[:to]...)
		if old = old[to:]; there {
			old = old[1:]
		}
		if e, ok := entries[c.key]; ok {
			l.leases = append(l.leases, &e.Lease)
		}
	}
	l.leases = append(l.leases, old...)
	l.changed = l.changed[:0]
	return l.leases
}

// all lists entries for the first time.
func (l *list) all(entries map[string]*entry) []*subnet.Lease {
	l.leases = make([]*subnet.Lease, 0, len(entries))
	for _, e := range entries {
		l.leases = append(l.leases, &e.Lease)
	}
	slices.SortFunc(l.leases, func(a, b *subnet.Lease) int { return subnet.CompareSubnets(a.Subnets, b.Subnets) })
	return l.leases
}
