package subnettest

import (
	"testing"

	"tulle/subnet"
)

func formerOwnerTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"HostWithoutARecordGetsItsSubnetBack": withoutRecord,
		"FormerSubnetsAreUsedLast":            formerAreLast,
		"ChurnDoesNotExhaustThePool":          churn,
	}
}

// fourSubnets is a network with room for four hosts, of which the first subnet goes unused unless it is named.
func fourSubnets() subnet.Network { return networkOf(pool("10.5.0.0/26", 28, "10.5.0.0", "10.5.0.48")) }

// withoutRecord: the disk of a host is gone, and its lease has expired.
func withoutRecord(t *testing.T, h Harness) {
	h.Configure(networkDual())
	x := start(t, h, claimOf(1))
	before := x.subnets()
	x.kill()
	h.Delete(before)
	claim := claimOf(1)
	claim.Attrs.Instance = "another"
	if got := start(t, h, claim).subnets(); got != before {
		t.Errorf("subnets = %v, want %v again", got, before)
	}
}

func formerAreLast(t *testing.T, h Harness) {
	h.Configure(fourSubnets())
	expired, released := start(t, h, claimOf(1)), start(t, h, claimOf(2))
	expired.kill()
	h.Delete(expired.subnets())
	if err := released.held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh := []subnet.Subnets{start(t, h, claimOf(3)).subnets(), start(t, h, claimOf(4)).subnets()}
	for _, got := range fresh {
		if got == expired.subnets() || got == released.subnets() {
			t.Errorf("subnets = %v, which another host had before, though others never had an owner", got)
		}
	}
	if got := start(t, h, claimOf(5)).subnets(); got != released.subnets() {
		t.Errorf("subnets = %v, want %v, which was given back", got, released.subnets())
	}
	if got := start(t, h, claimOf(6)).subnets(); got != expired.subnets() {
		t.Errorf("subnets = %v, want %v, which expired", got, expired.subnets())
	}
}

// churn: hosts come and go, ten times as many as there is room for, and those that wait longest give up their place.
func churn(t *testing.T, h Harness) {
	h.Configure(fourSubnets())
	var alive []*host
	for n := 1; n <= 40; n++ {
		if len(alive) == 4 {
			gone := alive[0]
			alive = alive[1:]
			gone.kill()
			h.Delete(gone.subnets())
		}
		alive = append(alive, start(t, h, claimOf(n)))
	}
}
