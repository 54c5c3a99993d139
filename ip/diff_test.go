package ip_test

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tulle/ip"
	"tulle/ip/iptest"
)

const uplink = "up0"

// family is what a host uses in one family.
type family struct {
	link    string
	local   netip.Addr // underlay
	vtep    string     // of the peer i, underlay
	network netip.Prefix
	pods    string // of the peer i
}

func families() []family {
	return []family{
		{"flannel.1", netip.MustParseAddr("192.0.2.1"), "192.0.2.%d", netip.MustParsePrefix("10.50.0.0/16"), "10.50.%d.0/24"},
		{"flannel-v6.1", netip.MustParseAddr("2001:db8::1"), "2001:db8::%d", netip.MustParsePrefix("fd50::/48"), "fd50:0:0:%d::/64"},
	}
}

func scope() ip.Scope {
	s := ip.Scope{Sysctls: []ip.Sysctl{{Key: "net/ipv4/ip_forward"}}}
	for _, f := range families() {
		s.Links = append(s.Links, f.link)
		s.Networks = append(s.Networks, f.network)
		s.Sysctls = append(s.Sysctls, ip.Sysctl{Key: "net/ipv6/conf/" + f.link + "/accept_ra", Link: f.link})
	}
	return s
}

// drawState draws a state as a host may have it: over VXLAN, over routes, or some of both.
func drawState(t *rapid.T, label string) ip.State {
	var s ip.State
	if rapid.Bool().Draw(t, label+" forwards") {
		s.Sysctls = append(s.Sysctls, ip.Sysctl{Key: "net/ipv4/ip_forward", Value: "1"})
	}
	for _, f := range families() {
		s.Add(drawFamily(t, f, label+" "+f.link))
	}
	s.Sort()
	return s
}

func drawFamily(t *rapid.T, f family, label string) ip.State {
	var s ip.State
	overlay := rapid.Bool().Draw(t, label)
	if overlay {
		s.Links = append(s.Links, ip.Link{
			Name: f.link,
			MAC:  drawMAC(t, label+" MAC", 0),
			MTU:  rapid.SampledFrom([]int{1380, 1430}).Draw(t, label+" MTU"),
			Up:   true,
			Kind: ip.VXLAN{
				VNI: 1, Local: f.local, Port: rapid.SampledFrom([]uint16{8472, 8472, 8472, 4789}).Draw(t, label+" port"),
			},
		})
		s.Sysctls = append(s.Sysctls, ip.Sysctl{Key: "net/ipv6/conf/" + f.link + "/accept_ra", Value: "0", Link: f.link})
		own := netip.MustParsePrefix(fmt.Sprintf(f.pods, rapid.IntRange(1, 2).Draw(t, label+" subnet")))
		s.Addrs = append(s.Addrs, ip.Addr{Link: f.link, Prefix: ip.Host(own.Addr())})
	}
	for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(3, 8), 0, 6, rapid.ID).Draw(t, label+" peers") {
		s.Add(drawPeer(t, f, overlay, i, fmt.Sprintf("%s peer %d", label, i)))
	}
	if rapid.Bool().Draw(t, label+" guard") {
		s.Guards = append(s.Guards, drawGuard(t, f, label+" guard"))
	}
	if rapid.Bool().Draw(t, label+" filters") {
		network := ip.Match{Prefix: f.network}
		s.Tables = append(s.Tables, ip.Table{Family: ip.FamilyOf(f.local), Rules: rapid.Permutation([]ip.Rule{
			{Chain: ip.Forward, Src: network, Verdict: ip.Accept},
			{Chain: ip.Forward, Dst: network, Verdict: ip.Accept},
			{Chain: ip.Postrouting, Src: network, Verdict: ip.Masquerade},
		}).Draw(t, label+" rules")})
		for _, engine := range rapid.SliceOfDistinct(rapid.SampledFrom([]ip.Engine{ip.NFTables, ip.IPTables}), rapid.ID).Draw(t, label+" engines") {
			s.Openings = append(s.Openings, ip.Opening{
				Place: ip.Place{Engine: engine, Family: ip.FamilyOf(f.local), Table: "filter", Chain: "FORWARD"},
				Src:   f.network, Dst: f.network, In: rapid.SampledFrom([]string{f.link, uplink}).Draw(t, label+" in"),
			})
		}
	}
	return s
}

