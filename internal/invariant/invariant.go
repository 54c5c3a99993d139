// Package invariant holds what must be true of a network whatever happens to it, as functions from values to violations.
package invariant

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"tulle/ip"
	"tulle/subnet"
)

// Violation says which invariant does not hold, and by what.
type Violation struct {
	Invariant string `json:"invariant"`
	Detail    string `json:"detail"`
}

func (v Violation) String() string { return v.Invariant + ": " + v.Detail }

// The invariants, by the names under which they are reported.
const (
	OneOwner    = "one owner"
	KeptSubnet  = "kept subnet"
	SeenFirst   = "nothing deleted before a view"
	KeptPeers   = "peers that stay are kept"
	OwnedOnly   = "only what is owned"
	UsableOnly  = "only usable leases"
	WholePaths  = "whole paths"
	EqualAtRest = "equal at rest"
	Reachable   = "peers reach each other"
)

// Owner is a host that believes to have subnets.
type Owner struct {
	Host    string
	Subnets subnet.Subnets
}

// Apart holds if no two owners have subnets that overlap.
func Apart(owners []Owner) []Violation {
	var vs []Violation
	for i, a := range owners {
		for _, b := range owners[:i] {
			if len(subnet.Overlap(a.Subnets, b.Subnets)) > 0 {
				vs = append(vs, Violation{OneOwner, fmt.Sprintf("%s holds %s and %s holds %s",
					b.Host, subnet.KeyOf(b.Subnets), a.Host, subnet.KeyOf(a.Subnets))})
			}
		}
	}
	return vs
}

// Usable holds if the leases are such as a host may program beside its own subnets: proper parts of the network, apart
// from its own and from each other. The leases must be ordered by subnet.
func Usable(n subnet.Network, own subnet.Subnets, leases []*subnet.Lease) []Violation {
	var vs []Violation
	for _, f := range n.Families() {
		pool, mine := n.Pools.Of(f), own.Of(f)
		var last netip.Prefix
		for i := range leases {
			p := leases[i].Subnets.Of(f)
			switch {
			case !p.IsValid():
				continue
			case mine.IsValid() && mine.Overlaps(p):
				vs = append(vs, Violation{OneOwner, fmt.Sprintf("a usable lease %s overlaps this host's own subnet %s", p, mine)})
			case !ip.Contains(pool.Network, p) || p.Bits() < pool.SubnetLen:
				vs = append(vs, Violation{UsableOnly, fmt.Sprintf("%s is no part of %s in /%d", p, pool.Network, pool.SubnetLen)})
			case f == ip.IPv4 && last.IsValid() && last.Overlaps(p): // IPv6 is not in order
				vs = append(vs, Violation{UsableOnly, fmt.Sprintf("%s overlaps %s", p, last)})
			}
			last = p
		}
	}
	return vs
}

// Owned holds if the plan changes only what the scope says is Tulle's, what is marked as Tulle's, and what flanneld left behind.
func Owned(plan ip.Plan, scope ip.Scope) []Violation {
	var vs []Violation
	for _, op := range plan {
		if !owns(scope, op.Verb, op.Old) || !owns(scope, op.Verb, op.New) {
			vs = append(vs, Violation{OwnedOnly, op.String()})
		}
	}
	return vs
}

// routeProtocolBoot is what flanneld marks its routes with (rtnetlink(7)).
const routeProtocolBoot = 3

func owns(scope ip.Scope, verb ip.Verb, object ip.Object) bool {
	ours := func(link string) bool { return slices.Contains(scope.Links, link) }
	switch o := object.(type) {
	case ip.Link:
		return ours(o.Name)
	case ip.Addr:
		return ours(o.Link)
	case ip.FDB:
		return ours(o.Link)
	case ip.Neighbor:
		return ours(o.Link)
	case ip.Sysctl:
		return scope.Holds(o)
	case ip.Route:
		inside := slices.ContainsFunc(scope.Networks, func(n netip.Prefix) bool { return ip.Contains(n, o.Dst) })
		left := verb == ip.Delete && o.Protocol == routeProtocolBoot && o.Via.IsValid()
		return ours(o.Link) || inside && (o.Protocol == ip.Protocol || left)
	case ip.UnreachableRoute:
		return slices.ContainsFunc(scope.Networks, func(n netip.Prefix) bool { return ip.Contains(n, o.Dst) })
	case nil, ip.Guard, ip.Member, ip.Table, ip.Opening, ip.Leftover:
		return true // they are marked by their names
	}
	return false
}

