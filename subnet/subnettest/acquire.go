package subnettest

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"tulle/ip"
	"tulle/subnet"
)

func acquireTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"AcquireWritesTheContract":         acquireWritesTheContract,
		"RestartKeepsTheLease":             restartKeepsTheLease,
		"FlanneldsLeaseIsTakenOver":        flanneldsLeaseIsTakenOver,
		"ReservationStaysOne":              reservationStaysOne,
		"PreviousSubnetIsTakenIfFree":      previousSubnetIsTakenIfFree,
		"OverlapInAnyMaskLengthExcludes":   overlapExcludes,
		"GarbageInTheWayIsPassed":          garbageInTheWayIsPassed,
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

func acquireWritesTheContract(t *testing.T, h Harness) {
	h.Put("config", configDual, 0)
	x := start(t, h, claimOf(1))
	lease := x.held.Lease()
	wantLeaseKeys(t, h, keyOf(lease.Subnets))
	value, expires, _ := h.Get(keyOf(lease.Subnets))
	want := `{"PublicIP":"192.0.2.1","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"},"Tulle":{"Node":"node-1","Instance":"machine-1"}}`
	if value != want {
		t.Errorf("value = %s, want %s", value, want)
	}
	if !expires || lease.Reserved {
		t.Errorf("lease expires: %v, reserved: %v, want an ordinary one", expires, lease.Reserved)
	}
	if !ip.Contains(prefix("10.5.0.0/16"), lease.Subnets.V4) || lease.Subnets.V4.Bits() != 24 ||
		!ip.Contains(prefix("fc00:5::/48"), lease.Subnets.V6) || lease.Subnets.V6.Bits() != 64 {
		t.Errorf("subnets = %v, want a /24 and a /64 of the network", lease.Subnets)
	}
}

func restartKeepsTheLease(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
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
	wantLeaseKeys(t, h, keyOf(before.Subnets))
}

func flanneldsLeaseIsTakenOver(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	h.Put("subnets/10.5.34.0-24", flanneldValue, 24*time.Hour)
	claim := claimOf(1)
	claim.Attrs.Public = ip.Dual[netip.Addr]{V4: netip.MustParseAddr("10.99.0.1")}
	claim.Attrs.BackendData.V4 = []byte(`{"VNI":1,"VtepMAC":"4e:f3:a5:78:97:d4"}`)
	x := start(t, h, claim)
	wantLeaseKeys(t, h, "subnets/10.5.34.0-24")
	value, expires, _ := h.Get("subnets/10.5.34.0-24")
	want := strings.TrimSuffix(flanneldValue, "}") + `,"Tulle":{"Node":"node-1","Instance":"machine-1"}}`
	if value != want || !expires {
		t.Errorf("value = %s (expires: %v), want %s", value, expires, want)
	}
	if got := x.held.Lease(); got.Subnets.V4 != prefix("10.5.34.0/24") || got.Reserved {
		t.Errorf("lease = %+v, want flanneld's", got)
	}
}

func flanneldsLeaseOfAnother(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	h.Put("subnets/10.5.34.0-24", flanneldValue, 24*time.Hour)
	claim := claimOf(1)
	claim.Previous.V4 = prefix("10.5.34.0/24")
	x := start(t, h, claim)
	if x.subnets().V4 == prefix("10.5.34.0/24") {
		t.Error("took the subnet of a flanneld on another host")
	}
	if value, _, _ := h.Get("subnets/10.5.34.0-24"); value != flanneldValue {
		t.Errorf("its lease is now %s", value)
	}
}

func reservationStaysOne(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	h.Put("subnets/10.5.34.0-24", `{"PublicIP":"192.0.2.1"}`, 0)
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
	if value, expires, _ := h.Get("subnets/10.5.34.0-24"); expires || value != encode(t, claimOf(1).Attrs) {
		t.Errorf("value = %s (expires: %v), want the claim's attributes for ever", value, expires)
	}
	if err := x.held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLeaseKeys(t, h, "subnets/10.5.34.0-24")
}

func previousSubnetIsTakenIfFree(t *testing.T, h Harness) {
	h.Put("config", configDual, 0)
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
	h.Put("config", config4, 0)
	h.Put("subnets/10.5.0.0-17", `{"PublicIP":"192.0.2.200"}`, time.Hour)
	h.Put("subnets/10.5.130.128-25", `{"PublicIP":"192.0.2.201"}`, time.Hour)
	for n := 1; n <= 10; n++ {
		got := start(t, h, claimOf(n)).subnets().V4
		if got.Overlaps(prefix("10.5.0.0/17")) || got.Overlaps(prefix("10.5.130.128/25")) {
			t.Errorf("subnet %v overlaps a lease of another length", got)
		}
	}
}

