package subnettest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"tulle/subnet"
)

func watchTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"WatchDeliversWholeSets": watchDeliversWholeSets,
		"WatchBeforeAnything":    watchBeforeAnything,
		"NewestSetWins":          newestSetWins,
	}
}

func watchDeliversWholeSets(t *testing.T, h Harness) {
	h.Configure(network4())
	x := start(t, h, claimOf(1))
	w := watch(t, h)
	first := w.until("anything", func(subnet.Set) bool { return true })
	if first.Network == nil || !hasLease(x.subnets())(first) || first.Revision < x.held.Lease().Revision || len(first.Problems) > 0 {
		t.Fatalf("first set = %+v, want the whole store", first)
	}
	if first.Leases[0].Created != x.held.Lease().Created || first.Leases[0].Revision != x.held.Lease().Revision {
		t.Errorf("lease = %+v, want the revisions of %+v", first.Leases[0], x.held.Lease())
	}
	y := start(t, h, claimOf(2))
	both := w.until("both leases", hasLease(y.subnets()))
	if !hasLease(x.subnets())(both) || both.Revision <= first.Revision {
		t.Errorf("set = %+v, want both leases at a later revision", both)
	}
	if err := x.held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.until("one lease", func(set subnet.Set) bool { return len(set.Leases) == 1 && hasLease(y.subnets())(set) })
}

func watchBeforeAnything(t *testing.T, h Harness) {
	w := watch(t, h)
	empty := w.until("anything", func(subnet.Set) bool { return true })
	if empty.Network != nil || len(empty.Leases)+len(empty.Problems) > 0 {
		t.Errorf("first set = %+v, want an empty one", empty)
	}
	h.Configure(network4())
	w.until("a network", func(set subnet.Set) bool { return set.Network != nil })
}

func newestSetWins(t *testing.T, h Harness) {
	h.Configure(network4())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sets := make(chan subnet.Set)
	done := make(chan error, 1)
	store := h.Open()
	t.Cleanup((&host{t: t, store: store}).kill)
	go func() {
		done <- store.Watch(ctx, func(set subnet.Set) {
			select {
			case sets <- set:
			case <-ctx.Done():
			}
		})
	}()
	const leases = 200
	for i := range leases {
		h.Put(v4(fmt.Sprintf("10.5.%d.0/24", i)), flanneld(), time.Hour)
	}
	delivered := 0
	deadline := time.After(patience)
	for last := (subnet.Set{}); len(last.Leases) < leases; delivered++ {
		select {
		case last = <-sets:
		case <-deadline:
			t.Fatalf("the last set has %d leases, want %d", len(last.Leases), leases)
		}
	}
	if delivered > leases/4 {
		t.Errorf("%d sets were delivered to a slow watcher for %d changes", delivered, leases)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Watch = %v, want nil at the end of its context", err)
	}
}
