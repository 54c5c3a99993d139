package fabric

import (
	"errors"
	"fmt"
	"slices"

	"tulle/backend"
	"tulle/internal/decision"
	"tulle/internal/invariant"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// Pass is a fabric's part in one pass of the host. The host calls Begin, then for each look at the kernel Prepare, Decide and Applied, and
// End once there is nothing left to do or it gives up. Where the fabric cannot decide, as without a view of the store, nothing of it is
// to be changed.
type Pass struct {
	Status Status

	fabric    *Fabric
	set       storeView
	err       error // why the network is not ready
	unwritten error // beside that: why the subnet file is not as it should be
	astray    error // beside that: which packets do not go where they should
	scope     ip.Scope
	facts     facts
	found     findings
	full      *FullOnly // why it leaves no baseline; nil: it leaves one
	decided
}

// decided is what one look at the kernel leads to, from the leases that may be used.
type decided struct {
	decision.Decision
	usable   []*subnet.Lease
	refused  []subnet.Problem
	problems []subnet.Problem // leases that are refused or not served
	fast     ip.FastPath      // without its peers
}

// Begin takes in the newest view of the store and its configuration.
func (f *Fabric) Begin() *Pass {
	f.baseline, f.lastBaseline, f.pathCheck.current = nil, f.baseline, false
	p := &Pass{fabric: f, Status: Status{Name: f.cfg.Name}, full: &FullOnly{Code: PassUnfinished, Text: "the last pass found no end: see why the host is not ready"}}
	p.err = p.takeIn()
	return p
}

func (p *Pass) takeIn() error {
	set, err := p.fabric.currentView()
	if err != nil {
		return err
	}
	p.set = set
	p.Status.Revision, p.Status.Degraded = set.Revision, set.degraded
	p.found.problems = slices.Clone(set.Problems)
	return p.configure(set.Set)
}

// Needs is what no other network of the host can have: devices and addresses.
func (p *Pass) Needs() ip.Scope {
	return ip.Scope{Links: p.fabric.backend.Scope(nil).Links, Networks: p.fabric.network.Prefixes()}
}

// refuseClash refuses the network if it needs what another needs, or has of an earlier run while it waits.
func (p *Pass) refuseClash(other *Pass) error {
	needs, taken := p.Needs(), other.scope
	if other.err == nil {
		taken = other.Needs()
	}
	for _, link := range needs.Links {
		if slices.Contains(taken.Links, link) {
			return fmt.Errorf("this network uses the device %s, as another network of this host does: give it another backend, or another VNI", link)
		}
	}
	for _, n := range needs.Networks {
		if slices.ContainsFunc(taken.Networks, n.Overlaps) {
			return fmt.Errorf("this network has addresses of %s, as another network of this host does: give it others", n)
		}
	}
	return nil
}

// FromCache reports whether the view is of an earlier run. What is wanted then is only to be added.
func (p *Pass) FromCache() bool { return p.set.cached }

// Families are those of the network.
func (p *Pass) Families() []ip.Family { return p.fabric.network.Families() }

// Prepare finds out, and records, what the next look at the kernel must read for the network, beside others that come first and have been
// prepared. It returns false if the network has no say.
func (p *Pass) Prepare(others []*Pass) bool {
	f := p.fabric
	for _, o := range others {
		if p.err == nil {
			p.err = trouble.Wrap(trouble.ConfigRefused, f.cfg.Keys.Config, p.refuseClash(o))
		}
	}
	if p.err != nil {
		p.scope = f.record.Record().Scope().Join(f.scope) // it may not have been recorded
		return false
	}
	p.facts = facts{set: p.set}
	f.scope = f.readScope(&p.facts)
	p.scope, p.facts.scope = f.scope, f.scope
	return true
}

// Scope is all that may be changed on the host for the network: where it has no say, what an earlier run may have made.
func (p *Pass) Scope() ip.Scope { return p.scope }

// Decide says what is wanted, from one look at the host. It returns false, and Err says why, if there is nothing to be said.
func (p *Pass) Decide(snap ip.Snapshot) bool {
	p.err = p.decide(snap)
	return p.err == nil
}

// Uplink is the interface that was chosen for the families of the network; zero if none was.
func (p *Pass) Uplink() ip.Uplink { return p.facts.uplink }

func (p *Pass) decide(snap ip.Snapshot) error {
	f, v := p.fabric, &p.facts
	if err := f.look(v, snap); err != nil {
		return err
	}
	mtu, err := f.backend.MTU(v.host.Uplink)
	switch {
	case errors.Is(err, backend.ErrOversize):
		p.found.oversize = err.Error()
	case err != nil:
		return trouble.Wrap(trouble.UplinkMissing, v.host.Uplink.Link, err)
	}
	p.Status.MTU = mtu
	p.found.overlaps = overlaps(*v, *f.network) // these may be why there is no lease
	if v.self.Subnets == (subnet.Subnets{}) {
		return v.notHeld
	}
	p.Status.Lease = leaseStatus(v.self, v.notHeld == nil)
	if errors.Is(v.notHeld, ErrUnconfirmed) {
		p.Status.Degraded = ErrUnconfirmed.Error()
	}
	p.decided = f.decide(*v)
	v.unchanged = f.wanted.Equal(p.Want)
	if !v.unchanged {
		f.wanted = p.Want
	}
	f.wantFastPath(p.fast, v.unchanged)
	f.wantProbing(*v, p.decided)
	p.Status.peers = f.routedPeers(*v, p.decided)
	p.Status.PeerCount = len(p.Status.peers)
	p.Status.Leases = LeaseCounts{Refused: len(keysOf(p.refused)), Unserved: len(keysOf(p.Unserved)), HeldBack: heldBack(p.set.Leases)}
	p.found.problems = slices.Concat(p.set.Problems, f.warned())
	p.found.blocked, p.found.closed, p.found.tunnels = p.Blocked, p.Closed, p.Tunnels
	p.found.stale, p.found.shared = stale(*v, *f.network, f.earlierNetworks()), shared(*v, *f.network)
	return nil
}

// Unchanged reports whether the same is wanted as the last time.
func (p *Pass) Unchanged() bool { return p.facts.unchanged }

// Violations holds what was decided against the invariants that one network can check.
func (p *Pass) Violations() []invariant.Violation {
	f := p.fabric
	vs := invariant.Usable(*f.network, p.facts.self.Subnets, p.usable)
	vs = append(vs, invariant.Filtered(p.Want, f.cfg.Options.PeerFilter, p.usable)...)
	return append(vs, invariant.Whole(p.Want)...)
}

// Applied tells that the kernel has been made right, as far as it lets itself. It has the subnet file written: one object that the kernel
// refuses must not keep containers from starting.
func (p *Pass) Applied() {
	p.fabric.applied = true
	p.unwritten = trouble.Wrap(trouble.FileUnwritable, p.fabric.cfg.SubnetFile, p.writeEnv())
}

// Converged tells that a look at the kernel found nothing to do. With sound, what was decided holds all invariants, and incremental passes may
// go on from there.
func (p *Pass) Converged(sound bool) {
	f, v := p.fabric, &p.facts
	if v.notHeld == nil && !p.set.cached {
		v.outranked = errors.Join(v.outranked, trouble.Wrap(trouble.LeaseOutranked, "", f.outranked()))
	}
	if p.full = p.obstacle(sound); p.full == nil {
		f.setBaseline(*v, p.decided, p.Status.peers)
		p.Status.Leases.Odd = len(f.baseline.odd)
	}
	if v.notHeld != nil && p.Status.Degraded == "" {
		p.err = fmt.Errorf("%w (traffic goes on with %s)", v.notHeld, subnet.KeyOf(v.self.Subnets))
		return
	}
	p.err = errors.Join(v.lacking, v.unpublished, v.unrecorded, v.outranked, p.astray,
		trouble.Wrap(trouble.ForwardBlocked, "", decision.CutOff(p.Blocked)), trouble.Wrap(trouble.TunnelBlocked, "", decision.CutOff(p.Tunnels)))
}

// End finishes the status. The network is ready if neither its own part nor the host's has failed.
func (p *Pass) End(host error) {
	f := p.fabric
	f.lastBaseline = nil
	p.tellFullOnly()
	if f.applied && f.keeper.holds() && f.network != nil && p.Status.Network != nil && !p.set.cached {
		f.views.cache.Offer(p.set.Set, f.network, &f.views.memory)
	}
	p.err = errors.Join(p.err, p.unwritten)
	p.Status.Ready = p.err == nil && host == nil
	if p.err != nil {
		p.Status.Reason = p.err.Error()
	}
	p.Status.Troubles = p.troubles(host)
	p.Status.Troubles.Add(f.MomentaryTroubles()...)
	if silent := p.Status.Troubles.Texts(trouble.StoreUnreachable); len(silent) > 0 && errors.Is(p.err, errNoView) {
		p.Status.Reason = silent[0]
	}
}

// outranked tells that hosts which see the store for the first time leave this one out. Those that remember it do not, and so it
// stands to lose more of its peers with each that is made anew.
func (f *Fabric) outranked() error {
	var errs []error
	for _, p := range f.verdicts.over {
		errs = append(errs, fmt.Errorf("%w, for the older lease %s%s: %s: run: tulle leases release '%s'", backend.ErrOutranked, f.cfg.Keys.Leases, p.Key, p.Reason, p.Key))
	}
	return errors.Join(errs...)
}

// decide says which leases may be used, and what is wanted.
func (f *Fabric) decide(v facts) decided {
	precious := f.precious(v)
	usable, refused := f.verdicts.judge(f.network, v.set.Leases, f.judging(v.self.Subnets, precious))
	in := f.inputs(v.host, v.self)
	in.Precious = precious
	in.Leases, in.Usable, in.Kernel = v.set.Leases, usable, v.snap
	d := decided{Decision: decision.Decide(in), usable: usable, refused: refused}
	d.problems = slices.Concat(refused, d.Unserved)
	if in.Options.FastPath {
		d.fast = decision.FastLinks(in, d.Want)
	}
	return d
}

// inputs are those of a decision, without leases.
func (f *Fabric) inputs(host backend.Host, self subnet.Lease) decision.Inputs {
	return decision.Inputs{Net: f.cfg.Name, Network: f.network, Backend: f.backend, Host: host, Self: self, Options: f.cfg.Options, RouteMTUs: f.routeMTUs}
}

func (p *Pass) writeEnv() error {
	f, self := p.fabric, p.facts.self
	env := flannel.Env{Subnets: self.Subnets, MTU: p.Status.MTU, IPMasq: f.cfg.Options.IPMasq}
	for _, family := range f.network.Families() {
		env.Network.Set(family, f.network.Pools.Of(family).Network)
	}
	changed, err := env.WriteFile(f.cfg.SubnetFile)
	if err != nil {
		return fmt.Errorf("write subnet file: %w", err)
	}
	if changed {
		f.cfg.Log.Info("subnet file written", "path", f.cfg.SubnetFile, "subnet", subnet.KeyOf(self.Subnets))
	}
	return nil
}
