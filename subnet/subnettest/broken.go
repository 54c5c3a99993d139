package subnettest

import (
	"fmt"
	"strings"
	"testing"

	"tulle/subnet"
)

// brokenTests put keys and values into the store that nobody can read.
func brokenTests() map[string]func(*testing.T, KeyHarness) {
	return map[string]func(*testing.T, KeyHarness){
		"GarbageInTheWayIsPassed":        garbageInTheWayIsPassed,
		"GarbledLeaseHeals":              garbledLeaseHeals,
		"BrokenKeysCostOnlyThemselves":   brokenKeysCostOnlyThemselves,
		"ManyBrokenKeysAreCounted":       manyBrokenKeysAreCounted,
		"LongTextsAreQuotedShort":        longTextsAreQuotedShort,
		"LeasesOfEverythingTakeNothing":  leasesOfEverythingTakeNothing,
		"GarbledFormerOwnerIsPassedOver": garbledFormerOwner,
	}
}

func garbageInTheWayIsPassed(t *testing.T, h KeyHarness) {
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

func garbledLeaseHeals(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	x := start(t, h, claimOf(1))
	w := watch(t, h)
	h.Put(keyOf(x.subnets()), "{", 0)
	w.until("the lease put right", func(set subnet.Set) bool {
		value, _, _ := h.Get(keyOf(x.subnets()))
		return hasLease(x.subnets())(set) && value == encode(t, claimOf(1).Attrs)
	})
	wantKept(t, x)
}

func brokenKeysCostOnlyThemselves(t *testing.T, h KeyHarness) {
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

// manyBrokenKeysAreCounted: the first twenty are listed, whatever comes and goes.
func manyBrokenKeysAreCounted(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	w := watch(t, h)
	key := func(i int) string { return fmt.Sprintf("subnets/junk-%02d", i) }
	for i := range 25 {
		h.Put(key(24-i), "x", 0)
	}
	firstAt := func(first, unlisted int) func(subnet.Set) bool {
		return func(set subnet.Set) bool {
			return len(set.Problems) == 20 && set.Unlisted == unlisted && strings.HasSuffix(set.Problems[0].Key, key(first)) && set.Problems[0].Reason != ""
		}
	}
	w.until("20 problems and 5 more", firstAt(0, 5))
	h.Delete(key(0))
	w.until("20 others and 4 more", firstAt(1, 4))
	h.Delete(key(24))
	w.until("20 and 3 more", firstAt(1, 3))
	for i := range 25 {
		h.Delete(key(i))
	}
	w.until("no problem", func(set subnet.Set) bool { return len(set.Problems) == 0 && set.Unlisted == 0 })
}

// longTextsAreQuotedShort: whoever writes to the store fills neither memory nor logs of all hosts with what is wrong with it.
func longTextsAreQuotedShort(t *testing.T, h KeyHarness) {
	long := strings.Repeat("\x01", 100<<10)
	h.Put("config", fmt.Sprintf(`{"Network":%q}`, strings.Repeat("x", 100<<10)), 0)
	h.Put("subnets/"+long, flanneldValue, 0)
	h.Put("subnets/10.5.36.0-"+long, flanneldValue, 0)
	h.Put("subnets/10.5.37.0-24", `{"PublicIP":"`+strings.Repeat("x", 50<<10)+`"}`, 0)
	h.Put("subnets/10.5.38.0-24", strings.Repeat("x", 100<<10), 0)
	h.Put("subnets/10.5.39.0-24", `{"PublicIP":"192.0.2.1","Tulle":{"Node":"`+strings.Repeat("x", 50<<10)+`"}}`, 0)
	set := watch(t, h).until("all problems", func(set subnet.Set) bool { return len(set.Problems) == 6 })
	for _, p := range set.Problems {
		if len(p.Reason) > 1<<10 || strings.Contains(p.Reason, "\x01") {
			t.Errorf("a reason of %d bytes: %.400q", len(p.Reason), p.Reason)
		}
	}
}

// leasesOfEverythingTakeNothing: nobody uses a lease that covers the network, and a host whose own is deleted makes it anew beside that.
func leasesOfEverythingTakeNothing(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	for _, key := range []string{"subnets/0.0.0.0-0", "subnets/10.5.0.0-16", "subnets/10.4.0.0-15"} {
		h.Put(key, flanneldValue, 0)
	}
	x := start(t, h, claimOf(1))
	w := watch(t, h)
	before := w.until("the lease", hasLease(x.subnets()))
	h.Delete(keyOf(x.subnets()))
	w.until("the lease made anew", func(set subnet.Set) bool {
		wantKept(t, x)
		return hasLease(x.subnets())(set) && set.Revision > before.Revision
	})
	wantKept(t, x)
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

func garbledFormerOwner(t *testing.T, h KeyHarness) {
	h.Put("config", config4, 0)
	h.Put("claims/past/10.5.3.0-24", "{", 0)
	h.Put("claims/past/nonsense", "{}", 0)
	h.Put("claims/past/10.5.4.0-99", `{"Node":"node-1"}`, 0)
	start(t, h, claimOf(1))
}
