package subnettest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"tulle/subnet"
)

func watchTests() map[string]func(*testing.T, Harness) {
	return map[string]func(*testing.T, Harness){
		"WatchDeliversWholeSets":       watchDeliversWholeSets,
		"WatchBeforeAnything":          watchBeforeAnything,
		"BrokenKeysCostOnlyThemselves": brokenKeysCostOnlyThemselves,
		"LastGoodConfigStaysInForce":   lastGoodConfigStays,
		"NewestSetWins":                newestSetWins,
	}
}

func watchDeliversWholeSets(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
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
	h.Put("config", config4, 0)
	w.until("a network", func(set subnet.Set) bool { return set.Network != nil })
}

func brokenKeysCostOnlyThemselves(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	x := start(t, h, claimOf(1))
	broken := map[string]string{
		"subnets":                          flanneldValue,
		"subnets-x":                        flanneldValue,
		"subnets-meta/10.5.35.0-24":        flanneldValue,
		"subnets/README":                   "x",
		"subnets/10.5.36.0-24":             `{"PublicIP":`,
		"subnets/10.5.37.0-24":             `{"PublicIP":null}`,
		"subnets/10.5.38.0-24&FC00:5::-64": flanneldValue,
		"subnets/10.5.39.1-32":             flanneldValue,
		"subnets/10.5.40.0-24/more":        flanneldValue,
	}
	w := watch(t, h)
	for round := range 2 {
		for key, value := range broken {
			h.Put(key, value, 0)
		}
		set := w.until("all problems", func(set subnet.Set) bool { return len(set.Problems) == len(broken) })
		if !hasLease(x.subnets())(set) || len(set.Leases) != 1 || set.Network == nil {
			t.Errorf("set = %+v, want the lease of node-1 untouched", set)
		}
		for _, p := range set.Problems {
			if p.Reason == "" || !named(broken, p.Key) {
				t.Errorf("problem = %+v, want a broken key and a reason", p)
			}
		}
		if round == 0 { // the second time, they are there before the watch
			w = watch(t, h)
			continue
		}
		for key := range broken {
			h.Delete(key)
		}
		w.until("no problem", func(set subnet.Set) bool { return len(set.Problems) == 0 && hasLease(x.subnets())(set) })
	}
}

// named reports whether a full key is one of those, which lack the prefix.
func named(keys map[string]string, full string) bool {
	for key := range keys {
		if strings.HasSuffix(full, key) {
			return true
		}
	}
	return false
}

func lastGoodConfigStays(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
	w := watch(t, h)
	good := w.until("a network", func(set subnet.Set) bool { return set.Network != nil })
	for _, spoil := range []func(){
		func() { h.Put("config", `{"Network":"10.5.0.0/16","SubnetLen":12}`, 0) },
		func() { h.Delete("config") },
		func() { h.Put("config", "{", 0) },
	} {
		spoil()
		set := w.until("a problem", func(set subnet.Set) bool { return len(set.Problems) > 0 && set.Revision > good.Revision })
		if set.Network == nil || set.Network.Revision != good.Network.Revision || !strings.HasSuffix(problemKeys(set)[0], "config") {
			t.Errorf("set = %+v, want the last good network and a problem with the configuration", set)
		}
		good.Revision = set.Revision
	}
	h.Put("config", configDual, 0)
	w.until("the new network", func(set subnet.Set) bool {
		return set.Network.Revision > good.Network.Revision && len(set.Problems) == 0
	})
}

func newestSetWins(t *testing.T, h Harness) {
	h.Put("config", config4, 0)
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
		h.Put(fmt.Sprintf("subnets/10.5.%d.0-24", i), flanneldValue, time.Hour)
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