func drawPeer(t *rapid.T, f family, overlay bool, i int, label string) ip.State {
	pods := netip.MustParsePrefix(fmt.Sprintf(f.pods, i))
	vtep := netip.MustParseAddr(fmt.Sprintf(f.vtep, i+rapid.SampledFrom([]int{0, 0, 20}).Draw(t, label+" moved")))
	metric := uint32(100*i + rapid.IntRange(0, 1).Draw(t, label+" metric"))
	route := ip.Route{Dst: pods, Metric: metric, Protocol: ip.Protocol, MTU: rapid.SampledFrom([]int{0, 0, 1300, 1400}).Draw(t, label+" MTU of the route")}
	if !overlay || rapid.Bool().Draw(t, label+" direct") {
		route.Via, route.Link = vtep, uplink
		return ip.State{Routes: []ip.Route{route}}
	}
	route.Via, route.Link, route.OnLink = pods.Addr(), f.link, true
	mac := drawMAC(t, label+" MAC", i)
	return ip.State{
		FDB:       []ip.FDB{{Link: f.link, MAC: mac, Dst: vtep}},
		Neighbors: []ip.Neighbor{{Link: f.link, IP: pods.Addr(), MAC: mac}},
		Routes:    []ip.Route{route},
	}
}

func drawMAC(t *rapid.T, label string, i int) ip.MAC {
	return ip.MAC{2, 0, 0, 0, rapid.SampledFrom([]byte{1, 1, 2}).Draw(t, label), byte(i)}
}

// newHost returns a host in the given state.
func newHost(t *rapid.T, s ip.State) *iptest.Kernel {
	k := iptest.New()
	up := ip.Interface{Name: uplink, MTU: 1500, Up: true}
	for _, f := range families() {
		up.Addrs = append(up.Addrs, ip.InterfaceAddr{Prefix: netip.PrefixFrom(f.local, f.local.BitLen()*3/4)})
	}
	k.AddInterface(up)
	for _, engine := range []ip.Engine{ip.NFTables, ip.IPTables} {
		for _, f := range ip.Families() {
			k.Restore(engine, f, "*filter\n:FORWARD DROP\nCOMMIT\n")
		}
	}
	apply(t, k, ip.Diff(ip.State{}, s))
	return k
}

func apply(t *rapid.T, k *iptest.Kernel, plan ip.Plan) {
	if err := k.Apply(context.Background(), plan); err != nil {
		t.Fatalf("%v\nplan:\n%s", err, plan)
	}
}

func owned(t *rapid.T, k *iptest.Kernel) ip.State {
	s, err := k.Snapshot(context.Background(), scope())
	if err != nil {
		t.Fatal(err)
	}
	return s.Owned
}

func TestDiffOfEqualStatesIsEmpty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t, "state")
		shuffled := s
		shuffled.Routes = rapid.Permutation(s.Routes).Draw(t, "routes")
		shuffled.FDB = rapid.Permutation(s.FDB).Draw(t, "FDB")
		shuffled.Neighbors = rapid.Permutation(s.Neighbors).Draw(t, "neighbours")
		shuffled.Links = rapid.Permutation(s.Links).Draw(t, "links")
		shuffled.Guards = nil
		for _, g := range rapid.Permutation(s.Guards).Draw(t, "guards") {
			g.Peers = rapid.Permutation(g.Peers).Draw(t, "peers")
			shuffled.Guards = append(shuffled.Guards, g)
		}
		for _, plan := range []ip.Plan{ip.Diff(s, s), ip.Diff(s, shuffled), ip.Diff(shuffled, s)} {
			if len(plan) != 0 {
				t.Fatalf("plan:\n%s", plan)
			}
		}
	})
}

func TestAppliedDiffGivesWant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawState(t, "have"), drawState(t, "want")
		k := newHost(t, have)
		apply(t, k, ip.Diff(owned(t, k), want))
		got := owned(t, k)
		if plan := ip.Diff(got, want); len(plan) != 0 {
			t.Fatalf("left to do:\n%s", plan)
		}
		got.Sysctls, want.Sysctls = nil, nil // settings are left as they are when they are wanted no more
		if !got.Equal(want) {
			t.Fatalf("got:\n%swant:\n%s", got, want)
		}
	})
}

