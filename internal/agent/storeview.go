package agent

import (
	"fmt"
	"slices"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// storeView is the view of the store that one pass decides from.
type storeView struct {
	subnet.Set
	past     bool   // of an earlier run: the store has not been reached since this one began
	degraded string // what that means, for people
}

// currentView returns the newest view of the store; while it has shown no configuration, and a start has waited long enough, the
// cached one.
func (a *Agent) currentView() (storeView, error) {
	set, ok := a.inbox.view()
	if !ok && time.Since(a.born) < storePatience {
		return storeView{}, trouble.Wrap(trouble.StoreWaiting, "", errNoView)
	}
	a.openCache(set, ok)
	if ok && set.Network != nil && a.past != nil {
		a.resume(set)
		a.past = nil
		a.keeper.hurry()
	}
	if ok && a.past == nil {
		return storeView{Set: a.remember(a.compare(set))}, nil
	}
	if a.past == nil || time.Since(a.born) < storePatience {
		return storeView{}, trouble.Wrap(trouble.StoreWaiting, "", errNoView)
	}
	if !a.resumed {
		a.resumed = true
		a.keeper.inUse()
	}
	past, why := a.past.Set, "the store has not been reached"
	if ok {
		why = a.noNetwork(set).Error()
		past.Revision, past.Problems = set.Revision, set.Problems
		past.Leases, _ = subnet.HoldBack(set.Leases, past.Leases)
	}
	text := fmt.Sprintf("%s; the view of %s is in force", why, a.past.Time)
	return storeView{Set: a.remember(past), past: true, degraded: text}, nil
}

// openCache reads the cached view, once, unless the store shows that very view.
func (a *Agent) openCache(set subnet.Set, ok bool) {
	if a.opened {
		return
	}
	a.opened = true
	if ok && set.Network != nil && a.cache.Holds(set) {
		a.cache.Written(set)
		a.keeper.hurry()
	} else if a.past = a.cachedView(); a.past != nil {
		a.cache.Written(a.past.Set)
		a.memory.Recall(a.past.Set, a.past.Former)
	}
}

// additive is the part of a plan that may be carried out on a view of the past. Nothing goes away, and what leads to peers
// and is there stays as it is: an earlier run may have made it from a newer view.
func additive(plan ip.Plan) ip.Plan {
	return slices.DeleteFunc(plan, func(op ip.Op) bool {
		switch op.New.(type) {
		case ip.Guard, ip.FDB, ip.Neighbor, ip.Route:
			return op.Verb != ip.Add
		}
		return op.Verb == ip.Delete
	})
}

// resume begins to compare what the store shows with the cached view: if the store lost its data while this host was
// down, the others need time to assert their leases again, as they do after any sudden loss.
func (a *Agent) resume(set subnet.Set) {
	a.holdback.Admit(a.past.Set, false)
	a.rewound = set.Revision < a.past.Set.Revision
	a.compareUntil = time.Now().Add(subnet.HoldbackTime)
}

// remember gives the leases of a view their standing.
func (a *Agent) remember(set subnet.Set) subnet.Set {
	set.Leases = a.memory.Rank(set)
	return set
}

// compare is what to work from of a view of the store.
func (a *Agent) compare(set subnet.Set) subnet.Set {
	if !time.Now().Before(a.compareUntil) {
		return set
	}
	set = a.holdback.Admit(set, a.rewound)
	a.rewound = false
	if doubt := a.holdback.Doubt(); doubt != "" {
		set.Problems = append(slices.Clip(set.Problems), subnet.Problem{Key: a.cfg.LeaseDir, Reason: doubt})
	}
	return set
}
