package fabric

import (
	"errors"
	"fmt"
	"time"

	"tulle/internal/trouble"
	"tulle/subnet"
)

// storeView is the view of the store that one pass decides from.
type storeView struct {
	subnet.Set
	cached   bool   // of an earlier run: the store has not been reached since this one began
	degraded string // what that means, for people
}

// errNoView tells that the store has not answered yet. Nothing is changed before it has.
var errNoView = errors.New("waiting for the store's first answer")

// currentView returns the newest view of the store; while it has shown no configuration, and a start has waited long enough, the
// cached one.
func (f *Fabric) currentView() (storeView, error) {
	v := f.views
	set, ok := v.newest()
	if !ok && v.isNew() {
		return storeView{}, trouble.Wrap(trouble.StoreWaiting, "", errNoView)
	}
	f.openCache(set, ok)
	if ok && set.Network != nil && v.cached != nil {
		v.resume(set)
		v.cached = nil
		f.keeper.hurry()
	}
	if ok && v.cached == nil {
		return storeView{Set: v.remember(v.compare(set, f.cfg.Keys.Leases))}, nil
	}
	if v.cached == nil || v.isNew() {
		return storeView{}, trouble.Wrap(trouble.StoreWaiting, "", errNoView)
	}
	if !v.resumed {
		v.resumed = true
		f.keeper.inUse()
	}
	cached, why := v.cached.Set, "the store has not been reached"
	if ok {
		why = f.noNetwork(set).Error()
		cached.Revision, cached.Problems, cached.Unlisted = set.Revision, set.Problems, set.Unlisted
		cached.Leases, _ = subnet.HoldBack(set.Leases, cached.Leases)
	}
	text := fmt.Sprintf("%s; the view of %s is in force", why, v.cached.Time)
	return storeView{Set: v.remember(cached), cached: true, degraded: text}, nil
}

// openCache reads the cached view, once, unless the store shows that very view.
func (f *Fabric) openCache(set subnet.Set, ok bool) {
	v := f.views
	if v.opened {
		return
	}
	v.opened = true
	if ok && set.Network != nil {
		if leases, former, same := v.cache.Remembered(set); same {
			set.Leases = leases
			v.cache.Written(set)
			v.memory.Restore(set, former)
			f.keeper.hurry()
			return
		}
	}
	if v.cached = f.cachedView(); v.cached != nil {
		v.cache.Written(v.cached.Set)
		v.memory.Restore(v.cached.Set, v.cached.Former)
	}
}

// Comparing returns until when what the store shows is compared with the cached view; zero if it is not.
func (f *Fabric) Comparing() time.Time { return f.views.compareUntil }
