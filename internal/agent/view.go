package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"tulle/backend"
	"tulle/internal/decision"
	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// view is everything that one pass decides from.
type view struct {
	set   storeView
	scope ip.Scope
	snap  ip.Snapshot
	host  backend.Host
	self  subnet.Lease

	by        []string // processes that have changed the kernel since the last look
	unchanged bool     // what is wanted is what was wanted before

	// What keeps this host from being ready although the pass goes on.
	notHeld     error // why self, if anything, is a lease of the past
	unpublished error // why peers are not told what they should be
	outranked   error // why hosts that see the store for the first time leave this one out
	unrecorded  error // why the next run will not know all that this one made
}

// look reads the kernel, chooses the uplink and has the lease announce it.
func (a *Agent) look(ctx context.Context, set storeView) (view, error) {
	v := view{set: set, by: a.inbox.actors()}
	scope := a.backend.Scope(set.Leases)
	scope.Networks = a.network.Prefixes()
	// A disk that is full or read-only must not keep this host from following the others.
	v.unrecorded = trouble.Wrap(trouble.FileUnwritable, a.cfg.StateDir, a.record.Extend(scope))
	scope = scope.Join(a.record.Record().Scope())
	scope.Sysctls = append(scope.Sysctls, decision.Forwarding(*a.network)...)
	if a.cfg.Uplink.CanReach.IsValid() {
		scope.Paths = append(scope.Paths, a.cfg.Uplink.CanReach)
	}
	v.scope = scope
	var err error
	if v.snap, err = a.cfg.Kernel.Snapshot(ctx, scope); err != nil {
		return v, trouble.Wrap(trouble.KernelFailed, "", fmt.Errorf("read kernel: %w", err))
	}
	choice := a.cfg.Uplink
	choice.Current = a.underlay
	uplink, err := choice.Choose(v.snap, a.network.Families())
	if err != nil {
		return v, trouble.Wrap(trouble.UplinkMissing, "", err)
	}
	a.underlay = uplink.Addr
	v.host = backend.Host{Node: a.cfg.Node, Uplink: uplink, Own: ownAddrs(v.snap), Links: v.snap.Owned.Links, Paths: v.snap.Paths}
	return v, a.claim(&v)
}

// ownAddrs is every address of this host.
func ownAddrs(snap ip.Snapshot) map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	for _, i := range snap.Interfaces {
		for _, addr := range i.Addrs {
			own[addr.Prefix.Addr()] = true
		}
	}
	return own
}

// claim tells the keeper what to announce, and takes note of what is held.
func (a *Agent) claim(v *view) error {
	lease, held, err := a.keeper.state()
	if held {
		v.unpublished = trouble.Wrap(trouble.LeaseUnpublished, "", err)
		if err := a.inForce(lease); err != nil {
			return err
		}
		a.lease = lease
		v.unrecorded = errors.Join(v.unrecorded, trouble.Wrap(trouble.FileUnwritable, a.cfg.StateDir, a.record.Remember(lease)))
	} else {
		v.notHeld = trouble.Wrap(leaseCode(err), "", err)
	}
	earlier, self := a.lease.Attrs, a.lease.Subnets
	if !held {
		claim := subnet.Claim{Previous: a.lease.Subnets, Attrs: subnet.Attrs{
			Node: a.cfg.Node, Instance: a.cfg.Instance, Hardware: a.cfg.Hardware, Public: v.host.Uplink.Public,
		}}
		if mine, ok := subnet.Mine(v.set.Set, claim); ok {
			earlier, self = mine.Attrs, mine.Subnets
		}
	}
	attrs, err := a.announced.advertise(a.backend, v.among(self), earlier)
	if errors.Is(err, backend.ErrOutranked) {
		v.outranked, err = trouble.Wrap(trouble.LeaseOutranked, "", err), nil
	}
	if err != nil {
		return trouble.Wrap(trouble.LeaseUnpublished, "", err)
	}
	attrs.Node, attrs.Instance, attrs.Hardware = a.cfg.Node, a.cfg.Instance, a.cfg.Hardware
	a.keeper.publish(attrs)
	if held || a.applied || a.resumed {
		v.self = a.lease
	}
	return nil
}

// among is the host beside all leases, of which the one with the given subnets is its own. A view that lacks it, or that is not of
// the present, does not say how old it is.
func (v *view) among(self subnet.Subnets) backend.Host {
	host := v.host
	if self == (subnet.Subnets{}) {
		host.Leases = v.set.Leases
		return host
	}
	own := slices.IndexFunc(v.set.Leases, func(l *subnet.Lease) bool { return l.Subnets == self })
	if own >= 0 && !v.set.past && !v.set.Leases[own].HeldBack {
		host.Leases, host.Self = v.set.Leases, v.set.Leases[own]
	}
	return host
}

// inForce checks that a lease is of the configuration in force: the store follows a new one at once, the agent does not.
func (a *Agent) inForce(l subnet.Lease) error {
	for _, f := range a.network.Families() {
		if network := a.network.Pools.Of(f).Network; !ip.Contains(network, l.Subnets.Of(f)) {
			return trouble.Wrap(trouble.LeaseMisfit, "", fmt.Errorf("the lease %s has no %s subnet in %s: the configuration changed meanwhile: restart tulled to take it over",
				subnet.KeyOf(l.Subnets), f, network))
		}
	}
	return nil
}

// judging is the host for which leases are judged.
func (a *Agent) judging(own subnet.Subnets, precious []netip.Addr) subnet.Self {
	return subnet.Self{Node: a.cfg.Node, Instance: a.cfg.Instance, Subnets: own, Underlay: precious}
}

// precious lists the addresses that no lease may capture: this host's own, but those of its containers' bridges, those that it
// publishes, which it does not see behind NAT, its gateways, etcd's and those of name servers nearby. A name server
// elsewhere may be a container.
func (a *Agent) precious(v view) []netip.Addr {
	precious := addrs(v.host.Uplink.Public)
	var near []netip.Prefix
	own := v.self.Subnets
	for _, i := range v.snap.Interfaces {
		if i.Loopback || slices.ContainsFunc(v.host.Links, func(l ip.Link) bool { return l.Name == i.Name }) {
			continue
		}
		for _, on := range i.Addrs {
			addr := on.Prefix.Addr()
			if !own.Of(ip.FamilyOf(addr)).Contains(addr) {
				precious, near = append(precious, addr), append(near, on.Prefix)
			}
		}
	}
	for _, r := range v.snap.Defaults {
		if r.Via.IsValid() {
			precious = append(precious, r.Via)
		}
	}
	if a.cfg.Etcd != nil {
		precious = append(precious, a.cfg.Etcd()...)
	}
	if a.cfg.Resolvers != nil {
		for _, addr := range a.cfg.Resolvers() {
			if slices.ContainsFunc(near, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				precious = append(precious, addr)
			}
		}
	}
	return precious
}