// Seen holds if the plan deletes nothing that is of networks of which the host has had no complete view of the store since it started.
func Seen(plan ip.Plan, unseen []ip.Part) []Violation {
	for _, op := range plan {
		if op.Verb == ip.Delete && slices.ContainsFunc(unseen, func(p ip.Part) bool { return isOf(p, op.Old) }) {
			return []Violation{{SeenFirst, op.String()}}
		}
	}
	return nil
}

// isOf reports whether an object is, or may be, of a network.
func isOf(p ip.Part, object ip.Object) bool {
	on := func(link string) bool { return slices.Contains(p.Scope.Links, link) }
	inside := func(dst netip.Prefix) bool {
		return slices.ContainsFunc(p.Scope.Networks, func(n netip.Prefix) bool { return dst.IsValid() && ip.Contains(n, dst) })
	}
	switch o := object.(type) {
	case ip.Link:
		return on(o.Name)
	case ip.Addr:
		return on(o.Link)
	case ip.FDB:
		return on(o.Link)
	case ip.Neighbor:
		return on(o.Link)
	case ip.Route:
		return on(o.Link) || inside(o.Dst)
	case ip.UnreachableRoute:
		return inside(o.Dst)
	case ip.Opening:
		return inside(o.Src) || inside(o.Dst)
	case ip.Guard:
		return o.Net == p.Net
	case ip.Member:
		return o.Net == p.Net
	case ip.Table:
		return o.Net == p.Net
	case nil, ip.Sysctl:
		return false
	}
	return true // it may be, for all that is known
}

// Peer is a host as others reach it.
type Peer struct {
	Name    string
	Subnets subnet.Subnets
	Public  ip.Dual[netip.Addr]
	MAC     ip.Dual[ip.MAC]
}

// Kept holds if the plan takes away nothing that serves one of the peers, which have not changed.
func Kept(plan ip.Plan, peers []Peer) []Violation {
	var vs []Violation
	for _, op := range plan {
		if op.Verb != ip.Delete {
			continue
		}
		for _, p := range peers {
			if serves(op.Old, p) && !replaced(plan, op.Old) {
				vs = append(vs, Violation{KeptPeers, fmt.Sprintf("%s, which serves %s", op, p.Name)})
			}
		}
	}
	return vs
}

func serves(object ip.Object, p Peer) bool {
	switch o := object.(type) {
	case ip.Route:
		return o.Protocol == ip.Protocol && o.Dst == p.Subnets.Of(ip.FamilyOf(o.Dst.Addr()))
	case ip.Neighbor:
		f := ip.FamilyOf(o.IP)
		return p.Subnets.Of(f).IsValid() && o.IP == p.Subnets.Of(f).Addr() && o.MAC == p.MAC.Of(f)
	case ip.FDB:
		f := ip.FamilyOf(o.Dst)
		return o.MAC == p.MAC.Of(f) && o.Dst == p.Public.Of(f)
	}
	return false
}

// replaced reports whether the plan puts another route in the place of a route.
func replaced(plan ip.Plan, object ip.Object) bool {
	old, ok := object.(ip.Route)
	return ok && slices.ContainsFunc(plan, func(op ip.Op) bool {
		r, ok := op.New.(ip.Route)
		return ok && r.Dst == old.Dst
	})
}

// Whole holds if every route over one of the state's own links has what it needs there: where frames travel, a neighbour and a forwarding entry.
// The state must be sorted.
func Whole(s ip.State) []Violation {
	var vs []Violation
	for i := range s.Routes {
		if r := &s.Routes[i]; linkNamed(&s, r.Link) != nil {
			if _, err := next(&s, r, i); err != nil {
				vs = append(vs, Violation{WholePaths, err.Error()})
			}
		}
	}
	return vs
}

// linkNamed returns a link of the state, nil if there is none of that name.
func linkNamed(s *ip.State, name string) *ip.Link {
	for i := range s.Links {
		if s.Links[i].Name == name {
			return &s.Links[i]
		}
	}
	return nil
}

