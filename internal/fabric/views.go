package fabric

import (
	"slices"
	"sync"
	"time"

	"tulle/internal/hostfiles"
	"tulle/subnet"
)

// views holds the newest view of the store, and what is known of those before.
type views struct {
	loop  Loop
	cache *hostfiles.ViewFile
	born  time.Time

	mu    sync.Mutex
	set   subnet.Set
	shown bool // the store has answered

	opened  bool            // cached has been read from the cache, or need not be
	cached  *hostfiles.View // nil: none, or the store has shown all that is needed
	resumed bool            // lease and subnets are those of an earlier run, from the cached view
	memory  subnet.Memory   // of the leases that views have shown

	holdback     subnet.Holdback // between the cached view and what the store shows first
	rewound      bool            // the store shows older data than the cached view, and that has not been taken in
	compareUntil time.Time       // what the cached view had and the store lacks stays in force
}

// put replaces the newest view. The first is waited for.
func (v *views) put(set subnet.Set) {
	v.mu.Lock()
	first := !v.shown
	v.set, v.shown = set, true
	v.mu.Unlock()
	if first {
		v.loop.Hurry()
	} else {
		v.loop.LeasesChanged()
	}
}

// newest returns the newest view; false while the store has not shown one.
func (v *views) newest() (subnet.Set, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.set, v.shown
}

// waited asks for a pass once a start has waited long enough for the store.
func (v *views) waited() {
	if set, ok := v.newest(); !ok || set.Network == nil {
		v.loop.Wake()
	}
}

// isNew reports whether the store may still answer soon after the start.
func (v *views) isNew() bool { return time.Since(v.born) < StorePatience }

// resume begins to compare what the store shows with the cached view: if the store lost its data while this host was
// down, the others need time to assert their leases again, as they do after any sudden loss.
func (v *views) resume(set subnet.Set) {
	v.holdback.Admit(v.cached.Set, false)
	v.rewound = set.Revision < v.cached.Set.Revision
	v.compareUntil = time.Now().Add(subnet.HoldbackTime)
}

// remember gives the leases of a view their standing.
func (v *views) remember(set subnet.Set) subnet.Set {
	set.Leases = v.memory.Rank(set)
	return set
}

// compare is what to work from of a view of the store. Of what is held back it tells under the key of all leases.
func (v *views) compare(set subnet.Set, leases string) subnet.Set {
	if !time.Now().Before(v.compareUntil) {
		return set
	}
	set = v.holdback.Admit(set, v.rewound)
	v.rewound = false
	if reason := v.holdback.Reason(); reason != "" {
		set.Problems = append(slices.Clip(set.Problems), subnet.Problem{Key: leases, Reason: reason})
	}
	return set
}
