package subnet

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"tulle/ip"
)

func TestAllocateFromFormerOwners(t *testing.T) {
	n := networkOf("10.5.0.0/22 /24 from 10.5.0.0")
	p := netip.MustParsePrefix
	full := []FormerOwner{
		{Subnet: p("10.5.0.0/24"), Node: "w", Revision: 30},
		{Subnet: p("10.5.1.0/24"), Node: "x", Revision: 20},
		{Subnet: p("10.5.2.0/24"), Node: "y", Revision: 50, Released: true},
		{Subnet: p("10.5.3.0/24"), Node: "z", Revision: 40, Released: true},
	}
	leased := func(subnets ...string) (leases []*Lease) {
		for _, s := range subnets {
			leases = append(leases, &Lease{Subnets: subnetsOf(t, s, "")})
		}
		return leases
	}
	for name, tt := range map[string]struct {
		set      Set
		node     string
		previous string
		want     string
	}{
		"by record":                   {Set{FormerOwners: full}, "y", "10.5.1.0/24", "10.5.1.0/24"},
		"returning":                   {Set{FormerOwners: full}, "x", "", "10.5.1.0/24"},
		"returning, taken":            {Set{FormerOwners: full, Leases: leased("10.5.1.0/24")}, "x", "", "10.5.3.0/24"},
		"returning, had several":      {Set{FormerOwners: append(full[:3:3], FormerOwner{Subnet: p("10.5.3.0/24"), Node: "x", Revision: 60})}, "x", "", "10.5.3.0/24"},
		"never had first":             {Set{FormerOwners: full[1:]}, "new", "", "10.5.0.0/24"},
		"released, the oldest":        {Set{FormerOwners: full}, "new", "", "10.5.3.0/24"},
		"released, the next":          {Set{FormerOwners: full, Leases: leased("10.5.3.0/24")}, "new", "", "10.5.2.0/24"},
		"expired, the oldest":         {Set{FormerOwners: full, Leases: leased("10.5.3.0/24", "10.5.2.0/24")}, "new", "", "10.5.1.0/24"},
		"expired, the last":           {Set{FormerOwners: full, Leases: leased("10.5.3.0/24", "10.5.2.0/24", "10.5.1.0/24")}, "new", "", "10.5.0.0/24"},
		"of another length, in parts": {Set{FormerOwners: []FormerOwner{{Subnet: p("10.5.0.0/23"), Revision: 1}, {Subnet: p("10.5.2.0/25"), Revision: 1}, {Subnet: p("10.5.3.0/24"), Revision: 9}}}, "new", "", "10.5.3.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			claim := claimOf(tt.node)
			if tt.previous != "" {
				claim.Previous = subnetsOf(t, tt.previous, "")
			}
			got, err := Allocate(n, tt.set, claim)
			if err != nil || got.V4 != p(tt.want) {
				t.Errorf("allocate = %v, %v; want %s", got.V4, err, tt.want)
			}
		})
	}
}

// Whatever was leased before, only what is leased now exhausts a pool; and hosts that lose races for one subnet part ways.
func TestAllocateFromAnyFormerOwners(t *testing.T) {
	n := networkOf("10.5.0.0/20 /24 from 10.5.0.0")
	all := netip.MustParsePrefix("10.5.0.0/20")
	rapid.Check(t, func(t *rapid.T) {
		subnetAt := func(label string) netip.Prefix {
			bits := rapid.SampledFrom([]int{24, 24, 24, 23, 25, 20}).Draw(t, label+" bits")
			addr, _ := ip.AddrOf(ip.IPv4, ip.Number(netip.AddrFrom4([4]byte{10, 5, byte(rapid.IntRange(0, 15).Draw(t, label)), 0})))
			return netip.PrefixFrom(addr, bits).Masked()
		}
		var set Set
		for i := range rapid.IntRange(0, 30).Draw(t, "past") {
			set.FormerOwners = append(set.FormerOwners, FormerOwner{
				Subnet: subnetAt("past"), Node: fmt.Sprint(i % 5), Revision: Revision(i), Released: rapid.Bool().Draw(t, "released"),
			})
		}
		taken := map[netip.Prefix]bool{}
		for range rapid.IntRange(0, 16).Draw(t, "leases") {
			s := netip.PrefixFrom(subnetAt("lease").Addr(), 24)
			if !taken[s] {
				taken[s] = true
				set.Leases = append(set.Leases, &Lease{Subnets: Subnets{V4: s}})
			}
		}
		got, err := allocateAgain(n, set, claimOf("node"), rapid.IntRange(0, 5).Draw(t, "lost"))
		if full := len(taken) == 16; full != errors.Is(err, ErrExhausted) || !full && err != nil {
			t.Fatalf("%d of 16 taken: %v", len(taken), err)
		}
		if err == nil && (taken[got.V4] || !ip.Contains(all, got.V4)) {
			t.Fatalf("allocated %s, which is not free", got.V4)
		}
	})
}

func TestLosersPartWays(t *testing.T) {
	n := networkOf("10.5.0.0/16 /24 from 10.5.0.0")
	for name, formerOwners := range map[string]int{"never had": 0, "had": 256} {
		var set Set
		for i := range formerOwners {
			set.FormerOwners = append(set.FormerOwners, FormerOwner{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i), 0}), 24), Revision: Revision(i + 1)})
		}
		picked := map[netip.Prefix]int{}
		for i := range 64 {
			s, err := allocateAgain(n, set, claimOf(fmt.Sprint(i)), 3)
			if err != nil {
				t.Fatal(err)
			}
			picked[s.V4]++
		}
		if len(picked) < 48 {
			t.Errorf("%s: after three lost races 64 hosts go for %d subnets, want most of them apart", name, len(picked))
		}
	}
}
