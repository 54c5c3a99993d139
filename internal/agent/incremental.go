package agent

import (
	"context"
	"slices"
	"time"

	"tulle/internal/invariant"
	"tulle/ip"
)

// hasBaselines reports whether an incremental pass may do.
func (a *Agent) hasBaselines() bool {
	for _, f := range a.fabrics {
		if !f.HasBaseline() {
			return false
		}
	}
	return true
}

// incrementalPass makes the kernel right when only a few leases have changed. It returns false if that takes a full pass.
func (a *Agent) incrementalPass(ctx context.Context) (ok bool) {
	if !a.inbox.onlyLeases() {
		return false
	}
	begun := time.Now()
	st, all := a.status.get(), true
	st.Networks = slices.Clone(st.Networks)
	for i, f := range a.fabrics {
		change, ok := f.Change(ctx, a.cfg.Kernel)
		if !ok {
			return false
		}
		plan := ip.Diff(change.Former, change.Want)
		if len(invariant.Owned(plan, change.Scope())) > 0 {
			return false // a full pass will tell
		}
		if len(plan) > 0 {
			if err := a.change(ctx, plan); err != nil {
				return false
			}
		}
		want, ok := change.Applied(&st.Networks[i])
		a.wanted.Set(i, change.Scope(), want)
		all = change.Ask(ctx, a.cfg.Kernel) && ok && all
	}
	a.offerFastPath()
	a.offerProbes()
	st.Troubles = a.probes.told(st.Troubles)
	a.work.Incremental++
	a.work.TookIncremental.add(time.Since(begun))
	st.Work = a.work
	a.publish(st)
	return all
}