// framed reports whether frames travel over a link, and not packets whose gateway is the other host itself.
func framed(l *ip.Link) bool { return l.Kind == nil || l.Kind.Ethernet() }

// hop is where a link sends what takes a route.
type hop struct {
	host netip.Addr
	mac  ip.MAC // zero where no frames travel
}

// next returns where the route's link, which must be one of the state's, sends what takes the route. hint is where its neighbour may be.
func next(s *ip.State, r *ip.Route, hint int) (hop, error) {
	if !framed(linkNamed(s, r.Link)) {
		return hop{host: r.Via}, nil
	}
	i := hint // routes and neighbours are in one order
	if i >= len(s.Neighbors) || s.Neighbors[i].Link != r.Link || s.Neighbors[i].IP != r.Via {
		i = sort.Search(len(s.Neighbors), func(i int) bool {
			n := &s.Neighbors[i]
			return n.Link > r.Link || n.Link == r.Link && !n.IP.Less(r.Via)
		})
	}
	if i == len(s.Neighbors) || s.Neighbors[i].Link != r.Link || s.Neighbors[i].IP != r.Via {
		return hop{}, fmt.Errorf("the route to %s lacks the neighbour %s on %s", r.Dst, r.Via, r.Link)
	}
	mac := s.Neighbors[i].MAC
	i = sort.Search(len(s.FDB), func(i int) bool {
		f := &s.FDB[i]
		return f.Link > r.Link || f.Link == r.Link && bytes.Compare(f.MAC[:], mac[:]) >= 0
	})
	if i == len(s.FDB) || s.FDB[i].Link != r.Link || s.FDB[i].MAC != mac {
		return hop{}, fmt.Errorf("the route to %s lacks the forwarding entry for %s on %s", r.Dst, mac, r.Link)
	}
	return hop{s.FDB[i].Dst, mac}, nil
}

// AtRest holds if the kernel has what is wanted and nothing else. Both states must be sorted.
func AtRest(have, want ip.State) []Violation {
	if have.Equal(want) {
		return nil
	}
	plan := ip.Diff(have, want)
	if len(plan) == 0 { // settings that are there and not wanted
		return nil
	}
	return []Violation{{EqualAtRest, fmt.Sprintf("%d changes are due, the first: %s", len(plan), plan[0])}}
}

// Host is a host with what is in its kernel.
type Host struct {
	Name    string
	Subnets subnet.Subnets
	Uplink  ip.Uplink
	State   ip.State // sorted
}

// Reach holds if what a sends to the subnets of b arrives at b.
func Reach(a, b Host) []Violation {
	var vs []Violation
	for _, f := range ip.Families() {
		if b.Subnets.Of(f).IsValid() {
			if err := reach(a, b, f); err != nil {
				vs = append(vs, Violation{Reachable, fmt.Sprintf("from %s to %s: %v", a.Name, b.Name, err)})
			}
		}
	}
	return vs
}

func reach(a, b Host, f ip.Family) error {
	dst, addr := b.Subnets.Of(f), b.Uplink.Addr.Of(f)
	i := slices.IndexFunc(a.State.Routes, func(r ip.Route) bool { return r.Dst == dst })
	if i < 0 {
		return fmt.Errorf("no route to %s", dst)
	}
	r := a.State.Routes[i]
	link := linkNamed(&a.State, r.Link)
	if link == nil {
		if r.Via != addr {
			return fmt.Errorf("the route to %s leads to %s, not %s", dst, r.Via, addr)
		}
		return nil
	}
	to, err := next(&a.State, &r, 0)
	if err != nil {
		return err
	}
	if to.host != addr {
		return fmt.Errorf("packets for %s go to %s, not %s", dst, to.host, addr)
	}
	if link.Kind == nil {
		return fmt.Errorf("%s is no tunnel", link.Name)
	}
	if !admits(b.State, *link, a.Subnets.Of(f)) {
		return fmt.Errorf("there what comes from %s is dropped", link.Kind.Source())
	}
	receives := func(l ip.Link) bool {
		return l.Up && l.MAC == to.mac && l.Kind != nil && l.Kind.Source() == addr && l.Kind.Tunnel() == link.Kind.Tunnel()
	}
	if !slices.ContainsFunc(b.State.Links, receives) {
		return fmt.Errorf("no link there receives what %s sends to %s", link.Name, to.host)
	}
	return nil
}
