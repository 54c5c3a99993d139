package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

// settleRounds is how often one pass applies and looks again before it leaves the rest to the next pass.
const settleRounds = 3

// view is everything that one pass decides from.
type view struct {
	set   subnet.Set
	scope ip.Scope
	snap  ip.Snapshot
	host  backend.Host
	self  subnet.Lease
	// notHeld is why self, if anything, is a lease of the past.
	notHeld error
}

// decision is what one pass wants.
type decision struct {
	want     ip.State
	usable   []subnet.Lease
	problems []subnet.Problem
}

// pass makes the kernel right once, and tells how far it came.
func (a *Agent) pass(ctx context.Context) Status {
	st := Status{Node: a.cfg.Node}
	err := a.reconcile(ctx, &st)
	if err != nil {
		st.Reason = err.Error()
	}
	if a.cfg.Trouble != nil {
		if t := a.cfg.Trouble(); t != nil {
			st.Store = t.Error()
			if errors.Is(err, errNoView) {
				st.Reason = st.Store
			}
		}
	}
	st.Ready = err == nil
	return st
}

// errNoView tells that the store has not answered yet. Nothing is changed before it has.
var errNoView = errors.New("waiting for the store's first answer")

func (a *Agent) reconcile(ctx context.Context, st *Status) error {
	set, ok := a.inbox.view()
	if !ok {
		return errNoView
	}
	st.Revision = set.Revision
	st.Problems = slices.Clone(set.Problems)
	if err := a.configure(set, st); err != nil {
		return err
	}
	for range settleRounds {
		done, err := a.round(ctx, set, st)
		if done || err != nil {
			return err
		}
	}
	return errors.New("the kernel does not stay as it was set: something else changes it")
}

// configure takes the first valid configuration into force and reports a later one that differs.
func (a *Agent) configure(set subnet.Set, st *Status) error {
	if set.Network == nil {
		return a.noNetwork(set)
	}
	if a.network == nil {
		b, doubts, err := backend.Open(a.cfg.Backends, *set.Network)
		if err != nil {
			return fmt.Errorf("network configuration: %w", err)
		}
		a.network, a.backend, a.doubts = set.Network, b, doubts
		a.cfg.Log.Info("network configured", "backend", set.Network.Backend.Type, "network", set.Network.Prefixes(), "rev", set.Network.Revision)
	}
	st.Network = networkStatus(*a.network)
	st.Problems = append(st.Problems, a.doubtful()...)
	if !sameNetwork(*a.network, *set.Network) {
		st.Pending = fmt.Sprintf("the configuration at revision %d differs from the one in force: restart tulled to take it over", set.Network.Revision)
	}
	return nil
}

// noNetwork says why there is no configuration, and what to do about it.
func (a *Agent) noNetwork(set subnet.Set) error {
	for _, p := range set.Problems {
		if p.Key == a.cfg.ConfigKey {
			return fmt.Errorf("%w: %s: %s", subnet.ErrNoNetwork, p.Key, p.Reason)
		}
	}
	return fmt.Errorf(`%w at %s: write one, such as: tulle config set '{"Network":"10.5.0.0/16"}'`, subnet.ErrNoNetwork, a.cfg.ConfigKey)
}

// doubtful reports what the backend found odd in its options.
func (a *Agent) doubtful() []subnet.Problem {
	var ps []subnet.Problem
	for _, d := range a.doubts {
		ps = append(ps, subnet.Problem{Key: a.cfg.ConfigKey, Reason: d})
	}
	return ps
}

// sameNetwork ignores the revision: writing the same configuration again changes nothing.
func sameNetwork(a, b subnet.Network) bool {
	a.Revision, b.Revision = 0, 0
	return reflect.DeepEqual(a, b)
}

// round looks, decides and applies. It is done when there was nothing to apply.
func (a *Agent) round(ctx context.Context, set subnet.Set, st *Status) (done bool, err error) {
	v, err := a.look(ctx, set)
	if err != nil {
		return false, err
	}
	mtu, err := a.backend.MTU(v.host.Uplink)
	if err != nil {
		return false, err
	}
	st.Uplink, st.MTU = uplinkStatus(v.host.Uplink), mtu
	if !v.self.Subnets.V4.IsValid() && !v.self.Subnets.V6.IsValid() {
		return false, v.notHeld
	}
	st.Lease = leaseStatus(v.self)

	d := a.decide(v)
	st.Peers = peerStatus(d, a.backend.Scope(nil).Links)
	st.Problems = append(slices.Clone(set.Problems), a.doubtful()...)
	for _, p := range d.problems {
		st.Problems = append(st.Problems, subnet.Problem{Key: a.cfg.LeaseDir + p.Key, Reason: p.Reason})
	}
	have := v.snap.Owned
	have.Routes = append(have.Routes, abandoned(v.snap.Foreign, d.want, set.Leases)...)
	if err := a.wanted.write(v.scope, d.want); err != nil {
		return false, err
	}
	plan := ip.Diff(have, d.want)
	if len(plan) > 0 {
		err = a.apply(ctx, plan)
	}
	// One object that the kernel refuses must not keep containers from starting.
	a.applied = true
	if err := errors.Join(err, a.writeEnv(v.self, mtu)); err != nil || len(plan) > 0 {
		return false, err
	}
	if v.notHeld != nil {
		return false, fmt.Errorf("%w (traffic goes on with %s)", v.notHeld, subnet.KeyOf(v.self.Subnets))
	}
	return true, nil
}

