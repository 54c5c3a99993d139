package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"tulle/backend"
	"tulle/internal/decision"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// maxRounds is how often one pass applies and looks again before it leaves the rest to the next pass.
const maxRounds = 3

// decided is what one pass wants, from the leases that may be used.
type decided struct {
	decision.Decision
	usable   []*subnet.Lease
	problems []subnet.Problem // leases that are refused or not served
}

// pass makes the kernel right once, and tells how far it came and whether it changed anything.
func (a *Agent) pass(ctx context.Context) (st Status, changed bool) {
	a.inbox.begin()
	a.baseline, a.lastBaseline = nil, a.baseline
	a.work.Passes++
	a.refused = nil
	st = Status{Node: a.cfg.Node, Dropped: a.drops.total} // a pass that ends early has read none
	changed, err := a.reconcile(ctx, &st)
	if err != nil {
		st.Reason = err.Error()
	}
	if silent := a.storeTrouble(trouble.List{}).All; len(silent) > 0 && errors.Is(err, errNoView) {
		st.Reason = silent[0].Text
	}
	a.lastBaseline = nil
	st.Ready, st.Work = err == nil, a.work
	st.Troubles = a.troubles(st, err)
	return st, changed
}

// errNoView tells that the store has not answered yet. Nothing is changed before it has.
var errNoView = errors.New("waiting for the store's first answer")

func (a *Agent) reconcile(ctx context.Context, st *Status) (changed bool, err error) {
	set, err := a.currentView()
	if err != nil {
		return false, err
	}
	st.Revision, st.Degraded = set.Revision, set.degraded
	st.found.problems = slices.Clone(set.Problems)
	if err := a.configure(set.Set, st); err != nil {
		return false, err
	}
	defer a.saveView(set)
	var plan ip.Plan
	for range maxRounds {
		plan, err = a.round(ctx, set, st)
		if len(plan) == 0 || err != nil {
			return changed || len(plan) > 0, err
		}
		changed = true
	}
	return true, trouble.Wrap(trouble.KernelUnsettled, "", fmt.Errorf("something else keeps changing the kernel; what had to be done again: %s", plan[0].Brief()))
}

// saveView has what the next run needs written.
func (a *Agent) saveView(set storeView) {
	a.wanted.Update()
	if a.applied && a.keeper.holds() && !set.past {
		a.cache.Offer(set.Set, a.network, &a.memory)
	}
}

// round looks, decides and applies. It returns what there was to apply.
func (a *Agent) round(ctx context.Context, set storeView, st *Status) (ip.Plan, error) {
	v, err := a.look(ctx, set)
	if err != nil {
		return nil, err
	}
	mtu, err := a.backend.MTU(v.host.Uplink)
	if err != nil {
		return nil, trouble.Wrap(trouble.UplinkMissing, v.host.Uplink.Link, err)
	}
	st.Uplink, st.MTU = uplinkStatus(v.host.Uplink), mtu
	if v.self.Subnets == (subnet.Subnets{}) {
		return nil, v.notHeld
	}
	st.Lease = leaseStatus(v.self, v.notHeld == nil)
	if errors.Is(v.notHeld, errRanOut) {
		st.Degraded = errRanOut.Error()
	}

	d := a.decide(v)
	v.unchanged = a.wanted.Last().Equal(d.Want)
	st.peers = a.peerViews(v, d)
	st.PeerCount = len(st.peers)
	st.found.problems, st.found.refused = slices.Concat(set.Problems, a.doubtful()), a.keyed(d.problems)
	st.found.blocked, st.found.closed = d.Blocked, d.Closed
	st.found.stale, st.found.shared = stale(v, *a.network), shared(v, *a.network)
	st.Dropped = a.drops.add(v.snap.Drops)
	have := v.snap.Owned
	have.Routes = append(have.Routes, d.Abandoned...)
	a.wanted.Note(v.scope, d.Want)
	v.unrecorded = errors.Join(v.unrecorded, trouble.Wrap(trouble.FileUnwritable, a.cfg.RunDir, a.wanted.Trouble()))
	plan := ip.Diff(have, d.Want)
	if set.past {
		plan = additive(plan)
	}
	plan, unset := v.snap.Settable(plan, a.refused)
	advice, unfit := advise(unset)
	st.found.settings = advice
	fit := d
	fit.Want = accept(d.Want, unset)
	for _, violation := range a.violations(v, fit, have, plan) {
		if !slices.Contains(st.found.violations, violation) {
			st.found.violations = append(st.found.violations, violation)
		}
	}
	if len(plan) > 0 {
		err = a.apply(ctx, plan, v)
	}
	st.found.contested = a.contests.lasting()
	// One object that the kernel refuses must not keep containers from starting.
	a.applied = true
	written := trouble.Wrap(trouble.FileUnwritable, a.cfg.SubnetFile, a.writeEnv(v.self, mtu))
	if err := errors.Join(err, written); err != nil || len(plan) > 0 {
		return plan, err
	}
	if v.notHeld == nil && !set.past {
		v.outranked = errors.Join(v.outranked, trouble.Wrap(trouble.LeaseOutranked, "", a.outranked()))
	}
	if len(st.found.violations) == 0 {
		a.setBaseline(v, d, st.peers)
	}
	if v.notHeld != nil && st.Degraded == "" {
		return nil, fmt.Errorf("%w (traffic goes on with %s)", v.notHeld, subnet.KeyOf(v.self.Subnets))
	}
	return nil, errors.Join(v.unpublished, v.unrecorded, v.outranked, trouble.Wrap(trouble.SettingRefused, "", unfit),
		trouble.Wrap(trouble.ForwardBlocked, "", decision.CutOff(d.Blocked)))
}

