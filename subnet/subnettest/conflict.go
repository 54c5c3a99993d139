package subnettest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tulle/subnet"
)

func conflictTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"NodeIDOfALiveHost":     nodeIDOfALiveHost,
		"NodeIDOfADeadHost":     nodeIDOfADeadHost,
		"NodeIDOnOtherHardware": nodeIDOnOtherHardware,
		"AddressOfALiveHost":    addressOfALiveHost,
		"AddressOfADeadHost":    addressOfADeadHost,
		"AddressOfAnEarlierRun": addressOfAnEarlierRun,
		"NodeIDTwinsAtOnce":     twinsThatStartTogether,
		"AddressTwinsAtOnce":    addressTwins,
	}
}

// wantConflict fails unless an attempt was turned down in favour of x and left no trace.
func wantConflict(t *testing.T, h Harness, err error, field, value string, x *host) {
	t.Helper()
	var conflict *subnet.ConflictError
	if !errors.As(err, &conflict) {
		t.Fatalf("Acquire = %v, want a conflict", err)
	}
	want := subnet.ConflictError{Field: field, Value: value, Node: "node-1", Address: claimOf(1).Attrs.Public.V4, Subnets: x.subnets()}
	if *conflict != want {
		t.Errorf("conflict = %+v, want %+v", *conflict, want)
	}
	wantLeases(t, h, x.subnets())
	wantLease(t, h, x.subnets(), claimOf(1).Attrs, false)
}

// wantClaimant fails unless x knows who was turned down, and nobody else.
func wantClaimant(t *testing.T, x *host, claim subnet.Claim) {
	t.Helper()
	want := []subnet.Claimant{{Node: claim.Attrs.Node, Address: claim.Attrs.Address()}}
	if claimants := x.held.Claimants(); !slices.Equal(claimants, want) {
		t.Errorf("claimants %v, want %v", claimants, want)
	}
}

func nodeIDOfALiveHost(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	clone := claimOf(2)
	clone.Attrs.Node = "node-1"
	_, err := tryStart(t, h, clone)
	wantConflict(t, h, err, "node id", "node-1", x)
	wantClaimant(t, x, clone)
}

func nodeIDOfADeadHost(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	x.kill()
	heir := claimOf(2)
	heir.Attrs.Node = "node-1"
	y := start(t, h, heir)
	if y.subnets() != x.subnets() {
		t.Errorf("subnets = %v, want those of the dead host, %v", y.subnets(), x.subnets())
	}
	wantLease(t, h, y.subnets(), heir.Attrs, false)
}

// Who is silent may be cut off and go on; only on its own hardware a host knows that nobody does.
func nodeIDOnOtherHardware(t *testing.T, h Harness) {
	h.Configure(network4())
	original := claimOf(1)
	original.TTL = 5 * time.Second
	original.Attrs.Hardware = []string{"board-1", "card-1"}
	x := start(t, h, original)
	clone := claimOf(2)
	clone.Attrs.Node = "node-1"
	clone.Attrs.Hardware = []string{"board-2"}
	_, err := tryStart(t, h, clone)
	var conflict *subnet.ConflictError
	if !errors.As(err, &conflict) || conflict.Silent {
		t.Errorf("beside the live original: %v, want a conflict with one that answers", err)
	}
	x.kill()
	_, err = tryStart(t, h, clone)
	if !errors.As(err, &conflict) || !conflict.Silent || !strings.Contains(err.Error(), "leases release '"+subnet.KeyOf(x.subnets())) {
		t.Errorf("beside the silent original: %v, want a conflict that says how to end it", err)
	}
	wantLease(t, h, x.subnets(), original.Attrs, false)
	rebooted := original
	rebooted.Attrs.Instance = "after-a-reboot"
	rebooted.Attrs.Hardware = []string{"card-1", "card-2"}
	y := start(t, h, rebooted)
	if y.subnets() != x.subnets() {
		t.Errorf("subnets %v after a reboot with another board, want %v", y.subnets(), x.subnets())
	}
	y.kill()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); ; <-ticker.C {
		_, err := tryStart(t, h, clone)
		if err == nil {
			return // the lease has ended
		}
		if !errors.As(err, &conflict) || time.Now().After(deadline) {
			t.Fatalf("%v after the original died: %v", patience, err)
		}
	}
}

func addressOfALiveHost(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	other := claimOf(2)
	other.Attrs.Public.V4 = claimOf(1).Attrs.Public.V4
	_, err := tryStart(t, h, other)
	wantConflict(t, h, err, "public address", "192.0.2.1", x)
	wantClaimant(t, x, other)
}

func addressOfADeadHost(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	x.kill()
	other := claimOf(2)
	other.Attrs.Public = claimOf(1).Attrs.Public
	y := start(t, h, other)
	if y.subnets() == x.subnets() {
		t.Errorf("subnets = %v, which are another node's", y.subnets())
	}
	wantLeases(t, h, x.subnets(), y.subnets())
}

// A machine that keeps no node id goes on with the lease of its earlier run, time after time.
func addressOfAnEarlierRun(t *testing.T, h Harness) {
	h.Configure(network4())
	first := claimOf(1)
	first.Attrs.Hardware = []string{"card-1"}
	x := start(t, h, first)
	for n := 2; n <= 4; n++ {
		again := claimOf(n)
		again.Attrs.Public = first.Attrs.Public
		again.Attrs.Hardware = []string{"card-1", "card-2"}
		if n == 2 {
			_, err := tryStart(t, h, again)
			var conflict *subnet.ConflictError
			if !errors.As(err, &conflict) {
				t.Errorf("beside the live one: %v, want a conflict", err)
			}
		}
		x.kill()
		x = start(t, h, again)
		wantLeases(t, h, x.subnets())
		wantLease(t, h, x.subnets(), again.Attrs, false)
	}
}

// startTogether starts hosts at once and returns those that got a lease; the others must have met a conflict.
func startTogether(t *testing.T, h Harness, claims ...subnet.Claim) []*host {
	t.Helper()
	var mu sync.Mutex
	var winners []*host
	var wg sync.WaitGroup
	for _, claim := range claims {
		wg.Go(func() {
			x, err := tryStart(t, h, claim)
			var conflict *subnet.ConflictError
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				winners = append(winners, x)
			case !errors.As(err, &conflict):
				t.Errorf("Acquire = %v, want a lease or a conflict", err)
			}
		})
	}
	wg.Wait()
	return winners
}

func twinsThatStartTogether(t *testing.T, h Harness) {
	h.Configure(network4())
	var claims []subnet.Claim
	for n := 1; n <= 3; n++ {
		claim := claimOf(n)
		claim.Attrs.Node = "node-1"
		claims = append(claims, claim)
	}
	winners := startTogether(t, h, claims...)
	if len(winners) != 1 {
		t.Fatalf("%d hosts with one node id hold leases, want 1", len(winners))
	}
	wantLeases(t, h, winners[0].subnets())
}

func addressTwins(t *testing.T, h Harness) {
	h.Configure(network4())
	var claims []subnet.Claim
	for n := 1; n <= 3; n++ {
		claim := claimOf(n)
		claim.Attrs.Public = claimOf(1).Attrs.Public
		claims = append(claims, claim)
	}
	winners := startTogether(t, h, claims...)
	if len(winners) != 1 {
		t.Fatalf("%d hosts with one address hold leases, want 1", len(winners))
	}
	wantLeases(t, h, winners[0].subnets())
}