// TestEveryPrefixOfAPlanForwards stops after each op and looks at the host. A link that is made anew takes all with it,
// and a MAC change the neighbours: there is no way around either.
func TestEveryPrefixOfAPlanForwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawState(t, "have"), drawState(t, "want")
		k := newHost(t, have)
		plan := ip.Diff(owned(t, k), want)
		for i, op := range plan {
			apply(t, k, ip.Plan{op})
			now := owned(t, k)
			for _, r := range now.Routes {
				neighbor := func(n ip.Neighbor) bool { return n.Link == r.Link && n.IP == r.Via }
				if r.OnLink && !macChanged(have, want, r.Link) && !slices.ContainsFunc(now.Neighbors, neighbor) {
					t.Fatalf("after op %d, route %v lacks its neighbour; plan:\n%s", i, r, plan)
				}
			}
			for _, r := range have.Routes {
				same := func(other ip.Route) bool { return other.Dst == r.Dst }
				if slices.ContainsFunc(want.Routes, same) && kept(have, want, r.Link) && !slices.ContainsFunc(now.Routes, same) {
					t.Fatalf("after op %d, there is no route to %s; plan:\n%s", i, r.Dst, plan)
				}
			}
		}
	})
}

func TestUnchangedIsNotTouched(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawState(t, "have"), drawState(t, "want")
		unchanged := map[ip.Object]bool{}
		for _, o := range objects(want) {
			unchanged[o] = slices.Contains(objects(have), o)
		}
		for _, op := range ip.Diff(have, want) {
			for _, o := range []ip.Object{op.New, op.Old} {
				if o != nil && reflect.TypeOf(o).Comparable() && unchanged[o] && kept(have, want, linkOf(o)) && !macChanged(have, want, linkOf(o)) {
					t.Fatalf("touched by %s", op)
				}
			}
		}
	})
}

func TestPutsInPlaceBeforeTakingAway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := drawState(t, "have"), drawState(t, "want")
		deleting := false
		for _, op := range ip.Diff(have, want) {
			if op.Verb != ip.Delete {
				if deleting {
					t.Fatalf("%s comes after a deletion", op)
				}
				continue
			}
			route, ok := op.Old.(ip.Route)
			passing := ok && !route.Via.IsValid() // to the gateway of a route that moves to another link
			link, ok := op.Old.(ip.Link)
			_, wanted := linkNamed(want, link.Name)
			deleting = deleting || !passing && !(ok && wanted)
		}
	})
}

// objects are those of s that can be compared.
func objects(s ip.State) []ip.Object {
	var all []ip.Object
	for _, o := range s.Links {
		all = append(all, o)
	}
	for _, o := range s.Sysctls {
		all = append(all, o)
	}
	for _, o := range s.Addrs {
		all = append(all, o)
	}
	for _, o := range s.FDB {
		all = append(all, o)
	}
	for _, o := range s.Neighbors {
		all = append(all, o)
	}
	for _, o := range s.Routes {
		all = append(all, o)
	}
	return all
}

func linkOf(o ip.Object) string {
	switch o := o.(type) {
	case ip.Addr:
		return o.Link
	case ip.FDB:
		return o.Link
	case ip.Neighbor:
		return o.Link
	case ip.Route:
		return o.Link
	case ip.Sysctl:
		return o.Link
	case ip.Link:
		return o.Name
	}
	return ""
}

func linkNamed(s ip.State, name string) (ip.Link, bool) {
	for _, l := range s.Links {
		if l.Name == name {
			return l, true
		}
	}
	return ip.Link{}, false
}

// kept reports whether a link is not made anew between have and want; what is on no link of ours always is.
func kept(have, want ip.State, link string) bool {
	h, had := linkNamed(have, link)
	w, wanted := linkNamed(want, link)
	return !had && !wanted || had && wanted && h.Kind == w.Kind
}

func macChanged(have, want ip.State, link string) bool {
	h, _ := linkNamed(have, link)
	w, _ := linkNamed(want, link)
	return h.MAC != w.MAC
}