// look reads the kernel, chooses the uplink and has the lease announce it.
func (a *Agent) look(ctx context.Context, set subnet.Set) (view, error) {
	v := view{set: set}
	scope := a.backend.Scope(set.Leases)
	scope.Networks = a.network.Prefixes()
	if err := a.scope.extend(scope); err != nil {
		return v, err
	}
	scope.Links = union(scope.Links, a.scope.record.Links)
	scope.Networks = union(scope.Networks, a.scope.record.Networks)
	scope.Sysctls = append(scope.Sysctls, forwarding(*a.network)...)
	if a.cfg.Uplink.CanReach.IsValid() {
		scope.Paths = append(scope.Paths, a.cfg.Uplink.CanReach)
	}
	v.scope = scope
	var err error
	if v.snap, err = a.cfg.Kernel.Snapshot(ctx, scope); err != nil {
		return v, fmt.Errorf("read kernel: %w", err)
	}
	uplink, err := a.cfg.Uplink.Choose(v.snap, a.network.Families())
	if err != nil {
		return v, err
	}
	v.host = backend.Host{Node: a.cfg.Node, Uplink: uplink, Links: v.snap.Owned.Links, Paths: v.snap.Paths}
	return v, a.claim(&v)
}

// claim tells the keeper what to announce, and takes note of what is held.
func (a *Agent) claim(v *view) error {
	held, err := a.keeper.held()
	v.notHeld = err
	if err == nil {
		a.lease = held
		if err := a.scope.remember(held); err != nil {
			return err
		}
	}
	earlier := a.lease.Attrs
	if v.notHeld != nil {
		claim := subnet.Claim{Attrs: subnet.Attrs{Node: a.cfg.Node, Public: v.host.Uplink.Public}}
		if mine, ok := subnet.Mine(v.set, claim); ok {
			earlier = mine.Attrs
		}
	}
	attrs, err := a.backend.Advertise(v.host, earlier)
	if err != nil {
		return err
	}
	attrs.Node, attrs.Instance = a.cfg.Node, a.cfg.Instance
	a.keeper.publish(attrs)
	if v.notHeld == nil || a.applied {
		v.self = a.lease
	}
	return nil
}

// decide is the pure part: from what is seen to what is wanted.
func (a *Agent) decide(v view) decision {
	self := subnet.Self{Node: a.cfg.Node, Subnets: v.self.Subnets, Underlay: underlay(v)}
	var d decision
	var refused, unserved []subnet.Problem
	d.usable, refused = subnet.Judge(*a.network, v.set.Leases, self)
	d.want, unserved = a.backend.Plan(v.host, v.self, d.usable)
	d.want.Add(host(*a.network, a.cfg.IPMasq))
	d.want.Sort()
	d.problems = append(refused, unserved...)
	return d
}

// underlay lists the addresses that no lease may capture: this host's own, but those of its containers' bridges, and its gateways.
func underlay(v view) []netip.Addr {
	var addrs []netip.Addr
	own := v.self.Subnets
	for _, i := range v.snap.Interfaces {
		if i.Loopback || slices.ContainsFunc(v.host.Links, func(l ip.Link) bool { return l.Name == i.Name }) {
			continue
		}
		for _, a := range i.Addrs {
			addr := a.Prefix.Addr()
			if !own.Of(ip.FamilyOf(addr)).Contains(addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	for _, r := range v.snap.Defaults {
		if r.Via.IsValid() {
			addrs = append(addrs, r.Via)
		}
	}
	return addrs
}

// apply carries out a plan. The first plan after a start puts things in place; a later one follows the store or repairs.
func (a *Agent) apply(ctx context.Context, plan ip.Plan) error {
	err := a.cfg.Kernel.Apply(ctx, plan)
	a.cfg.Log.Info("kernel changed", "changes", len(plan), "first", plan[0].String())
	if err != nil {
		return fmt.Errorf("apply to kernel: %w", err)
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
