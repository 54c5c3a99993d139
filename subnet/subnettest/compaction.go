package subnettest

import (
	"testing"
	"time"

	"tulle/subnet"
)

func compactionTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"CompactedWhileAway":       compactedWhileAway,
		"CompactedConfigIsUnknown": compactedConfigIsUnknown,
		"DeletedAndCompacted":      deletedAndCompacted,
		"TakenAndCompacted":        takenAndCompacted,
		"CompactionIsNotNoticed":   compactionIsNotNoticed,
	}
}

func compactedWhileAway(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	h.Put("subnets/10.5.1.0-24", flanneldValue, time.Hour)
	h.Put("subnets/10.5.2.0-24", flanneldValue, time.Hour)
	far := h.OpenAfar()
	w := watchBy(t, far.Store)
	stays := hasLease(subnet.Subnets{V4: prefix("10.5.2.0/24")})
	comes := hasLease(subnet.Subnets{V4: prefix("10.5.3.0/24")})
	w.until("two leases", leaseCount(2))
	far.Cut()
	h.Delete("subnets/10.5.1.0-24")
	h.Put("subnets/10.5.2.0-24", flanneldValue, time.Hour)
	h.Put("subnets/10.5.3.0-24", flanneldValue, time.Hour)
	h.Compact()
	far.Mend()
	set := w.until("the changes", func(set subnet.Set) bool {
		if !stays(set) {
			t.Errorf("set = %+v, want the lease that was there all the time", set)
		}
		return comes(set)
	})
	if len(set.Leases) != 2 || len(set.Problems) > 0 {
		t.Errorf("set = %+v, want the two leases that are left", set)
	}
	h.Delete("subnets/10.5.3.0-24")
	w.until("one lease", leaseCount(1))
}

// A good configuration that came and went unseen is followed only as long as the store remembers it.
func compactedConfigIsUnknown(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	far := h.OpenAfar()
	w := watchBy(t, far.Store)
	before := w.until("a network", func(set subnet.Set) bool { return set.Network != nil })
	far.Cut()
	h.Put("config", configDual, 0)
	h.Put("config", "{", 0)
	h.Compact()
	far.Mend()
	after := w.until("a problem", func(set subnet.Set) bool { return len(set.Problems) > 0 })
	if after.Network == nil || after.Network.Revision != before.Network.Revision {
		t.Errorf("network = %+v, want the last good one that was seen", after.Network)
	}
}

func deletedAndCompacted(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	x, far := startAfar(t, h, claimOf(1))
	w := watch(t, h)
	before := w.until("the lease", hasLease(x.subnets()))
	far.Cut()
	h.Delete(keyOf(x.subnets()))
	h.Compact()
	far.Mend()
	w.until("the lease made anew", func(set subnet.Set) bool {
		return hasLease(x.subnets())(set) && set.Leases[0].Created > before.Revision
	})
	wantKept(t, x)
}

func takenAndCompacted(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	x, far := startAfar(t, h, claimOf(1))
	far.Cut()
	h.Delete(keyOf(x.subnets()))
	h.Put(keyOf(x.subnets()), flanneldValue, time.Hour)
	h.Compact()
	far.Mend()
	wantLost(t, x, "10.99.0.1")
	if value, _, _ := h.Get(keyOf(x.subnets())); value != flanneldValue {
		t.Errorf("value = %s, want that of the new owner", value)
	}
}

func compactionIsNotNoticed(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	w := watch(t, h)
	hosts := []*host{start(t, h, claimOf(1)), start(t, h, claimOf(2))}
	w.until("both leases", leaseCount(2))
	for i := range 20 {
		h.Put("config", config4, 0)
		h.Compact()
		hosts = append(hosts, start(t, h, claimOf(10+i)))
		h.Compact()
		w.until("everybody", leaseCount(len(hosts)))
	}
	for _, x := range hosts {
		wantKept(t, x)
		if !hasLease(x.subnets())(w.last) {
			t.Errorf("set = %+v, want the lease of %v", w.last, x.subnets())
		}
	}
}
