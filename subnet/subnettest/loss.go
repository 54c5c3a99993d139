package subnettest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tulle/subnet"
)

func lossTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"SuddenLossIsHeldBack":        suddenLossIsHeldBack,
		"LossOfHalfIsBelieved":        lossOfHalfIsBelieved,
		"WipeIsHealedUnseen":          wipeIsHealedUnseen,
		"TakenSubnetIsNotHeldBack":    takenSubnetIsNotHeldBack,
		"NewcomersComeWhileHeldBack":  newcomersComeWhileHeldBack,
		"LeaseOfMineElsewhereIsEnded": leaseOfMineElsewhere,
	}
}

// heldBack is shorter than any store waits before it believes a sudden loss.
const heldBack = time.Second

// putPeers writes the leases of hosts that do not live: numbers 1 to n.
func putPeers(h Harness, n int) {
	h.Configure(network4())
	for i := 1; i <= n; i++ {
		h.Put(v4(fmt.Sprintf("10.5.%d.0/24", i)), at(fmt.Sprintf("10.99.0.%d", i)), time.Hour)
	}
}

func leaseCount(n int) func(subnet.Set) bool {
	return func(set subnet.Set) bool { return len(set.Leases) == n }
}

func suddenLossIsHeldBack(t *testing.T, h Harness) {
	putPeers(h, 5)
	w := watch(t, h)
	w.until("five leases", leaseCount(5))
	h.Wipe()
	wiped := time.Now()
	set := w.until("a word about the loss", func(set subnet.Set) bool {
		return len(set.Leases) != 5 || len(set.Problems) > 1
	})
	if len(set.Leases) != 5 || set.Network == nil || !strings.Contains(set.Problems[len(set.Problems)-1].Reason, "5 leases that went") {
		t.Errorf("set = %+v, want the five leases, the network and a word about both", set)
	}
	set = w.until("the loss", func(set subnet.Set) bool { return len(set.Leases) < 5 })
	if len(set.Leases) != 0 || time.Since(wiped) < heldBack {
		t.Errorf("after %v %d leases are left, want none after a second look", time.Since(wiped), len(set.Leases))
	}
}

func lossOfHalfIsBelieved(t *testing.T, h Harness) {
	putPeers(h, 4)
	w := watch(t, h)
	w.until("four leases", leaseCount(4))
	start := time.Now()
	h.Delete(v4("10.5.1.0/24"))
	w.until("three leases", leaseCount(3))
	h.Delete(v4("10.5.2.0/24"))
	w.until("two leases", leaseCount(2))
	if took := time.Since(start); took > heldBack {
		t.Errorf("leases that went one by one were gone after %v", took)
	}
}

func wipeIsHealedUnseen(t *testing.T, h Harness) {
	h.Configure(networkDual())
	hosts := []*host{start(t, h, claimOf(1)), start(t, h, claimOf(2)), start(t, h, claimOf(3))}
	w := watch(t, h)
	before := w.until("three leases", leaseCount(3))
	h.Wipe()
	anew := func(set subnet.Set) bool {
		if len(set.Leases) != 3 || set.Network == nil {
			t.Fatalf("set = %+v, want all leases at all times", set)
		}
		for _, l := range set.Leases {
			if l.Created <= before.Revision {
				return false
			}
		}
		return true
	}
	w.until("all leases made anew", anew)
	w.holdsFor(4*heldBack, "all leases", anew)
	for _, x := range hosts {
		wantKept(t, x)
		wantLease(t, h, x.subnets(), x.held.Lease().Attrs, false)
	}
	if now := watch(t, h).until("anything", func(subnet.Set) bool { return true }); now.Network != nil {
		t.Error("a host wrote the configuration, which is the operator's")
	}
}

func takenSubnetIsNotHeldBack(t *testing.T, h Harness) {
	putPeers(h, 5)
	w := watch(t, h)
	w.until("five leases", leaseCount(5))
	h.Wipe()
	h.Put(v4("10.5.1.0/24"), at("10.99.0.77"), time.Hour)
	h.Put(v4("10.5.2.0/25"), at("10.99.0.78"), time.Hour)
	set := w.until("the new owners", func(set subnet.Set) bool {
		return hasLease(subnet.Subnets{V4: prefix("10.5.2.0/25")})(set)
	})
	if len(set.Leases) != 5 || set.Leases[0].Attrs.Address().String() != "10.99.0.77" || hasLease(subnet.Subnets{V4: prefix("10.5.2.0/24")})(set) {
		t.Errorf("leases = %+v, want two new owners and three that are held back", set.Leases)
	}
	w.until("the loss", leaseCount(2))
}

func newcomersComeWhileHeldBack(t *testing.T, h Harness) {
	putPeers(h, 5)
	w := watch(t, h)
	w.until("five leases", leaseCount(5))
	h.Wipe()
	h.Put(v4("10.5.9.0/24"), flanneld(), time.Hour)
	set := w.until("the newcomer", hasLease(subnet.Subnets{V4: prefix("10.5.9.0/24")}))
	if len(set.Leases) != 6 {
		t.Errorf("leases = %+v, want the five others too", set.Leases)
	}
}

// After a restore from a backup the store may show a host where it was once.
func leaseOfMineElsewhere(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	w := watch(t, h)
	w.until("the lease", hasLease(x.subnets()))
	once := v4("10.5.200.0/24")
	h.Put(once, claimOf(1).Attrs, time.Hour)
	h.Delete(x.subnets())
	w.until("the lease alone, made anew", func(set subnet.Set) bool {
		_, there := leaseAt(h, once)
		return leaseCount(1)(set) && hasLease(x.subnets())(set) && !there
	})
	wantKept(t, x)
}
