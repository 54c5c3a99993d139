package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"tulle/internal/invariant"
	"tulle/ip"
	"tulle/subnet"
)

// ground is what a pass over everything leaves, and what a pass over a few leases goes on from. It is there only while all
// leases are plain: each a subnet of the network's length that overlaps no other, of a host of its own that lies outside of
// the network, and served by the backend. Then what one lease is worth depends on no other.
type ground struct {
	set   subnet.Set // of the store
	view  view
	want  ip.State
	peers []peerView
	taken taken
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
	if v.notHeld != nil || v.unpublished != nil || v.set.past || time.Now().Before(a.compareUntil) {
		return
	}
	if len(d.problems) > 0 || len(v.snap.Foreign) > 0 {
		return
	}
	g := &ground{set: v.set.Set, view: v, want: d.want, peers: peers, taken: newTaken(v.set.Leases)}
	g.view.set, g.view.snap.Owned, g.view.snap.Paths = sight{}, ip.State{}, nil
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
	set, ok := a.inbox.view()
	if g == nil || !ok || !a.inbox.onlyLeases() || set.Network != g.set.Network || !slices.Equal(set.Problems, g.set.Problems) {
		return false
	}
	n, ok := compareViews(g.set.Leases, set.Leases)
	if !ok || !a.plain(g, n) {
		return false
	}
	gone, come, ok := a.serve(g, n)
	if !ok {
		return false
	}
	plan := ip.Diff(gone, come)
	if vs := invariant.Owned(plan, g.view.scope); len(vs) > 0 {
		return false // a pass over everything will tell
	}
	a.changes += uint64(len(plan))
	if err := a.cfg.Kernel.Apply(ctx, plan); err != nil {
		a.ground = nil
		return false
	}
	g.want.Exchange(gone, come)
	a.wanted.last, a.wanted.late = g.want, true
	g.peers = exchange(g.peers, n.gone, peerViews(n.come, come.Routes, a.backend.Scope(nil).Links))
	g.set = set
	a.views.offer(a.cfg, set, a.network)
	st := a.status.get()
	st.peers, st.PeerCount, st.Revision, st.Changes = g.peers, len(g.peers), set.Revision, a.changes
	a.publish(st)
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
	for _, l := range slices.Concat(n.gone, n.come) {
		if l.Attrs.Node == a.cfg.Node {
			a.ground = nil
			return false
		}
	}
	for _, l := range n.come {
		if !g.taken.plain(a.network, l) {
			a.ground = nil
			return false
		}
	}
	return true
}

// serve plans for what was and for what is. All else that is in both plans is the same.
func (a *Agent) serve(g *ground, n news) (gone, come ip.State, ok bool) {
	self := subnet.Self{Node: a.cfg.Node, Subnets: g.view.self.Subnets, Underlay: a.precious(g.view)}
	usable, refused := subnet.Judge(*a.network, n.come, self)
	if len(refused) > 0 || len(usable) != len(n.come) || len(a.backend.Scope(n.come).Paths) > 0 {
		a.ground = nil
		return gone, come, false
	}
	var was, is []subnet.Problem
	gone, was = a.backend.Plan(g.view.host, g.view.self, n.gone)
	come, is = a.backend.Plan(g.view.host, g.view.self, usable)
	if !a.cfg.PeerFilter {
		gone.Guards, come.Guards = nil, nil
	}
	gone.Sort()
	come.Sort()
	if len(was)+len(is) > 0 || g.want.Meets(gone, come) || !linked(g.want, come) {
		a.ground = nil
		return gone, come, false
	}
	return gone, come, true
}

// linked reports whether the routes of a state lead over links that have routes already: other links need other openings.
func linked(want, come ip.State) bool {
	for _, f := range ip.Families() {
		known := fabricLinks(want, f)
		for _, link := range fabricLinks(ip.State{Routes: come.Routes}, f) {
			if !slices.Contains(known, link) {
				return false
			}
		}
	}
	return true
}
