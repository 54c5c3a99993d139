package subnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tulle/ip"
)

func claimOf(node string) Claim { return Claim{Attrs: Attrs{Node: node}} }

func TestAllocatePrevious(t *testing.T) {
	n := networkOf("10.5.0.0/16, fc00::/48")
	fresh, err := Allocate(n, Set{}, claimOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		previous   Subnets
		lease      Lease
		keep4      bool
		keep6      bool
		publicAddr string
	}{
		"both free":            {previous: subnetsOf(t, "10.5.7.0/24", "fc00:0:0:7::/64"), keep4: true, keep6: true},
		"one family only":      {previous: subnetsOf(t, "10.5.7.0/24", ""), keep4: true},
		"IPv4 leased":          {previous: subnetsOf(t, "10.5.7.0/24", "fc00:0:0:7::/64"), lease: Lease{Subnets: subnetsOf(t, "10.5.7.0/24", "")}, keep6: true},
		"IPv6 overlaps":        {previous: subnetsOf(t, "10.5.7.0/24", "fc00:0:0:7::/64"), lease: Lease{Subnets: subnetsOf(t, "", "fc00:0:0:7:8::/80")}, keep4: true},
		"IPv4 inside a lease":  {previous: subnetsOf(t, "10.5.7.0/24", ""), lease: Lease{Subnets: subnetsOf(t, "10.5.0.0/20", "")}},
		"other lengths":        {previous: subnetsOf(t, "10.5.7.0/25", "fc00:0:0:7::/63")},
		"unaligned":            {previous: subnetsOf(t, "10.5.7.1/24", "fc00:0:0:7::1/64")},
		"below the minimum":    {previous: subnetsOf(t, "10.5.0.0/24", "fc00::/64")},
		"another network":      {previous: subnetsOf(t, "10.6.7.0/24", "fd00:0:0:7::/64")},
		"holds my address":     {previous: subnetsOf(t, "10.5.7.0/24", ""), publicAddr: "10.5.7.9"},
		"holds a host address": {previous: subnetsOf(t, "10.5.7.0/24", ""), lease: Lease{Subnets: subnetsOf(t, "10.5.8.0/24", ""), Attrs: Attrs{Public: dualAddr(t, "10.5.7.9", "")}}},
	} {
		claim := claimOf("a")
		claim.Previous = tt.previous
		claim.Attrs.Public = dualAddr(t, tt.publicAddr, "")
		want := fresh
		if tt.keep4 {
			want.V4 = tt.previous.V4
		}
		if tt.keep6 {
			want.V6 = tt.previous.V6
		}
		got, err := Allocate(n, Set{Leases: []*Lease{&tt.lease}}, claim)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", name, got, err, want)
		}
	}
}

func TestAllocateWithoutFamily(t *testing.T) {
	if _, err := Allocate(Network{}, Set{}, claimOf("a")); !errors.Is(err, ErrNoNetwork) {
		t.Errorf("error %v, want ErrNoNetwork", err)
	}
}

