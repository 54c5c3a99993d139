package subnettest

import (
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"tulle/ip"
	"tulle/subnet"
)

func acquireTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"AcquireGetsSubnets":               acquireGetsSubnets,
		"RestartKeepsTheLease":             restartKeepsTheLease,
		"ReservationStaysOne":              reservationStaysOne,
		"PreviousSubnetIsTakenIfFree":      previousSubnetIsTakenIfFree,
		"OverlapInAnyMaskLengthExcludes":   overlapExcludes,
		"NoNetwork":                        noNetwork,
		"ExhaustedPool":                    exhaustedPool,
		"NewNetworkMovesTheLease":          newNetworkMovesTheLease,
		"SecondFamilyIsAdded":              secondFamilyIsAdded,
		"IPv6Only":                         ipv6Only,
		"ConcurrentAcquiresDoNotOverlap":   concurrentAcquires,
		"UnknownFieldsSurvive":             unknownFieldsSurvive,
		"OlderOverlappingLeaseMovesMyOwn":  olderOverlapMovesMine,
		"RestartAfterExpiryTakesThePlace":  restartAfterExpiry,
		"AcquireWithoutNodeIDIsRefused":    withoutNodeID,
		"ClaimedLengthOfLifeTakesEffect":   lengthOfLife,
		"FlanneldsLeaseOfAnotherIsNotMine": flanneldsLeaseOfAnother,
	}
}

func acquireGetsSubnets(t *testing.T, h Harness) {
	h.Configure(networkDual())
	x := start(t, h, claimOf(1))
	lease := x.held.Lease()
	wantLease(t, h, lease.Subnets, claimOf(1).Attrs, false)
	if lease.Reserved {
		t.Errorf("lease = %+v, want an ordinary one", lease)
	}
	if !ip.Contains(prefix("10.5.0.0/16"), lease.Subnets.V4) || lease.Subnets.V4.Bits() != 24 ||
		!ip.Contains(prefix("fc00:5::/48"), lease.Subnets.V6) || lease.Subnets.V6.Bits() != 64 {
		t.Errorf("subnets = %v, want a /24 and a /64 of the network", lease.Subnets)
	}
}

func restartKeepsTheLease(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	before := x.held.Lease()
	for range 3 {
		x.kill()
		x = start(t, h, claimOf(1))
		after := x.held.Lease()
		if after.Subnets != before.Subnets || after.Created != before.Created || after.Revision != before.Revision {
			t.Fatalf("lease after restart = %+v, want %+v untouched", after, before)
		}
	}
	wantLeases(t, h, before.Subnets)
}

func flanneldsLeaseOfAnother(t *testing.T, h Harness) {
	h.Configure(network4())
	h.Put(v4("10.5.34.0/24"), flanneld(), 24*time.Hour)
	claim := claimOf(1)
	claim.Previous.V4 = prefix("10.5.34.0/24")
	x := start(t, h, claim)
	if x.subnets().V4 == prefix("10.5.34.0/24") {
		t.Error("took the subnet of a flanneld on another host")
	}
	wantLease(t, h, v4("10.5.34.0/24"), flanneld(), false)
}

func reservationStaysOne(t *testing.T, h Harness) {
	h.Configure(network4())
	h.Put(v4("10.5.34.0/24"), at("192.0.2.1"), 0)
	x := start(t, h, claimOf(1))
	if got := x.held.Lease(); got.Subnets.V4 != prefix("10.5.34.0/24") || !got.Reserved {
		t.Fatalf("lease = %+v, want the reservation", got)
	}
	attrs := claimOf(1).Attrs
	attrs.BackendType = "host-gw"
	if err := x.held.Update(t.Context(), attrs); err != nil {
		t.Fatal(err)
	}
	x.kill()
	x = start(t, h, claimOf(1))
	wantLease(t, h, v4("10.5.34.0/24"), claimOf(1).Attrs, true)
	if err := x.held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLeases(t, h, v4("10.5.34.0/24"))
}

func previousSubnetIsTakenIfFree(t *testing.T, h Harness) {
	h.Configure(networkDual())
	claim := claimOf(1)
	claim.Previous = subnet.Subnets{V4: prefix("10.5.77.0/24"), V6: prefix("fc00:5:0:77::/64")}
	if got := start(t, h, claim).subnets(); got != claim.Previous {
		t.Errorf("subnets = %v, want the previous ones %v", got, claim.Previous)
	}
	other := claimOf(2)
	other.Previous = claim.Previous
	got := start(t, h, other).subnets()
	if shared := subnet.Overlap(got, claim.Previous); len(shared) > 0 {
		t.Errorf("subnets = %v, want none of what node-1 holds", got)
	}
}

func overlapExcludes(t *testing.T, h Harness) {
	h.Configure(network4())
	h.Put(v4("10.5.0.0/17"), at("192.0.2.200"), time.Hour)
	h.Put(v4("10.5.130.128/25"), at("192.0.2.201"), time.Hour)
	for n := 1; n <= 10; n++ {
		got := start(t, h, claimOf(n)).subnets().V4
		if got.Overlaps(prefix("10.5.0.0/17")) || got.Overlaps(prefix("10.5.130.128/25")) {
			t.Errorf("subnet %v overlaps a lease of another length", got)
		}
	}
}

