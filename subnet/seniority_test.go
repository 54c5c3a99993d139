package subnet

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// announced makes a lease from its subnet, owner, instance, MAC and revision of creation; the public address is the owner's.
func announced(subnet, node, instance, mac string, created Revision) *Lease {
	l := &Lease{Created: created, Revision: created}
	l.Subnets.V4 = netip.MustParsePrefix(subnet)
	l.Attrs.Node, l.Attrs.Instance, l.Attrs.BackendType = node, instance, "vxlan"
	l.Attrs.Public.V4 = netip.AddrFrom4([4]byte{192, 0, 2, node[0]})
	l.Attrs.BackendData.V4 = json.RawMessage(`"` + mac + `"`)
	return l
}

// rankedBy returns the nodes of leases, those whose claims count first first.
func rankedBy(leases []*Lease, compare func(a, b *Lease) int) (nodes string) {
	leases = slices.Clone(leases)
	slices.SortFunc(leases, compare)
	for _, l := range leases {
		nodes += l.Attrs.Node
	}
	return nodes
}

func TestMemory(t *testing.T) {
	a, b := announced("10.5.1.0/24", "a", "run", "m1", 10), announced("10.5.2.0/24", "b", "run", "m2", 20)
	forged := announced("10.5.9.0/24", "z", "", "m1", 30)
	anew := func(l *Lease, created Revision) *Lease { o := *l; o.Created, o.Revision = created, created; return &o }
	saying := func(l *Lease, mac string, revision Revision) *Lease {
		o := *l
		o.Attrs.BackendData.V4, o.Revision = json.RawMessage(`"`+mac+`"`), revision
		return &o
	}
	for name, tt := range map[string]struct {
		views          [][]*Lease
		subnets, attrs string // nodes, by whose claim counts first
	}{
		"by age":                          {[][]*Lease{{a, b, forged}}, "abz", "abz"},
		"made anew between two views":     {[][]*Lease{{a, b, forged}, {anew(a, 40), b, forged}}, "abz", "abz"},
		"gone and made anew":              {[][]*Lease{{a, b, forged}, {b, forged}, {forged}, {anew(a, 40), b, forged}}, "abz", "abz"},
		"a flanneld's":                    {[][]*Lease{{announced("10.5.1.0/24", "a", "", "m1", 10), b}, {b}, {announced("10.5.1.0/24", "a", "", "m1", 40), b}}, "ab", "ab"},
		"another instance is another":     {[][]*Lease{{a, b}, {b}, {announced("10.5.1.0/24", "a", "other", "m1", 40), b}}, "ba", "ba"},
		"elsewhere, with what it said":    {[][]*Lease{{a, b}, {b}, {b, announced("10.5.3.0/24", "a", "run", "m1", 40)}}, "ba", "ab"},
		"there, with another MAC":         {[][]*Lease{{a, b}, {b}, {announced("10.5.1.0/24", "a", "run", "m7", 40), b}}, "ab", "ba"},
		"an old lease says something new": {[][]*Lease{{a, b}, {saying(a, "m2", 40), b}}, "ab", "ba"},
		"a wipe, and junk was faster":     {[][]*Lease{{a, b}, {anew(forged, 2)}, {anew(a, 7), b, anew(forged, 2)}}, "abz", "abz"},
		"a wipe, and all is new":          {[][]*Lease{{a, b}, {announced("10.5.3.0/24", "c", "run", "m3", 3), announced("10.5.4.0/24", "d", "run", "m4", 2)}}, "dc", "dc"},
		"a copy of one that is there":     {[][]*Lease{{a, b}, {a, b, announced("10.5.3.0/24", "a", "run", "m1", 1)}}, "aba", "aba"},
	} {
		var m Memory
		var got []*Lease
		for i, leases := range tt.views {
			revision := Revision(0)
			for _, l := range leases {
				revision = max(revision, l.Revision)
			}
			if i == len(tt.views)-1 { // a restart of the observer forgets nothing
				var again Memory
				again.Restore(Set{Leases: m.ranked, Revision: m.last}, m.Former())
				if i > 0 {
					m = again
				}
			}
			got = m.Rank(Set{Leases: leases, Revision: revision})
		}
		if s, at := rankedBy(got, CompareSubnetClaims), rankedBy(got, CompareAttrsClaims); s != tt.subnets || at != tt.attrs {
			t.Errorf("%s: subnets by %s, attributes by %s; want %s and %s", name, s, at, tt.subnets, tt.attrs)
		}
	}
}

