package agent

import (
	"context"
	"maps"
	"net/netip"
	"slices"

	"tulle/internal/invariant"
	"tulle/ip"
	"tulle/subnet"
)

// ground is what a pass over everything leaves, and what a pass over a few leases goes on from. It is there only while all
// leases are plain: each a subnet of the network's length that overlaps no other, of a host of its own that lies outside of
// the network, and served by the backend. Then what one lease is worth depends on no other.
type ground struct {
	set      subnet.Set   // of the store
	view     view         // without what is kept here
	precious []netip.Addr // that no lease may capture
	paths    map[netip.Addr]ip.Path
	want     ip.State
	links    ip.Dual[[]string] // that routes lead over
	peers    []peerView
	taken    taken
}

// taken counts what leases have taken.
type taken struct {
	subnets map[netip.Prefix]int
	hosts   map[netip.Addr]int
}

func newTaken(leases []*subnet.Lease) taken {
	t := taken{make(map[netip.Prefix]int, len(leases)), make(map[netip.Addr]int, len(leases))}
	for _, l := range leases {
		t.count(l, 1)
	}
	return t
}

func (t taken) count(l *subnet.Lease, by int) {
	for _, f := range ip.Families() {
		if p := l.Subnets.Of(f); p.IsValid() {
			add(t.subnets, p, by)
		}
		if h := l.Attrs.Public.Of(f); h.IsValid() {
			add(t.hosts, h, by)
		}
	}
}

func add[K comparable](counts map[K]int, key K, by int) {
	if counts[key] += by; counts[key] == 0 {
		delete(counts, key)
	}
}

// plain reports whether a lease, which has been counted, has nothing to do with any other.
func (t taken) plain(n *subnet.Network, l *subnet.Lease) bool {
	if !n.Fits(l.Subnets) {
		return false
	}
	for _, f := range ip.Families() {
		p, h := l.Subnets.Of(f), l.Attrs.Public.Of(f)
		if p.IsValid() && t.subnets[p] != 1 || h.IsValid() && t.hosts[h] != 1 {
			return false
		}
		if network := n.Pools.Of(f).Network; network.IsValid() && network.Contains(h) {
			return false
		}
	}
	return true
}

// news is how the leases of one view differ from those of another.
type news struct{ gone, come []*subnet.Lease }

// mostNews bounds what a pass over a few leases takes on.
const mostNews = 512

// compare walks two views, which share what is the same in both. It gives up when they differ in too much.
func compareViews(old, now []*subnet.Lease) (n news, ok bool) {
	i, j := 0, 0
	for i < len(old) || j < len(now) {
		if len(n.gone)+len(n.come) > mostNews {
			return news{}, false
		}
		switch {
		case i < len(old) && j < len(now) && old[i] == now[j]:
			i++
			j++
		case j == len(now) || i < len(old) && subnet.CompareSubnets(old[i].Subnets, now[j].Subnets) < 0:
			n.gone = append(n.gone, old[i])
			i++
		case i == len(old) || subnet.CompareSubnets(old[i].Subnets, now[j].Subnets) > 0:
			n.come = append(n.come, now[j])
			j++
		default:
			n.gone, n.come = append(n.gone, old[i]), append(n.come, now[j])
			i++
			j++
		}
	}
	return n, true
}

// settle takes note of what a pass over everything has left, if a pass over a few leases may go on from there.
func (a *Agent) settle(v view, d decision, peers []peerView) {
	if v.notHeld != nil || v.unpublished != nil || v.outranked != nil || v.set.past || a.holdback.Doubt() != "" {
		return
	}
	if len(d.problems) > 0 || len(v.snap.Foreign) > 0 {
		return
	}
	g := &ground{set: v.set.Set, view: v, precious: a.precious(v), paths: v.snap.Paths, want: d.want, peers: peers}
	g.view.set, g.view.snap.Owned, g.view.snap.Paths, g.view.host.Paths = sight{}, ip.State{}, nil, nil
	for _, f := range ip.Families() {
		g.links.Set(f, fabricLinks(d.want, f))
	}
	if last := a.lastGround; last != nil && slices.Equal(last.set.Leases, g.set.Leases) {
		g.taken = last.taken // all of them were plain
		a.ground = g
		return
	}
	g.taken = newTaken(g.set.Leases)
	for _, l := range g.set.Leases {
		if !g.taken.plain(a.network, l) {
			return
		}
	}
	a.ground = g
}

