package subnettest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"tulle/subnet"
)

func heldTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"UpdatePublishes":         updatePublishes,
		"ProbeComesAndGoes":       probeComesAndGoes,
		"ReleaseGivesBack":        releaseGivesBack,
		"DeletedLeaseHeals":       deletedLeaseHeals,
		"ForeignOwnerIsALoss":     foreignOwnerIsALoss,
		"TakenSubnetIsALoss":      takenSubnetIsALoss,
		"ReservedWhileHeld":       reservedWhileHeld,
		"FlanneldOnTheSameHost":   flanneldOnTheSameHost,
		"UpdateAfterDeletion":     updateAfterDeletion,
		"ReservationDeletedInUse": reservationDeletedInUse,
		"KeptSubnetBeforeOthers":  keptSubnetBeforeOthers,
	}
}

func updatePublishes(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	before := x.held.Lease()
	if err := x.held.Update(t.Context(), claimOf(1).Attrs); err != nil {
		t.Fatal(err)
	}
	if got := x.held.Lease(); got.Revision != before.Revision {
		t.Errorf("an update that changes nothing was written")
	}
	attrs := claimOf(1).Attrs
	attrs.BackendData.V4 = []byte(`{"VNI":1,"VtepMAC":"02:00:00:00:00:ff"}`)
	if err := x.held.Update(t.Context(), attrs); err != nil {
		t.Fatal(err)
	}
	wantLease(t, h, before.Subnets, attrs, false)
	after := x.held.Lease()
	if after.Created != before.Created || after.Revision <= before.Revision || after.Subnets != before.Subnets {
		t.Errorf("lease = %+v, want %+v with a later revision", after, before)
	}
}

// probeComesAndGoes has a host say where it is asked, and no longer once it runs without.
func probeComesAndGoes(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	wantProbe := func(subnets subnet.Subnets, want subnet.Probe) {
		t.Helper()
		if l, there := leaseAt(h, subnets); !there || l.Attrs.Probe != want {
			t.Errorf("lease %s is there: %t, and asked at port %d, want %d, by the same key: %t", subnet.KeyOf(subnets), there, l.Attrs.Probe.Port, want.Port, l.Attrs.Probe.Key == want.Key)
		}
	}
	attrs := claimOf(1).Attrs
	for _, probe := range []subnet.Probe{{Port: 8473, Key: subnet.ProbeKey{1, 2, 3}}, {Port: 8473, Key: subnet.ProbeKey{15: 9}}} {
		attrs.Probe = probe
		if err := x.held.Update(t.Context(), attrs); err != nil {
			t.Fatal(err)
		}
		wantProbe(x.subnets(), probe)
		if attrs.Equal(claimOf(1).Attrs) {
			t.Error("attributes with and without are equal")
		}
	}
	x.kill()                                                     // else it writes its own again
	wantProbe(start(t, h, claimOf(1)).subnets(), subnet.Probe{}) // a run without
}

func releaseGivesBack(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	if err := x.held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLeases(t, h)
	if err := x.held.Release(t.Context()); err != nil {
		t.Errorf("second Release = %v, want nil", err)
	}
	claim := claimOf(2)
	claim.Previous = x.subnets()
	if got := start(t, h, claim).subnets(); got != x.subnets() {
		t.Errorf("subnets = %v, want the released ones %v", got, x.subnets())
	}
}

// wantKept fails if the lease is reported lost.
func wantKept(t *testing.T, x *host) {
	t.Helper()
	select {
	case err := <-x.held.Lost():
		t.Errorf("Lost = %v, want the lease kept", err)
	default:
	}
}

// wantLost waits for the loss and the name of the new owner in it.
func wantLost(t *testing.T, x *host, owner string) {
	t.Helper()
	select {
	case err := <-x.held.Lost():
		if !errors.Is(err, subnet.ErrLost) || !strings.Contains(err.Error(), owner) {
			t.Errorf("Lost = %v, want ErrLost with the name of %s", err, owner)
		}
	case <-time.After(patience):
		t.Fatal("the loss is not reported")
	}
}

func deletedLeaseHeals(t *testing.T, h Harness) {
	h.Configure(networkDual())
	x := start(t, h, claimOf(1))
	w := watch(t, h)
	before := w.until("the lease", hasLease(x.subnets()))
	h.Delete(x.subnets())
	w.until("the lease made anew", func(set subnet.Set) bool {
		return hasLease(x.subnets())(set) && set.Leases[0].Created > before.Leases[0].Created
	})
	wantLease(t, h, x.subnets(), claimOf(1).Attrs, false)
	wantKept(t, x)
}