// Whoever floods the store does not make a host forget those who were there before.
func TestMemoryIsBounded(t *testing.T) {
	victim := announced("10.0.0.0/30", "v", "run", "m", 1)
	flood := []*Lease{victim}
	for i := range 2 * mostFormer {
		l := announced(fmt.Sprintf("10.%d.%d.0/30", 1+i/256, i%256), "f", fmt.Sprint(i), "m", Revision(2+i))
		flood = append(flood, l)
	}
	var m Memory
	m.Rank(Set{Leases: flood})
	m.Rank(Set{Leases: []*Lease{}})
	if n := len(m.former); n != mostFormer {
		t.Errorf("%d leases are remembered, want %d", n, mostFormer)
	}
	back := announced("10.0.0.0/30", "v", "run", "m", 100_000)
	if got := m.Rank(Set{Leases: []*Lease{back}}); got[0].subnetsSince() != 1 {
		t.Errorf("the lease stands since %d, want 1", got[0].subnetsSince())
	}
}

// Hosts that will never come back, as of a group that grows and shrinks, make room for one that has just gone.
func TestMemoryForgetsTheLongGone(t *testing.T) {
	var m Memory
	revision := Revision(1)
	for batch := range 20 {
		var hosts []*Lease
		for i := range 1000 {
			revision++
			hosts = append(hosts, announced(fmt.Sprintf("10.%d.%d.0/30", 1+i/256, i%256), fmt.Sprintf("n%d-%d", batch, i), "run", "m", revision))
		}
		m.Rank(Set{Revision: revision, Leases: hosts})
	}
	mine := announced("10.0.0.0/30", "v", "run", "m", revision+1)
	m.Rank(Set{Revision: revision + 1, Leases: []*Lease{mine}})
	m.Rank(Set{Revision: revision + 500, Leases: []*Lease{}})
	back := announced("10.0.0.0/30", "v", "run", "m", revision+501)
	if got := m.Rank(Set{Revision: revision + 501, Leases: []*Lease{back}}); got[0].subnetsSince() != revision+1 {
		t.Errorf("the lease stands since %d, want %d", got[0].subnetsSince(), revision+1)
	}
}

// Whatever comes and goes: what is in two views in a row keeps its order, nothing new comes before it, and the leases are
// otherwise those of the store.
func TestMemoryLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m Memory
		held := map[int]*Lease{}
		var before []*Lease
		known := map[string]bool{}
		revision := Revision(1)
		for view := range Revision(20) {
			if rapid.IntRange(0, 9).Draw(t, "wipe") == 0 {
				revision, held = 1+view, map[int]*Lease{} // no revision comes twice: the same one at the same key is the same lease
			}
			for range rapid.IntRange(0, 4).Draw(t, "changes") {
				n := rapid.IntRange(1, 6).Draw(t, "subnet")
				revision += 32
				if held[n] != nil && rapid.Bool().Draw(t, "delete") {
					delete(held, n)
					continue
				}
				node := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "node")
				held[n] = announced(fmt.Sprintf("10.5.%d.0/24", n), node, "run", rapid.SampledFrom([]string{"m1", "m2"}).Draw(t, "mac"), revision)
			}
			var leases []*Lease
			for n := range 7 {
				if held[n] != nil {
					leases = append(leases, held[n])
				}
			}
			got := m.Rank(Set{Leases: leases, Revision: revision})
			if len(got) != len(leases) {
				t.Fatalf("%d leases of %d", len(got), len(leases))
			}
			old := map[Subnets]*Lease{}
			for _, l := range before {
				old[l.Subnets] = l
			}
			for i, l := range got {
				if l.Subnets != leases[i].Subnets || l.Created != leases[i].Created {
					t.Fatalf("%v instead of %v", l, leases[i])
				}
				for _, o := range got {
					x, y := old[l.Subnets], old[o.Subnets]
					stays := x != nil && x.Created == l.Created
					if stays && y != nil && y.Created == o.Created && CompareSubnetClaims(x, y)*CompareSubnetClaims(l, o) < 0 {
						t.Fatalf("%v and %v have changed places", l, o)
					}
					if newcomer := !known[o.Attrs.Node+KeyOf(o.Subnets)]; stays && newcomer && CompareSubnetClaims(l, o) > 0 {
						t.Fatalf("%v has come before %v", o, l)
					}
				}
			}
			for _, l := range got {
				known[l.Attrs.Node+KeyOf(l.Subnets)] = true
			}
			before = got
		}
	})
}