// The search must pass what is not to be leased, however much of it there is.
func TestAllocateAround(t *testing.T) {
	for name, tt := range map[string]struct {
		config string
		leases []Subnets
		hosts  []string
		want   string // "": exhausted
	}{
		"one left":                   {"10.5.0.0/22", []Subnets{subnetsOf(t, "10.5.1.0/24", ""), subnetsOf(t, "10.5.3.0/24", "")}, nil, "10.5.2.0/24"},
		"longer leases":              {"10.5.0.0/22", []Subnets{subnetsOf(t, "10.5.1.128/30", ""), subnetsOf(t, "10.5.2.255/32", "")}, nil, "10.5.3.0/24"},
		"a wider lease":              {"10.5.0.0/22", []Subnets{subnetsOf(t, "10.5.2.0/23", "")}, nil, "10.5.1.0/24"},
		"full":                       {"10.5.0.0/22", []Subnets{subnetsOf(t, "10.5.1.0/24", ""), subnetsOf(t, "10.5.2.0/23", "")}, nil, ""},
		"first subnet on request":    {"10.5.0.0/22 from 10.5.0.0 to 10.5.0.0", nil, nil, "10.5.0.0/24"},
		"covering leases do nothing": {"10.5.0.0/22 to 10.5.1.0", []Subnets{subnetsOf(t, "0.0.0.0/0", ""), subnetsOf(t, "10.5.0.0/22", "")}, nil, "10.5.1.0/24"},
		"a host's address":           {"10.5.0.0/22 to 10.5.2.0", nil, []string{"10.5.1.77"}, "10.5.2.0/24"},
		"end of the address space":   {"255.255.252.0/22 from 255.255.255.0", []Subnets{subnetsOf(t, "255.255.255.0/24", "")}, nil, ""},
		"reserved ranges":            {"169.252.0.0/14 /16 from 169.254.0.0", nil, nil, "169.255.0.0/16"},
		"end of IPv6":                {"fc00::/7 /9 from fd80::", []Subnets{subnetsOf(t, "", "fd80::/10"), subnetsOf(t, "", "fdff::/126")}, nil, ""},
	} {
		var set Set
		for _, s := range tt.leases {
			set.Leases = append(set.Leases, &Lease{Subnets: s})
		}
		for _, host := range tt.hosts {
			set.Leases = append(set.Leases, &Lease{Attrs: Attrs{Public: dualAddr(t, host, "")}})
		}
		for i := range 10 {
			s, err := Allocate(networkOf(tt.config), set, claimOf(fmt.Sprint("node", i)))
			got := ""
			if err == nil {
				got = s.V4.String()
			}
			if got != tt.want || (err != nil) != errors.Is(err, ErrExhausted) {
				t.Errorf("%s: %q, %v; want %q", name, got, err, tt.want)
			}
		}
	}
}

func TestAllocateFillsThePool(t *testing.T) {
	n := networkOf("10.0.0.0/14 /24, fc00::/54")
	const count = 1<<10 - 1
	var set Set
	for i := range count {
		s, err := Allocate(n, set, claimOf(fmt.Sprint("node", i)))
		if err != nil {
			t.Fatalf("lease %d: %v", i, err)
		}
		if !n.Fits(s) {
			t.Fatalf("lease %d: %v does not fit the network", i, s)
		}
		set.Leases = append(set.Leases, &Lease{Subnets: s, Attrs: Attrs{Node: fmt.Sprint("node", i)}, Created: Revision(i)})
	}
	usable, refused := Judge(n, set.Leases, Self{})
	if len(usable) != count || len(refused) > 0 {
		t.Errorf("%d usable, refused %v; want all %d usable", len(usable), refused, count)
	}
	if s, err := Allocate(n, set, claimOf("one too many")); !errors.Is(err, ErrExhausted) {
		t.Errorf("from a full pool: %v, %v; want ErrExhausted", s, err)
	}
}

func TestAllocateSpreads(t *testing.T) {
	n := networkOf("10.0.0.0/8 /24, fc00::/8 /126")
	const hosts, parts = 1600, 16
	distinct := map[netip.Prefix]bool{}
	var quarters ip.Dual[[parts]int]
	for i := range hosts {
		s, err := Allocate(n, Set{}, claimOf(fmt.Sprintf("node-%04d", i)))
		if err != nil {
			t.Fatal(err)
		}
		distinct[s.V4] = true
		quarters.V4[s.V4.Addr().As4()[1]>>4]++
		quarters.V6[s.V6.Addr().As16()[1]>>4]++
	}
	// 1,600 of 65,535 places: 20 collisions are to be expected, and 100 hosts in each part, with a deviation of 10.
	if collisions := hosts - len(distinct); collisions > 50 {
		t.Errorf("%d of %d first choices collide", collisions, hosts)
	}
	for _, f := range ip.Families() {
		counts := quarters.Of(f)
		if slices.Min(counts[:]) < 50 || slices.Max(counts[:]) > 150 {
			t.Errorf("%s hosts in each part of the pool: %v, want about %d", f, counts, hosts/parts)
		}
	}
}

