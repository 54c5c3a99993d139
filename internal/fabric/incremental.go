package fabric

import (
	"context"
	"net/netip"
	"slices"

	"tulle/backend"
	"tulle/internal/decision"
	"tulle/internal/invariant"
	"tulle/ip"
	"tulle/subnet"
)

// leaseDiff is how the leases of one view differ from those of another. A lease that changed is in both.
type leaseDiff struct{ removed, added []*subnet.Lease }

// maxDiff bounds what an incremental pass takes on, in leases.
const maxDiff = 512

// diffLeases compares two views, which share what is the same in both. It gives up when they differ in too much.
func diffLeases(old, now []*subnet.Lease) (d leaseDiff, ok bool) {
	for i, j := range subnet.Changes(old, now) {
		if i >= 0 && j >= 0 && old[i] == now[j] {
			continue
		}
		if i >= 0 {
			d.removed = append(d.removed, old[i])
		}
		if j >= 0 {
			d.added = append(d.added, now[j])
		}
		if len(d.removed)+len(d.added) > maxDiff {
			return leaseDiff{}, false
		}
	}
	return d, true
}

// Change is a fabric's part in an incremental pass: what was wanted for leases that were removed, and what is for those that were added.
type Change struct {
	Former, Want ip.State

	fabric   *Fabric
	baseline *baseline
	set      subnet.Set
	diff     leaseDiff
	paths    map[netip.Addr]ip.Path // to the hosts of leases that were added
}

// HasBaseline reports whether an incremental pass may do.
func (f *Fabric) HasBaseline() bool { return f.baseline != nil }

// Change decides for the leases alone that differ from those of the last pass. It returns false if that takes a full pass.
func (f *Fabric) Change(ctx context.Context, kernel ip.Kernel) (*Change, bool) {
	b := f.baseline
	f.baseline, f.pathCheck.current = nil, false // until all has gone well
	set, ok := f.views.newest()
	set = f.views.remember(f.views.compare(set, f.cfg.Keys.Leases))
	if b == nil || !ok || set.Network != b.set.Network || !slices.Equal(set.Problems, b.set.Problems) || set.Unlisted != b.set.Unlisted {
		return nil, false
	}
	d, ok := diffLeases(b.set.Leases, set.Leases)
	if !ok {
		return nil, false
	}
	b.usage.apply(d)
	if !f.independent(b, d) {
		return nil, false
	}
	c := &Change{fabric: f, baseline: b, set: set, diff: d}
	return c, c.decide(ctx, kernel)
}

// independent reports whether leases that changed concern nobody else, and not this host's own.
func (f *Fabric) independent(b *baseline, d leaseDiff) bool {
	own := func(l *subnet.Lease) bool { return l.Attrs.Node == f.cfg.Host.Node }
	gone := func(l *subnet.Lease) bool { return own(l) || b.touchesOdd(l) }
	other := func(l *subnet.Lease) bool { return gone(l) || !b.usage.independent(f.network, l) }
	return !slices.ContainsFunc(d.removed, gone) && !slices.ContainsFunc(d.added, other)
}

// decide decides for the leases that changed alone. All that the decision says of others, or of the host, is the same before and
// after. It returns false if that is not certain.
func (c *Change) decide(ctx context.Context, kernel ip.Kernel) bool {
	f, b, d := c.fabric, c.baseline, c.diff
	usable, refused := subnet.Judge(*f.network, d.added, f.judging(b.facts.self.Subnets, b.precious))
	if len(refused) > 0 || len(usable) != len(d.added) {
		return false
	}
	// Where the routes to those that were removed led is in what was wanted of them.
	before, now := b.facts.host, b.facts.host
	before.Paths = b.paths
	if addrs := f.backend.Scope(d.added).Paths; len(addrs) > 0 {
		var err error
		if now.Paths, err = lookupPaths(ctx, kernel, addrs); err != nil {
			return false
		}
	}
	var unserved, unservedNow []subnet.Problem
	c.Former, unserved = f.decidePeers(before, b.facts.self, d.removed)
	c.Want, unservedNow = f.decidePeers(now, b.facts.self, usable)
	c.paths = now.Paths
	return len(unserved)+len(unservedNow) == 0 && !b.want.Meets(c.Former, c.Want) && !b.unserved.Meets(ip.State{}, c.Former) &&
		b.linksKnown(c.Want) && f.holdsInvariants(b, c.Want, usable)
}

// lookupPaths asks for the route to each address; one without a route is absent.
func lookupPaths(ctx context.Context, kernel ip.Kernel, addrs []netip.Addr) (map[netip.Addr]ip.Path, error) {
	questions := make([]ip.Question, len(addrs))
	for i, addr := range addrs {
		questions[i].Dst = addr
	}
	answers, err := kernel.Lookup(ctx, questions)
	if err != nil {
		return nil, err
	}
	paths := make(map[netip.Addr]ip.Path, len(addrs))
	for i, a := range answers {
		if a.Leads() {
			paths[addrs[i]] = a.Path
		}
	}
	return paths, nil
}

// decidePeers is what is wanted for some leases alone.
func (f *Fabric) decidePeers(host backend.Host, self subnet.Lease, usable []*subnet.Lease) (ip.State, []subnet.Problem) {
	in := f.inputs(host, self)
	in.Usable = usable
	return decision.Peers(in)
}

// holdsInvariants reports whether what is wanted for leases that were added holds what always should. If not, a full pass will tell.
func (f *Fabric) holdsInvariants(b *baseline, want ip.State, usable []*subnet.Lease) bool {
	return len(invariant.Usable(*f.network, b.facts.self.Subnets, usable))+
		len(invariant.Filtered(want, f.cfg.Options.PeerFilter, usable))+len(invariant.Whole(want)) == 0
}

// Scope is all that may be changed for the network.
func (c *Change) Scope() ip.Scope { return c.baseline.facts.scope }

// Applied takes in that the kernel has been changed, and brings the status up to date. It returns what is wanted now, which later changes
// change in place, and whether that is all: if not, it takes a full pass as well.
func (c *Change) Applied(st *Status) (want ip.State, ok bool) {
	f, b := c.fabric, c.baseline
	b.want.Exchange(c.Former, c.Want)
	f.exchangeFastPath(c.Former, c.Want)
	f.exchangeProbing(c.diff.removed, probePeers(c.diff.added, c.Want, b.facts.host.Uplink.MTU))
	b.peers = exchange(b.peers, c.diff.removed, routedPeers(c.diff.added, c.Want))
	b.set = c.set
	b.setPaths(c.diff, c.paths)
	f.wanted = b.want
	f.views.cache.Offer(c.set, f.network, &f.views.memory)
	st.peers, st.PeerCount, st.Revision = b.peers, len(b.peers), c.set.Revision
	st.Leases.HeldBack += heldBack(c.diff.added) - heldBack(c.diff.removed)
	if b.linkUnused(c.Former) {
		return b.want, false
	}
	f.baseline = b
	return b.want, true
}