func noNetwork(t *testing.T, h Harness) {
	if _, err := tryStart(t, h, claimOf(1)); !errors.Is(err, subnet.ErrNoNetwork) {
		t.Errorf("Acquire without a network = %v, want ErrNoNetwork", err)
	}
	wantLeases(t, h)
}

func exhaustedPool(t *testing.T, h Harness) {
	h.Configure(networkOf(pool("10.5.0.0/26", 28, "10.5.0.16", "10.5.0.48")))
	var last *host
	n := 1
	for ; ; n++ {
		x, err := tryStart(t, h, claimOf(n))
		if errors.Is(err, subnet.ErrExhausted) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = x
	}
	if n < 4 || n > 5 {
		t.Errorf("pool of four /28 was exhausted after %d hosts", n-1)
	}
	if err := last.held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	start(t, h, claimOf(n))
}

func newNetworkMovesTheLease(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	x.kill()
	h.Configure(networkOf(pool("10.6.0.0/16", 24, "10.6.1.0", "10.6.255.0")))
	x = start(t, h, claimOf(1))
	if !ip.Contains(prefix("10.6.0.0/16"), x.subnets().V4) {
		t.Errorf("subnets = %v, want them in the new network", x.subnets())
	}
	wantLeases(t, h, x.subnets())
}

func secondFamilyIsAdded(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	single := x.subnets()
	x.kill()
	h.Configure(networkDual())
	x = start(t, h, claimOf(1))
	if got := x.subnets(); got.V4 != single.V4 || !got.V6.IsValid() {
		t.Errorf("subnets = %v, want %v and an IPv6 one", got, single.V4)
	}
	wantLeases(t, h, x.subnets())
	x.kill()
	h.Configure(network4())
	if got := start(t, h, claimOf(1)).subnets(); got != single {
		t.Errorf("subnets = %v, want %v again", got, single)
	}
	wantLeases(t, h, single)
}

func ipv6Only(t *testing.T, h Harness) {
	h.Configure(network6())
	x, y := start(t, h, claimOf(1)), start(t, h, claimOf(2))
	if x.subnets() == y.subnets() || x.subnets().V4.IsValid() || !x.subnets().V6.IsValid() {
		t.Errorf("subnets = %v and %v, want two of IPv6", x.subnets(), y.subnets())
	}
	wantLeases(t, h, x.subnets(), y.subnets())
}

func concurrentAcquires(t *testing.T, h Harness) {
	h.Configure(networkOf(pool("10.5.0.0/18", 24, "10.5.0.0", "10.5.63.0"), pool("fc00:5::/58", 64, "fc00:5::", "fc00:5:0:3f::")))
	const hosts = 64 // as many as there is room for
	started := make([]*host, hosts)
	var wg sync.WaitGroup
	for i := range hosts {
		wg.Go(func() {
			x, err := tryStart(t, h, claimOf(i+1))
			if err != nil {
				t.Error(err)
				return
			}
			started[i] = x
		})
	}
	wg.Wait()
	for i, x := range started {
		for _, y := range started[:i] {
			if x != nil && y != nil && len(subnet.Overlap(x.subnets(), y.subnets())) > 0 {
				t.Errorf("subnets %v and %v overlap", x.subnets(), y.subnets())
			}
		}
	}
}

func unknownFieldsSurvive(t *testing.T, h Harness) {
	h.Configure(network4())
	racked := at("192.0.2.1")
	racked.Extra = map[string]json.RawMessage{"Rack": json.RawMessage(`{"row":7}`)}
	h.Put(v4("10.5.34.0/24"), racked, time.Hour)
	x := start(t, h, claimOf(1))
	attrs := claimOf(1).Attrs
	attrs.BackendType = "host-gw"
	if err := x.held.Update(t.Context(), attrs); err != nil {
		t.Fatal(err)
	}
	attrs.Extra = racked.Extra
	wantLease(t, h, v4("10.5.34.0/24"), attrs, false)
}

func olderOverlapMovesMine(t *testing.T, h Harness) {
	h.Configure(network4())
	h.Put(v4("10.5.34.128/25"), at("192.0.2.200"), time.Hour)
	h.Put(v4("10.5.34.0/24"), claimOf(1).Attrs, time.Hour)
	x := start(t, h, claimOf(1))
	if x.subnets().V4.Overlaps(prefix("10.5.34.128/25")) {
		t.Errorf("subnets = %v, which an older lease overlaps", x.subnets())
	}
	wantLeases(t, h, v4("10.5.34.128/25"), x.subnets())
}

func restartAfterExpiry(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	before := x.subnets()
	x.kill()
	h.Delete(before)
	claim := claimOf(1)
	claim.Previous = before
	if got := start(t, h, claim).subnets(); got != before {
		t.Errorf("subnets = %v, want %v again", got, before)
	}
}

func withoutNodeID(t *testing.T, h Harness) {
	h.Configure(network4())
	claim := claimOf(1)
	claim.Attrs.Node = ""
	if _, err := tryStart(t, h, claim); err == nil {
		t.Error("Acquire without node id = nil, want an error")
	}
}

func lengthOfLife(t *testing.T, h Harness) {
	h.Configure(network4())
	w := watch(t, h)
	claim := claimOf(1)
	claim.TTL = 2 * time.Second
	x := start(t, h, claim)
	held := hasLease(x.subnets())
	w.until("the lease", held)
	w.holdsFor(2*claim.TTL, "the lease", held)
	x.kill()
	w.until("no lease", func(set subnet.Set) bool { return !held(set) })
}
