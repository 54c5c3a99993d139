package agent

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

// incrementalPass makes the kernel right when only a few leases have changed. It returns false if that takes a full pass.
func (a *Agent) incrementalPass(ctx context.Context) bool {
	b := a.baseline
	a.baseline = nil // until all has gone well
	set, ok := a.inbox.view()
	set = a.remember(a.compare(set))
	if b == nil || !ok || !a.inbox.onlyLeases() || set.Network != b.set.Network || !slices.Equal(set.Problems, b.set.Problems) {
		return false
	}
	d, ok := diffLeases(b.set.Leases, set.Leases)
	if !ok {
		return false
	}
	b.usage.apply(d)
	if !a.independent(b, d) {
		return false
	}
	c, ok := a.decideChange(ctx, b, d)
	if !ok {
		return false
	}
	plan := ip.Diff(c.former, c.want)
	if len(invariant.Owned(plan, b.view.scope)) > 0 {
		return false // a full pass will tell
	}
	if len(plan) > 0 {
		if err := a.change(ctx, plan); err != nil {
			return false
		}
	}
	b.want.Exchange(c.former, c.want)
	b.peers = exchange(b.peers, d.removed, peerViews(d.added, c.want.Routes, a.backend.Scope(nil).Links))
	b.set = set
	b.setPaths(d, c.paths)
	a.wanted.Amend(b.want)
	a.cache.Offer(set, a.network, &a.memory)
	st := a.status.get()
	a.work.Incremental++
	st.peers, st.PeerCount, st.Revision, st.Work = b.peers, len(b.peers), set.Revision, a.work
	a.publish(st)
	if b.linkUnused(c.former) {
		return false
	}
	a.baseline = b
	return true
}

// independent reports whether leases that changed concern nobody else, and not this host's own.
func (a *Agent) independent(b *baseline, d leaseDiff) bool {
	own := func(l *subnet.Lease) bool { return l.Attrs.Node == a.cfg.Node }
	other := func(l *subnet.Lease) bool { return own(l) || !b.usage.independent(a.network, l) }
	return !slices.ContainsFunc(d.removed, own) && !slices.ContainsFunc(d.added, other)
}

// peerChange is what was wanted for leases that were removed, and what is for those that were added.
type peerChange struct {
	former, want ip.State
	paths        map[netip.Addr]ip.Path // to the hosts of the latter
}

// decideChange decides for the leases that changed alone. All that the decision says of others, or of the host, is the same before and
// after. It returns false if that is not certain.
func (a *Agent) decideChange(ctx context.Context, b *baseline, d leaseDiff) (c peerChange, ok bool) {
	usable, refused := subnet.Judge(*a.network, d.added, a.judging(b.view.self.Subnets, b.precious))
	if len(refused) > 0 || len(usable) != len(d.added) {
		return c, false
	}
	// Where the routes to those that were removed led is in what was wanted of them.
	before, now := b.view.host, b.view.host
	before.Paths = b.paths
	if addrs := a.backend.Scope(d.added).Paths; len(addrs) > 0 {
		var err error
		if now.Paths, err = a.cfg.Kernel.Lookup(ctx, addrs); err != nil {
			return c, false
		}
	}
	var unserved, unservedNow []subnet.Problem
	c.former, unserved = a.decidePeers(before, b.view.self, d.removed)
	c.want, unservedNow = a.decidePeers(now, b.view.self, usable)
	c.paths = now.Paths
	ok = len(unserved)+len(unservedNow) == 0 && !b.want.Meets(c.former, c.want) && b.linksKnown(c.want) && a.holdsInvariants(b, c.want, usable)
	return c, ok
}

// decidePeers is what is wanted for some leases alone.
func (a *Agent) decidePeers(host backend.Host, self subnet.Lease, usable []*subnet.Lease) (ip.State, []subnet.Problem) {
	in := a.inputs(host, self)
	in.Usable = usable
	return decision.Peers(in)
}

// holdsInvariants reports whether what is wanted for leases that were added holds what always should. If not, a full pass will tell.
func (a *Agent) holdsInvariants(b *baseline, want ip.State, usable []*subnet.Lease) bool {
	return len(invariant.Usable(*a.network, b.view.self.Subnets, usable))+
		len(invariant.Filtered(want, a.cfg.PeerFilter, usable))+len(invariant.Whole(want)) == 0
}
