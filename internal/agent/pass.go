package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"tulle/internal/fabric"
	"tulle/internal/invariant"
	"tulle/internal/logthrottle"
	"tulle/internal/trouble"
	"tulle/ip"
)

// maxRounds is how often one pass applies and looks again before it leaves the rest to the next pass.
const maxRounds = 3

// pass makes the kernel right once, and tells how far it came and whether it changed anything.
func (a *Agent) pass(ctx context.Context) (st Status, changed bool) {
	a.inbox.begin()
	begun := time.Now()
	a.work.Passes++
	a.refused = nil
	st = Status{Node: a.cfg.Host.Node, Version: a.cfg.Version, Dropped: a.drops.total()} // a pass that ends early has read none
	a.takeInVerdicts()
	passes := make([]*fabric.Pass, len(a.fabrics))
	for i, f := range a.fabrics {
		passes[i] = f.Begin()
	}
	changed, err := a.reconcile(ctx, passes, &st)
	a.offerProbes()
	for _, p := range passes {
		p.End(err)
		st.Networks = append(st.Networks, p.Status)
	}
	a.work.TookFull.add(time.Since(begun))
	st.Work = a.work
	a.sumUp(&st, err)
	return st, changed
}

// handOn hands on what a pass wanted to those that no pass waits for: who waits for this host to be ready need not either.
func (a *Agent) handOn() {
	a.wanted.Update()
	a.offerFastPath()
}

// reconcile looks and applies until there is nothing to do. The error is the host's, for all networks.
func (a *Agent) reconcile(ctx context.Context, passes []*fabric.Pass, st *Status) (changed bool, err error) {
	var plan ip.Plan
	for range maxRounds {
		var done bool
		plan, done, err = a.round(ctx, passes, st)
		changed = changed || len(plan) > 0
		if done || err != nil {
			return changed, err
		}
	}
	return changed, trouble.Wrap(trouble.KernelUnstable, "", fmt.Errorf("something else keeps changing the kernel; what had to be done again: %s", plan[0].Brief()))
}

// look is one look at the kernel, and what the networks make of it.
type look struct {
	scope   ip.Scope
	snap    ip.Snapshot
	by      []string       // processes that have changed the kernel since the last look
	passes  []*fabric.Pass // that have decided
	waiting []ip.Part      // of networks that have not, or that only add: nothing of these is to be deleted

	unchanged bool // what is wanted is what was wanted before
}

// round looks, has the networks decide, and applies. It returns what there was to apply, and whether nothing is left to be done.
func (a *Agent) round(ctx context.Context, passes []*fabric.Pass, st *Status) (plan ip.Plan, done bool, err error) {
	l, err := a.look(ctx, passes, st)
	if err != nil || len(l.passes) == 0 {
		return nil, true, err
	}
	for i, p := range passes {
		if slices.Contains(l.passes, p) && !p.Unchanged() {
			a.wanted.Set(i, p.Scope(), p.Want)
			for n, former := range a.former {
				a.wanted.Set(len(passes)+n, former.Scope, ip.State{})
			}
		}
	}
	d := l.diff()
	plan, unset := l.snap.Settable(d.plan, a.refused)
	advice, unfit := advise(unset)
	st.found.settings = advice
	for _, v := range l.violations(plan, d, unset) {
		if !slices.Contains(st.found.violations, v) {
			st.found.violations = append(st.found.violations, v)
		}
	}
	if len(plan) > 0 {
		err = a.apply(ctx, plan, l)
	}
	st.found.contested = a.contests.lasting()
	for _, p := range l.passes {
		p.Applied()
	}
	if err != nil || len(plan) > 0 {
		return plan, false, err
	}
	for _, p := range l.passes {
		if err := p.Ask(ctx, a.cfg.Kernel); err != nil {
			return nil, true, trouble.Wrap(trouble.KernelFailed, "", err)
		}
		p.Converged(len(st.found.violations) == 0)
	}
	return nil, true, errors.Join(trouble.Wrap(trouble.FileUnwritable, a.cfg.RunDir, a.wanted.Trouble()), trouble.Wrap(trouble.SettingRefused, "", unfit))
}

// look reads the kernel, and has each network decide that can.
func (a *Agent) look(ctx context.Context, passes []*fabric.Pass, st *Status) (*look, error) {
	l := &look{by: a.inbox.actors(), unchanged: true}
	for i, p := range passes {
		if p.Prepare(passes[:i]) {
			l.passes, l.scope = append(l.passes, p), l.scope.Plus(p.Scope())
		}
	}
	if len(l.passes) == 0 {
		return l, nil
	}
	for _, former := range a.former {
		l.scope = l.scope.Join(former.Scope)
	}
	if a.cfg.Uplink.CanReach.IsValid() {
		l.scope.Paths = append(l.scope.Paths, a.cfg.Uplink.CanReach)
	}
	var err error
	if l.snap, err = a.cfg.Kernel.Snapshot(ctx, l.scope); err != nil {
		return nil, trouble.Wrap(trouble.KernelFailed, "", fmt.Errorf("read kernel: %w", err))
	}
	st.Dropped, st.found.deviceFilters = a.drops.add(l.snap.Drops), l.snap.DeviceFilters
	l.passes = slices.DeleteFunc(l.passes, func(p *fabric.Pass) bool { return !p.Decide(l.snap) })
	for _, p := range passes {
		if uplink := p.Uplink(); st.Uplink == nil && uplink.Link != "" {
			st.Uplink = uplinkStatus(uplink)
		}
	}
	l.findWaiting(passes, a.former)
	for _, p := range l.passes {
		l.unchanged = l.unchanged && p.Unchanged()
	}
	return l, nil
}