// The laws of Allocate, on crowded pools with leases of any length, inside the network and around it.
func TestAllocateLaws(t *testing.T) {
	configs := []Network{
		networkOf("10.5.0.0/24 /28"),
		networkOf("10.5.0.0/24 /28 from 10.5.0.64 to 10.5.0.176"),
		networkOf("10.5.0.0/24 /30, fc00::/120 /124"),
		networkOf("fc00::/8 /126"),
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom(configs).Draw(t, "network")
		var set Set
		for range rapid.IntRange(0, 30).Draw(t, "leases") {
			set.Leases = append(set.Leases, drawLease(t, n))
		}
		claim := claimOf(rapid.StringMatching(`[a-z]{1,8}`).Draw(t, "node"))
		if len(set.Leases) > 0 && rapid.Bool().Draw(t, "had a lease") {
			claim.Previous = set.Leases[0].Subnets
		}
		s, err := Allocate(n, set, claim)
		if again, err2 := Allocate(n, set, claim); again != s || (err == nil) != (err2 == nil) {
			t.Fatalf("first %v, %v, then %v, %v", s, err, again, err2)
		}
		if err != nil {
			checkExhausted(t, n, set, err)
			return
		}
		if !n.Fits(s) {
			t.Fatalf("%v does not fit %v", s, n)
		}
		for _, f := range n.Families() {
			for _, l := range set.Leases {
				if blocks(n.Pools.Of(f), l, f, s.Of(f)) {
					t.Fatalf("%s is not free beside %v", s.Of(f), l)
				}
			}
		}
		set.Leases = append(set.Leases, &Lease{Subnets: s, Attrs: claim.Attrs, Created: 1000})
		usable, refused := Judge(n, set.Leases, Self{Node: "another"})
		if !slices.ContainsFunc(usable, func(l *Lease) bool { return l.Subnets == s }) {
			t.Fatalf("others refuse %v: %v", s, refused)
		}
	})
}

// drawLease draws a lease in or around the first addresses of the pools.
func drawLease(t *rapid.T, n Network) *Lease {
	l := &Lease{Created: Revision(rapid.IntRange(1, 5).Draw(t, "created"))}
	for _, f := range n.Families() {
		pool := n.Pools.Of(f)
		near := func() netip.Addr {
			b := pool.Network.Addr().AsSlice()
			b[len(b)-1] = rapid.Byte().Draw(t, "last byte")
			addr, _ := netip.AddrFromSlice(b)
			return addr
		}
		if rapid.Bool().Draw(t, "has a subnet") {
			bits := rapid.SampledFrom([]int{0, pool.Network.Bits(), pool.Network.Bits() + 1, pool.SubnetLen - 1, pool.SubnetLen, pool.SubnetLen, pool.SubnetLen + 1, f.Bits()}).Draw(t, "length")
			l.Subnets.Set(f, netip.PrefixFrom(near(), bits).Masked())
		}
		if rapid.IntRange(0, 4).Draw(t, "address in the pool") == 0 {
			l.Attrs.Public.Set(f, near())
		}
	}
	return l
}

// blocks says plainly what Allocate computes by intervals.
func blocks(pool Pool, l *Lease, f ip.Family, candidate netip.Prefix) bool {
	p := l.Subnets.Of(f)
	return p.IsValid() && !ip.Contains(p, pool.Network) && p.Overlaps(candidate) || candidate.Contains(l.Attrs.Public.Of(f))
}