// few makes the kernel right when only a few leases have changed. It returns false if that takes a pass over everything.
func (a *Agent) few(ctx context.Context) bool {
	g := a.ground
	a.ground = nil // until all has gone well
	set, ok := a.inbox.view()
	set = a.remember(a.compare(set))
	if g == nil || !ok || !a.inbox.onlyLeases() || set.Network != g.set.Network || !slices.Equal(set.Problems, g.set.Problems) {
		return false
	}
	n, ok := compareViews(g.set.Leases, set.Leases)
	if !ok || !a.plain(g, n) {
		return false
	}
	gone, come, ok := a.serve(ctx, g, n)
	if !ok {
		return false
	}
	plan := ip.Diff(gone, come)
	if len(invariant.Owned(plan, g.view.scope)) > 0 {
		return false // a pass over everything will tell
	}
	if len(plan) > 0 {
		if err := a.change(ctx, plan); err != nil {
			return false
		}
	}
	g.want.Exchange(gone, come)
	g.peers = exchange(g.peers, n.gone, peerViews(n.come, come.Routes, a.backend.Scope(nil).Links))
	g.set = set
	a.wanted.Amend(g.want)
	a.cache.Offer(set, a.network, &a.memory)
	st := a.status.get()
	a.work.Few++
	st.peers, st.PeerCount, st.Revision, st.Work = g.peers, len(g.peers), set.Revision, a.work
	a.publish(st)
	if g.deserted(gone) {
		return false
	}
	a.ground = g
	return true
}

// plain reports whether what is new concerns nobody else. It counts what is.
func (a *Agent) plain(g *ground, n news) bool {
	for _, l := range n.gone {
		g.taken.count(l, -1)
	}
	for _, l := range n.come {
		g.taken.count(l, 1)
	}
	mine := func(l *subnet.Lease) bool { return l.Attrs.Node == a.cfg.Node }
	odd := func(l *subnet.Lease) bool { return mine(l) || !g.taken.plain(a.network, l) }
	return !slices.ContainsFunc(n.gone, mine) && !slices.ContainsFunc(n.come, odd)
}

// serve plans for what was and for what is. All else that is in both plans is the same.
func (a *Agent) serve(ctx context.Context, g *ground, n news) (gone, come ip.State, ok bool) {
	self := a.judging(g.view.self.Subnets, g.precious)
	usable, refused := subnet.Judge(*a.network, n.come, self)
	if len(refused) > 0 || len(usable) != len(n.come) {
		return gone, come, false
	}
	// Where the routes of those that are gone led is in what was wanted of them.
	before, now := g.view.host, g.view.host
	before.Paths = g.paths
	if addrs := a.backend.Scope(n.come).Paths; len(addrs) > 0 {
		var err error
		if now.Paths, err = a.cfg.Kernel.Lookup(ctx, addrs); err != nil {
			return gone, come, false
		}
	}
	var was, is []subnet.Problem
	gone, was = a.backend.Plan(before, g.view.self, n.gone)
	come, is = a.backend.Plan(now, g.view.self, usable)
	defer func() {
		if ok {
			g.learn(n, now.Paths)
		}
	}()
	a.filter(&gone)
	a.filter(&come)
	gone.Sort()
	come.Sort()
	return gone, come, len(was)+len(is) == 0 && !g.want.Meets(gone, come) && g.linked(come) && a.sound(g, come, usable)
}

// sound reports whether what is wanted for the leases that have come holds what always should. If not, a pass over everything
// will tell.
func (a *Agent) sound(g *ground, come ip.State, usable []*subnet.Lease) bool {
	return len(invariant.Usable(*a.network, g.view.self.Subnets, usable))+
		len(invariant.Filtered(come, a.cfg.PeerFilter, usable))+len(invariant.Whole(come)) == 0
}

// learn keeps the paths to those that have come.
func (g *ground) learn(n news, paths map[netip.Addr]ip.Path) {
	for _, l := range n.gone {
		for _, f := range ip.Families() {
			delete(g.paths, l.Attrs.Public.Of(f))
		}
	}
	maps.Copy(g.paths, paths)
}

// linked reports whether the routes of a state lead over links that have routes already: other links need other openings.
func (g *ground) linked(come ip.State) bool {
	for _, r := range come.Routes {
		if !slices.Contains(g.links.Of(ip.FamilyOf(r.Dst.Addr())), r.Link) {
			return false
		}
	}
	return true
}

// deserted reports whether no route leads any longer over a link that those of a state led over: its openings may go.
func (g *ground) deserted(gone ip.State) bool {
	for _, r := range gone.Routes {
		f := ip.FamilyOf(r.Dst.Addr())
		over := func(o ip.Route) bool { return o.Link == r.Link && ip.FamilyOf(o.Dst.Addr()) == f }
		own := func(l ip.Link) bool { return l.Name == r.Link }
		if !slices.ContainsFunc(g.want.Links, own) && !slices.ContainsFunc(g.want.Routes, over) {
			return true
		}
	}
	return false
}