func TestJudgeByStanding(t *testing.T) {
	n := networkOf("10.5.0.0/16")
	lease := func(subnet, public string, created Revision, s Standing) *Lease {
		return &Lease{Subnets: subnetsOf(t, subnet, ""), Attrs: Attrs{Public: dualAddr(t, public, "")}, Created: created, Standing: s}
	}
	gone := func(l *Lease) *Lease { l.HeldBack = true; return l }
	for name, tt := range map[string]struct {
		leases []*Lease
		usable []string
	}{
		"the standing counts, not the age":       {[]*Lease{lease("10.5.1.0/24", "", 9, Standing{Subnets: 1, Attrs: 1}), lease("10.5.1.128/25", "", 2, Standing{})}, []string{"10.5.1.0-24"}},
		"an old lease with a new address":        {[]*Lease{lease("10.5.1.0/24", "", 5, Standing{}), lease("10.5.9.0/24", "10.5.1.7", 2, Standing{Subnets: 2, Attrs: 9})}, []string{"10.5.1.0-24"}},
		"a new lease with an old address":        {[]*Lease{lease("10.5.1.0/24", "", 5, Standing{}), lease("10.5.9.0/24", "10.5.1.7", 9, Standing{Subnets: 9, Attrs: 2})}, []string{"10.5.9.0-24"}},
		"its own new address":                    {[]*Lease{lease("10.5.1.0/24", "10.5.1.7", 2, Standing{Subnets: 2, Attrs: 9})}, nil},
		"one that is held back gives way":        {[]*Lease{gone(lease("10.5.1.0/24", "", 1, Standing{})), lease("10.5.9.0/24", "10.5.1.7", 9, Standing{})}, []string{"10.5.9.0-24"}},
		"so does its address":                    {[]*Lease{gone(lease("10.5.1.0/24", "10.5.9.7", 1, Standing{})), lease("10.5.9.0/24", "", 9, Standing{})}, []string{"10.5.9.0-24"}},
		"among those held back the older counts": {[]*Lease{gone(lease("10.5.1.0/24", "", 1, Standing{})), gone(lease("10.5.1.0/25", "", 9, Standing{}))}, []string{"10.5.1.0-24"}},
	} {
		if usable, _ := Judge(n, tt.leases, Self{}); !slices.Equal(keysOf(usable), tt.usable) {
			t.Errorf("%s: usable %q, want %q", name, keysOf(usable), tt.usable)
		}
	}
}

func TestOutranked(t *testing.T) {
	n := networkOf("10.5.0.0/16")
	lease := func(subnet, public string, created Revision) *Lease {
		return &Lease{Subnets: subnetsOf(t, subnet, ""), Attrs: Attrs{Public: dualAddr(t, public, "")}, Created: created}
	}
	mine := lease("10.5.1.0/24", "192.0.2.1", 10)
	remembered := lease("10.5.1.0/24", "192.0.2.1", 10)
	remembered.Standing = Standing{Subnets: 1, Attrs: 1}
	gone := lease("10.5.1.128/25", "", 2)
	gone.HeldBack = true
	for name, tt := range map[string]struct {
		leases []*Lease
		want   []string
	}{
		"alone":                          {[]*Lease{mine}, nil},
		"not there":                      {nil, nil},
		"beside an older":                {[]*Lease{mine, lease("10.5.2.0/24", "192.0.2.2", 2)}, nil},
		"an older inside":                {[]*Lease{mine, lease("10.5.1.128/25", "", 2)}, []string{"10.5.1.128-25"}},
		"a younger inside":               {[]*Lease{mine, lease("10.5.1.128/25", "", 12)}, nil},
		"remembered as older":            {[]*Lease{remembered, lease("10.5.1.128/25", "", 2)}, []string{"10.5.1.128-25"}},
		"held back":                      {[]*Lease{mine, gone}, nil},
		"an older with an address here":  {[]*Lease{mine, lease("10.5.9.0/24", "10.5.1.7", 2)}, []string{"10.5.9.0-24"}},
		"an older that nobody uses":      {[]*Lease{lease("10.5.0.0/20", "", 1), mine}, nil},
		"an older that is refused":       {[]*Lease{mine, lease("10.5.1.64/26", "10.5.2.7", 2), lease("10.5.2.0/24", "", 1)}, nil},
		"that, beside one that is not":   {[]*Lease{lease("10.5.0.0/20", "", 1), mine, lease("10.5.1.128/25", "", 2)}, []string{"10.5.1.128-25"}},
		"its own address in an older":    {[]*Lease{lease("10.5.2.0/24", "", 2), lease("10.5.3.0/24", "10.5.2.7", 9)}, nil},
		"a younger with an address here": {[]*Lease{mine, lease("10.5.9.0/24", "10.5.1.7", 12)}, nil},
	} {
		var got []string
		slices.SortFunc(tt.leases, func(a, b *Lease) int { return CompareSubnets(a.Subnets, b.Subnets) })
		for _, p := range Outranked(n, tt.leases, mine.Subnets) {
			got = append(got, p.Key)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	captive := []*Lease{lease("10.5.2.0/24", "", 2), lease("10.5.3.0/24", "10.5.2.7", 9)}
	if got := Outranked(n, captive, captive[1].Subnets); len(got) != 1 || got[0].Key != "10.5.2.0-24" {
		t.Errorf("the public address lies in an older lease: %v", got)
	}
}
