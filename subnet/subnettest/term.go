package subnettest

import (
	"testing"
	"time"

	"tulle/subnet"
)

func termTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"BeliefEndsBeforeTheLease":  beliefEndsFirst,
		"LeaseForeverIsReserved":    leaseForever,
		"OrdinaryLeaseBecomesFixed": ordinaryLeaseBecomesFixed,
		"ReservationIsHeldForever":  reservationIsHeldForever,
	}
}

func beliefEndsFirst(t *testing.T, h Harness) {
	h.Configure(network4())
	claim := claimOf(1)
	claim.TTL = 3 * time.Second
	x := start(t, h, claim)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(2 * claim.TTL); time.Now().Before(end); <-ticker.C {
		if left := x.held.Remaining(); left <= 0 || left > claim.TTL {
			t.Fatalf("%v left of a lease of %v that is kept alive", left, claim.TTL)
		}
	}
	x.kill()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		left := x.held.Remaining()
		if _, there := leaseAt(h, x.subnets()); !there && left > 0 {
			t.Fatalf("%v left of a lease that has run out", left)
		}
		if left <= 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v left of a lease of %v, %v after it was last renewed", left, claim.TTL, patience)
		}
	}
}

func leaseForever(t *testing.T, h Harness) {
	h.Configure(networkDual())
	w := watch(t, h)
	claim := claimOf(1)
	claim.TTL = subnet.Forever
	x := start(t, h, claim)
	fixed := func() {
		t.Helper()
		if l, there := leaseAt(h, x.subnets()); !l.Reserved || !there || !x.held.Lease().Reserved || x.held.Remaining() != subnet.Forever {
			t.Errorf("lease %+v, stored as %+v, there: %v, left: %v, want one that never expires", x.held.Lease(), l, there, x.held.Remaining())
		}
	}
	fixed()
	made := w.until("the lease", hasLease(x.subnets()))
	h.Delete(x.subnets())
	w.until("the lease made anew", func(set subnet.Set) bool {
		return hasLease(x.subnets())(set) && set.Leases[0].Created > made.Revision
	})
	fixed()
	attrs := claim.Attrs
	attrs.BackendType = "host-gw"
	if err := x.held.Update(t.Context(), attrs); err != nil {
		t.Fatal(err)
	}
	fixed()
	subnets := x.subnets()
	x.kill()
	if x = start(t, h, claim); x.subnets() != subnets {
		t.Errorf("subnets %v after a restart, want %v", x.subnets(), subnets)
	}
	fixed()
}

func ordinaryLeaseBecomesFixed(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	subnets := x.subnets()
	x.kill()
	claim := claimOf(1)
	claim.TTL = subnet.Forever
	x = start(t, h, claim)
	if l, there := leaseAt(h, subnets); x.subnets() != subnets || !l.Reserved || !there {
		t.Errorf("subnets %v, were %v; stored as %+v, there: %v, want the same for ever", x.subnets(), subnets, l, there)
	}
}

func reservationIsHeldForever(t *testing.T, h Harness) {
	h.Configure(network4())
	h.Put(v4("10.5.34.0/24"), at("192.0.2.1"), 0)
	if left := start(t, h, claimOf(1)).held.Remaining(); left != subnet.Forever {
		t.Errorf("%v left of a reservation", left)
	}
}