// outranked tells that hosts which see the store for the first time leave this one out. Those that remember it do not, and so it
// stands to lose more of its peers with each that is made anew.
func (a *Agent) outranked() error {
	var errs []error
	for _, p := range a.verdicts.over {
		errs = append(errs, fmt.Errorf("%w, for the older lease %s%s: %s: run: tulle leases release '%s'", backend.ErrOutranked, a.cfg.LeaseDir, p.Key, p.Reason, p.Key))
	}
	return errors.Join(errs...)
}

// keyed gives problems with leases the key under which the operator finds them.
func (a *Agent) keyed(ps []subnet.Problem) []subnet.Problem {
	out := make([]subnet.Problem, len(ps))
	for i, p := range ps {
		out[i] = subnet.Problem{Key: a.cfg.LeaseDir + p.Key, Reason: p.Reason}
	}
	return out
}

// decide says which leases may be used, and what is wanted.
func (a *Agent) decide(v view) decided {
	usable, refused := a.verdicts.judge(a.network, v.set.Leases, a.judging(v.self.Subnets, a.precious(v)))
	in := a.inputs(v.host, v.self)
	in.Leases, in.Usable, in.Kernel = v.set.Leases, usable, v.snap
	d := decided{Decision: decision.Decide(in), usable: usable}
	d.problems = slices.Concat(refused, d.Unserved)
	return d
}

// inputs are those of a decision, without leases.
func (a *Agent) inputs(host backend.Host, self subnet.Lease) decision.Inputs {
	return decision.Inputs{
		Network: a.network, Backend: a.backend, Host: host, Self: self,
		Options: decision.Options{IPMasq: a.cfg.IPMasq, PeerFilter: a.cfg.PeerFilter, SourceCheck: a.cfg.SourceCheck},
	}
}

// apply carries out a plan. Where nothing else is wanted than before, others have changed the kernel and the plan is a
// repair: each is logged, until it is contested.
func (a *Agent) apply(ctx context.Context, plan ip.Plan, v view) error {
	err := a.change(ctx, plan)
	var by []string
	if v.unchanged {
		// Who acted while the kernel was being read may be why it had to be repaired, or will be: it is named both times.
		by = mergeActors(v.by, a.inbox.known())
	}
	every := recurring
	switch repair := v.unchanged && err == nil; {
	case repair && a.contests.repaired(plan, by):
		every = lasting
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

func (a *Agent) writeEnv(self subnet.Lease, mtu int) error {
	env := subnet.Env{Subnets: self.Subnets, MTU: mtu, IPMasq: a.cfg.IPMasq}
	for _, f := range a.network.Families() {
		env.Network.Set(f, a.network.Pools.Of(f).Network)
	}
	changed, err := env.WriteFile(a.cfg.SubnetFile)
	if err != nil {
		return fmt.Errorf("write subnet file: %w", err)
	}
	if changed {
		a.cfg.Log.Info("subnet file written", "path", a.cfg.SubnetFile, "subnet", subnet.KeyOf(self.Subnets))
	}
	return nil
}