func checkExhausted(t *rapid.T, n Network, set Set, err error) {
	if !errors.Is(err, ErrExhausted) {
		t.Fatal(err)
	}
	for _, f := range n.Families() {
		pool, free := n.Pools.Of(f), 0
		for addr := pool.Min; !pool.Max.Less(addr); addr = ip.Last(netip.PrefixFrom(addr, pool.SubnetLen)).Next() {
			candidate := netip.PrefixFrom(addr, pool.SubnetLen)
			if !slices.ContainsFunc(set.Leases, func(l *Lease) bool { return blocks(pool, l, f, candidate) }) {
				free++
				break
			}
		}
		if free == 0 {
			return
		}
	}
	t.Fatalf("%v, but every family has a free subnet", err)
}

// fullLeases returns count leases of consecutive subnets, as a crowded store holds them.
func fullLeases(t testing.TB, n Network, count int) []*Lease {
	t.Helper()
	leases := make([]*Lease, count)
	for i := range leases {
		leases[i] = &Lease{Created: Revision(1 + (i*7919)%count)}
		leases[i].Attrs.Node = fmt.Sprintf("node-%05d", i)
		leases[i].Attrs.Public = dualAddr(t, fmt.Sprintf("172.16.%d.%d", i/250, i%250+1), fmt.Sprintf("fd99::%x", i+1))
		for _, f := range n.Families() {
			pool, addr := n.Pools.Of(f), n.Pools.Of(f).Min
			if i > 0 {
				addr = ip.Last(leases[i-1].Subnets.Of(f)).Next()
			}
			leases[i].Subnets.Set(f, netip.PrefixFrom(addr, pool.SubnetLen))
		}
	}
	return leases
}

// A pool of 2^118 subnets with huge leases must cost no more than a step for each; subnet by subnet would never end.
func TestAllocateStepsOverLargeLeases(t *testing.T) {
	n := networkOf("fc00::/8 /126")
	set := Set{Leases: []*Lease{{Subnets: subnetsOf(t, "", "fc00::/9")}, {Subnets: subnetsOf(t, "", "fc80::/10")}, {Subnets: subnetsOf(t, "", "fcc0::/11")}}}
	for i := range 100 {
		s, err := Allocate(n, set, claimOf(fmt.Sprint(i)))
		if err != nil || s.V6.Addr().Less(netip.MustParseAddr("fce0::")) {
			t.Fatalf("%v, %v; want a subnet from fce0:: on", s, err)
		}
	}
}

func BenchmarkAllocate10000(b *testing.B) {
	n := networkOf("10.0.0.0/8 /24, fc00::/8 /126")
	set := Set{Leases: fullLeases(b, n, 10_000)}
	claim := claimOf("a")
	claim.Previous = set.Leases[5000].Subnets // taken, so that the whole search is paid for
	for b.Loop() {
		if _, err := Allocate(n, set, claim); err != nil {
			b.Fatal(err)
		}
	}
}

func TestFits(t *testing.T) {
	v4Only := networkOf("10.5.0.0/16 to 10.5.9.0")
	dual := networkOf("10.5.0.0/16, fc00::/48")
	for _, tt := range []struct {
		network Network
		v4, v6  string
		want    bool
	}{
		{v4Only, "10.5.9.0/24", "", true},
		{v4Only, "10.5.10.0/24", "", false},
		{v4Only, "10.5.0.0/24", "", false},
		{v4Only, "10.5.1.0/25", "", false},
		{v4Only, "10.5.1.9/24", "", false},
		{v4Only, "10.6.1.0/24", "", false},
		{v4Only, "10.5.1.0/24", "fc00:0:0:1::/64", false},
		{v4Only, "", "", false},
		{dual, "10.5.1.0/24", "fc00:0:0:1::/64", true},
		{dual, "10.5.1.0/24", "", false},
		{dual, "", "fc00:0:0:1::/64", false},
	} {
		if got := tt.network.Fits(subnetsOf(t, tt.v4, tt.v6)); got != tt.want {
			t.Errorf("%v fits %s %s: %t, want %t", tt.network.Prefixes(), tt.v4, tt.v6, got, tt.want)
		}
	}
}
