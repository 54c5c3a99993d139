package subnettest

import (
	"slices"
	"testing"
	"time"

	"tulle/subnet"
)

func standingTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"DormantForgeryGainsNothing":       func(t *testing.T, h Harness) { dormantForgery(t, h, false) },
		"DormantForgeryGainsNothingByWipe": func(t *testing.T, h Harness) { dormantForgery(t, h, true) },
	}
}

// A host makes its lease anew, which by the age of the keys is younger than a forged one then. Whoever has seen both before
// remembers which was first; whoever has not goes by the keys.
func dormantForgery(t *testing.T, h Harness, wipe bool) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	w := watch(t, h)
	forged := at(x.subnets().V4.Addr().Next().String())
	forged.BackendType = "vxlan"
	forgedAt := v4("10.5.250.0/24")
	h.Put(forgedAt, forged, time.Hour)
	var memory subnet.Memory
	mine := func(set subnet.Set) int {
		return slices.IndexFunc(set.Leases, func(l *subnet.Lease) bool { return l.Subnets == x.subnets() && !l.HeldBack })
	}
	before := w.until("both leases", func(set subnet.Set) bool {
		memory.Rank(set)
		return mine(set) >= 0 && len(set.Leases) == 2
	})
	if wipe {
		h.Wipe()
		h.Configure(network4())
		h.Put(forgedAt, forged, time.Hour)
	} else {
		h.Delete(x.subnets())
	}
	after := w.until("the lease made anew", func(set subnet.Set) bool {
		memory.Rank(set)
		i := mine(set)
		return i >= 0 && len(set.Leases) == 2 && set.Leases[i].Created != before.Leases[mine(before)].Created
	})
	usable := func(leases []*subnet.Lease) bool {
		usable, _ := subnet.Judge(*after.Network, leases, subnet.Self{})
		return slices.ContainsFunc(usable, func(l *subnet.Lease) bool { return l.Subnets == x.subnets() })
	}
	if !usable(memory.Rank(after)) {
		t.Error("a host that remembers the lease leaves it out")
	}
	over := subnet.Outranked(*after.Network, after.Leases, x.subnets())
	if newcomer := usable(after.Leases); newcomer == (len(over) > 0) {
		t.Errorf("a newcomer uses the lease: %t; it is outranked by %v", newcomer, over)
	}
	if !wipe && (len(over) != 1 || over[0].Key != subnet.KeyOf(forgedAt)) {
		t.Errorf("outranked by %v, want the forged lease", over)
	}
}