func garbageInTheWayIsPassed(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	x := start(t, h, claimOf(1))
	wanted := x.subnets()
	if err := x.held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Put(keyOf(wanted), "garbage", 0)
	h.Put(keyOf(wanted)+"&FC00::-64", flanneldValue, 0)
	if got := start(t, h, claimOf(1)).subnets(); got == wanted {
		t.Errorf("subnets = %v, which is the address of a broken key", got)
	}
	if value, _, _ := h.Get(keyOf(wanted)); value != "garbage" {
		t.Errorf("broken key was changed to %q", value)
	}
}

func noNetwork(t *testing.T, h Harness) {
	for _, config := range []string{"", "{", `{"Network":"10.5.0.0/16","SubnetLen":12}`} {
		if config != "" {
			h.Put("config", config, 0)
		}
		_, err := tryStart(t, h, claimOf(1))
		if !errors.Is(err, subnet.ErrNoNetwork) {
			t.Errorf("Acquire with config %q = %v, want ErrNoNetwork", config, err)
		}
	}
	wantLeaseKeys(t, h)
}

func exhaustedPool(t *testing.T, h Harness) {
	h.Put("config", `{"Network":"10.5.0.0/26","SubnetLen":28,"Backend":{"Type":"vxlan"}}`, 0)
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
	h.Put("config", config4, 0)
	x := start(t, h, claimOf(1))
	x.kill()
	h.Put("config", `{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan"}}`, 0)
	x = start(t, h, claimOf(1))
	if !ip.Contains(prefix("10.6.0.0/16"), x.subnets().V4) {
		t.Errorf("subnets = %v, want them in the new network", x.subnets())
	}
	wantLeaseKeys(t, h, keyOf(x.subnets()))
}

func secondFamilyIsAdded(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	x := start(t, h, claimOf(1))
	single := x.subnets()
	x.kill()
	h.Put("config", configDual, 0)
	x = start(t, h, claimOf(1))
	if got := x.subnets(); got.V4 != single.V4 || !got.V6.IsValid() {
		t.Errorf("subnets = %v, want %v and an IPv6 one", got, single.V4)
	}
	wantLeaseKeys(t, h, keyOf(x.subnets()))
	x.kill()
	h.Put("config", config4, 0)
	if got := start(t, h, claimOf(1)).subnets(); got != single {
		t.Errorf("subnets = %v, want %v again", got, single)
	}
	wantLeaseKeys(t, h, keyOf(single))
}

func ipv6Only(t *testing.T, h Harness) {
	h.Put("config", config6, 0)
	x, y := start(t, h, claimOf(1)), start(t, h, claimOf(2))
	if x.subnets() == y.subnets() || x.subnets().V4.IsValid() || !x.subnets().V6.IsValid() {
		t.Errorf("subnets = %v and %v, want two of IPv6", x.subnets(), y.subnets())
	}
	for _, key := range leaseKeys(h) {
		if !strings.HasPrefix(key, "subnets/0.0.0.0-0&fc00:5:") {
			t.Errorf("key = %s, want flannel's text", key)
		}
	}
}

func concurrentAcquires(t *testing.T, h Harness) {
	h.Put("config", `{"Network":"10.5.0.0/18","SubnetMin":"10.5.0.0","EnableIPv6":true,"IPv6Network":"fc00:5::/58","IPv6SubnetMin":"fc00:5::","Backend":{"Type":"vxlan"}}`, 0)
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
	h.Put("config", config4, 0)
	h.Put("subnets/10.5.34.0-24", `{"PublicIP":"192.0.2.1","Rack":{"row":7}}`, time.Hour)
	x := start(t, h, claimOf(1))
	attrs := claimOf(1).Attrs
	attrs.BackendType = "host-gw"
	if err := x.held.Update(t.Context(), attrs); err != nil {
		t.Fatal(err)
	}
	value, _, _ := h.Get("subnets/10.5.34.0-24")
	if !strings.Contains(value, `"Rack":{"row":7}`) || !strings.Contains(value, "host-gw") {
		t.Errorf("value = %s, want the unknown field kept", value)
	}
}

func olderOverlapMovesMine(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	h.Put("subnets/10.5.34.128-25", `{"PublicIP":"192.0.2.200"}`, time.Hour)
	h.Put("subnets/10.5.34.0-24", encode(t, claimOf(1).Attrs), time.Hour)
	x := start(t, h, claimOf(1))
	if x.subnets().V4.Overlaps(prefix("10.5.34.128/25")) {
		t.Errorf("subnets = %v, which an older lease overlaps", x.subnets())
	}
	wantLeaseKeys(t, h, "subnets/10.5.34.128-25", keyOf(x.subnets()))
}

func restartAfterExpiry(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	x := start(t, h, claimOf(1))
	before := x.subnets()
	x.kill()
	h.Delete(keyOf(before))
	claim := claimOf(1)
	claim.Previous = before
	if got := start(t, h, claim).subnets(); got != before {
		t.Errorf("subnets = %v, want %v again", got, before)
	}
}

func withoutNodeID(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	claim := claimOf(1)
	claim.Attrs.Node = ""
	if _, err := tryStart(t, h, claim); err == nil {
		t.Error("Acquire without node id = nil, want an error")
	}
}

func lengthOfLife(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
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
