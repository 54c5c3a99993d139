package subnettest

import (
	"testing"
	"time"

	"tulle/subnet"
)

func compactionTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"CompactedWhileAway":     compactedWhileAway,
		"DeletedAndCompacted":    deletedAndCompacted,
		"TakenAndCompacted":      takenAndCompacted,
		"CompactionIsNotNoticed": compactionIsNotNoticed,
	}
}

func compactedWhileAway(t *testing.T, h Harness) {
	h.Configure(network4())
	h.Put(v4("10.5.1.0/24"), flanneld(), time.Hour)
	h.Put(v4("10.5.2.0/24"), flanneld(), time.Hour)
	far := h.OpenAfar()
	w := watchBy(t, far.Store)
	stays := hasLease(subnet.Subnets{V4: prefix("10.5.2.0/24")})
	comes := hasLease(subnet.Subnets{V4: prefix("10.5.3.0/24")})
	w.until("two leases", leaseCount(2))
	far.Cut()
	h.Delete(v4("10.5.1.0/24"))
	h.Put(v4("10.5.2.0/24"), flanneld(), time.Hour)
	h.Put(v4("10.5.3.0/24"), flanneld(), time.Hour)
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
	h.Delete(v4("10.5.3.0/24"))
	w.until("one lease", leaseCount(1))
}

func deletedAndCompacted(t *testing.T, h Harness) {
	h.Configure(network4())
	x, far := startAfar(t, h, claimOf(1))
	w := watch(t, h)
	before := w.until("the lease", hasLease(x.subnets()))
	far.Cut()
	h.Delete(x.subnets())
	h.Compact()
	far.Mend()
	w.until("the lease made anew", func(set subnet.Set) bool {
		return hasLease(x.subnets())(set) && set.Leases[0].Created > before.Revision
	})
	wantKept(t, x)
}

func takenAndCompacted(t *testing.T, h Harness) {
	h.Configure(network4())
	x, far := startAfar(t, h, claimOf(1))
	far.Cut()
	h.Delete(x.subnets())
	h.Put(x.subnets(), flanneld(), time.Hour)
	h.Compact()
	far.Mend()
	wantLost(t, x, "10.99.0.1")
	wantLease(t, h, x.subnets(), flanneld(), false)
}

func compactionIsNotNoticed(t *testing.T, h Harness) {
	h.Configure(network4())
	w := watch(t, h)
	hosts := []*host{start(t, h, claimOf(1)), start(t, h, claimOf(2))}
	w.until("both leases", leaseCount(2))
	for i := range 20 {
		h.Configure(network4())
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