func foreignOwnerIsALoss(t *testing.T, h Harness) {
	h.Configure(network4())
	x, y := start(t, h, claimOf(1)), start(t, h, claimOf(2))
	h.Put(x.subnets(), claimOf(3).Attrs, time.Hour)
	wantLost(t, x, "node-3")
	h.Put(y.subnets(), flanneld(), time.Hour)
	wantLost(t, y, "10.99.0.1")
	if err := x.held.Update(t.Context(), claimOf(1).Attrs); !errors.Is(err, subnet.ErrLost) {
		t.Errorf("Update of a lost lease = %v, want ErrLost", err)
	}
	if err := x.held.Release(t.Context()); err != nil {
		t.Error(err)
	}
	wantLease(t, h, x.subnets(), claimOf(3).Attrs, false)
}

func takenSubnetIsALoss(t *testing.T, h Harness) {
	h.Configure(network4())
	claim := claimOf(1)
	claim.Previous.V4 = prefix("10.5.34.0/24")
	x := start(t, h, claim)
	h.Put(v4("10.5.34.0/25"), claimOf(3).Attrs, time.Hour)
	wantKept(t, x)
	h.Delete(v4("10.5.34.0/24"))
	wantLost(t, x, "node-3")
	wantLeases(t, h, v4("10.5.34.0/25"))
}

func reservedWhileHeld(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	w := watch(t, h)
	h.Put(x.subnets(), at("192.0.2.1"), 0)
	w.until("the owner's name", func(set subnet.Set) bool {
		return len(set.Leases) == 1 && set.Leases[0].Attrs.Node == "node-1" && set.Leases[0].Reserved
	})
	wantKept(t, x)
	if err := x.held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLeases(t, h, x.subnets())
}

func flanneldOnTheSameHost(t *testing.T, h Harness) {
	h.Configure(network4())
	h.Put(v4("10.5.34.0/24"), at("192.0.2.1"), 0)
	x := start(t, h, claimOf(1))
	w := watch(t, h)
	// flanneld rewrites even reservations with a lease of a day.
	h.Put(v4("10.5.34.0/24"), at("192.0.2.1"), 24*time.Hour)
	w.until("the reservation", func(set subnet.Set) bool {
		return len(set.Leases) == 1 && set.Leases[0].Attrs.Node == "node-1" && set.Leases[0].Reserved
	})
	wantKept(t, x)
}

func updateAfterDeletion(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	attrs := claimOf(1).Attrs
	attrs.BackendType = "host-gw"
	h.Delete(x.subnets())
	if err := x.held.Update(t.Context(), attrs); err != nil {
		t.Fatal(err)
	}
	wantLease(t, h, x.subnets(), attrs, false)
}

func reservationDeletedInUse(t *testing.T, h Harness) {
	h.Configure(network4())
	h.Put(v4("10.5.34.0/24"), at("192.0.2.1"), 0)
	x := start(t, h, claimOf(1))
	w := watch(t, h)
	h.Delete(v4("10.5.34.0/24"))
	w.until("an ordinary lease", func(set subnet.Set) bool {
		return len(set.Leases) == 1 && set.Leases[0].Subnets == x.subnets() && !set.Leases[0].Reserved
	})
	wantKept(t, x)
}

// keptSubnetBeforeOthers: what a host insists on counts more than what the store came to say of it, as after a restore.
func keptSubnetBeforeOthers(t *testing.T, h Harness) {
	h.Configure(network4())
	claim := claimOf(1)
	claim.Previous.V4, claim.Only = prefix("10.5.34.0/24"), true
	h.Put(v4("10.5.35.0/24"), claimOf(1).Attrs, time.Hour)
	h.Put(v4("10.5.36.0/24"), at("192.0.2.2"), 0)
	if got := start(t, h, claim).subnets(); got != claim.Previous {
		t.Errorf("subnets = %v beside a lease of its own, want %v", got, claim.Previous)
	}
	wantLeases(t, h, v4("10.5.34.0/24"), v4("10.5.36.0/24"))
	claim = claimOf(2)
	claim.Previous.V4, claim.Only = prefix("10.5.37.0/24"), true
	if got := start(t, h, claim).subnets(); got != claim.Previous {
		t.Errorf("subnets = %v beside a reservation, want %v", got, claim.Previous)
	}
	wantLeases(t, h, v4("10.5.34.0/24"), v4("10.5.36.0/24"), v4("10.5.37.0/24"))
}