// findWaiting finds what is of networks that have not decided, or decide from a cached view. While there are any, what former networks left
// stays too, since one may go by another name now. What is needed by one that has decided is no other's.
func (l *look) findWaiting(passes []*fabric.Pass, former []ip.Part) {
	var needed ip.Scope
	for _, p := range passes {
		if slices.Contains(l.passes, p) && !p.FromCache() {
			needed = needed.Join(p.Needs())
		} else {
			l.waiting = append(l.waiting, ip.Part{Net: p.Status.Name, Scope: p.Scope()})
		}
	}
	if len(l.waiting) > 0 {
		l.waiting = append(l.waiting, former...)
	}
	for i := range l.waiting {
		l.waiting[i].Scope = l.waiting[i].Scope.Less(needed)
	}
}

// difference is what leads from what the kernel has to what is wanted.
type difference struct {
	plan       ip.Plan
	additions  ip.Plan  // its part that is for networks which work from the cached view
	have, want ip.State // of networks that have a view of the store
	live       bool     // there are any
}

// diff compares. Of a network that waits for its store nothing is taken away.
func (l *look) diff() difference {
	d := difference{have: l.snap.Owned}
	for _, part := range l.waiting {
		d.have = d.have.Except(part)
	}
	var live, cached []ip.State
	for _, p := range l.passes {
		if p.FromCache() {
			cached = append(cached, p.Want)
			continue
		}
		live = append(live, p.Want)
		d.have.Routes = append(d.have.Routes, p.Abandoned...)
	}
	if len(cached) > 0 {
		d.additions = additive(ip.Diff(l.snap.Owned, ip.Sum(cached...)))
	}
	d.plan = d.additions
	if d.live = len(live) > 0; d.live {
		d.want = ip.Sum(live...)
		d.plan = append(slices.Clip(d.additions), ip.Diff(d.have, d.want)...)
	}
	return d
}

// additive is the part of a plan that may be carried out on a cached view. Nothing goes away, and what leads to peers
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

// violations holds what a round decided against the invariants that one host can check. At rest, little is left to look at.
func (l *look) violations(plan ip.Plan, d difference, unset []ip.Op) []invariant.Violation {
	if len(plan) == 0 && l.unchanged {
		if !d.live {
			return nil // what a cached view would take away is left
		}
		return invariant.AtRest(d.have, accept(d.want, unset))
	}
	vs := invariant.Owned(plan, l.scope)
	vs = append(vs, invariant.Seen(plan, l.waiting)...)
	for _, p := range l.passes {
		vs = append(vs, p.Violations()...)
	}
	return vs
}

// apply carries out a plan. Where nothing else is wanted than before, others have changed the kernel and the plan is a
// repair: each is logged, until it is contested.
func (a *Agent) apply(ctx context.Context, plan ip.Plan, l *look) error {
	err := a.change(ctx, plan)
	var by []string
	if l.unchanged {
		// Who acted while the kernel was being read may be why it had to be repaired, or will be: it is named both times.
		by = mergeActors(l.by, a.inbox.known())
		if len(by) == 0 && err == nil {
			by = a.inbox.knownSoon(ctx)
		}
	}
	every := logthrottle.Recurring
	switch repair := l.unchanged && err == nil; {
	case repair && a.contests.repaired(plan, by):
		every = logthrottle.Lasting
	case repair:
		every = 0
	}
	a.journal.applied(plan, by, every)
	if err != nil {
		return trouble.Wrap(trouble.KernelRefused, "", fmt.Errorf("apply to kernel: %w", err))
	}
	return nil
}

// change applies a plan and counts it. Settings that are refused are no failure yet: the next round looks at what they are.
func (a *Agent) change(ctx context.Context, plan ip.Plan) error {
	began := time.Now()
	err := a.cfg.Kernel.Apply(ctx, plan)
	a.work.Changes += uint64(len(plan))
	a.work.Applied += time.Since(began)
	var failed ip.OpErrors
	if !errors.As(err, &failed) || ctx.Err() != nil {
		return err
	}
	refused, failed := failed.Refused()
	if a.refused == nil {
		a.refused = map[string]bool{}
	}
	maps.Copy(a.refused, refused)
	if len(failed) > 0 {
		return failed
	}
	return nil
}
