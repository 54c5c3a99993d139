package subnet

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tulle/ip"
)

func TestJudge(t *testing.T) {
	const (
		v4Only = "10.5.0.0/16"
		v6Only = "fc00::/48"
		dual   = "10.5.0.0/16, fc00::/48"
	)
	lease := func(created Revision, v4, v6, public string) *Lease {
		return &Lease{Subnets: subnetsOf(t, v4, v6), Created: created, Attrs: Attrs{Public: dualAddr(t, public, "")}}
	}
	self := Self{
		Node: "me", Instance: "now", Subnets: subnetsOf(t, "10.5.77.0/24", "fc00:0:0:77::/64"),
		Underlay: []netip.Addr{netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("10.5.200.1"), netip.MustParseAddr("fe80::77%eth0")},
	}
	good := lease(1, "10.5.1.0/24", "", "192.0.2.1")
	of := func(node, instance string, l *Lease) *Lease {
		l.Attrs.Node, l.Attrs.Instance = node, instance
		return l
	}
	reserved := of("me", "", lease(1, "10.5.5.0/24", "", ""))
	reserved.Reserved = true
	for name, tt := range map[string]struct {
		config  string
		leases  []*Lease
		usable  []string // keys
		refused []string // "key: what the reason says"
	}{
		"nothing":        {config: v4Only},
		"good":           {config: v4Only, leases: []*Lease{good}, usable: []string{"10.5.1.0-24"}},
		"longer is good": {config: v4Only, leases: []*Lease{lease(1, "10.5.1.128/25", "", ""), lease(2, "10.5.1.0/30", "", "")}, usable: []string{"10.5.1.0-30", "10.5.1.128-25"}},
		"first subnet":   {config: v4Only, leases: []*Lease{lease(1, "10.5.0.0/24", "", "")}, usable: []string{"10.5.0.0-24"}},

		"metadata address":     {v4Only, []*Lease{good, lease(2, "169.254.169.252/30", "", "192.0.2.66")}, []string{"10.5.1.0-24"}, []string{"169.254.169.252-30: not inside the network 10.5.0.0/16"}},
		"inside my own subnet": {v4Only, []*Lease{good, lease(2, "10.5.77.128/25", "", "192.0.2.66")}, []string{"10.5.1.0-24"}, []string{"10.5.77.128-25: overlaps 10.5.77.0/24, this host's own subnet"}},
		"default route":        {v4Only, []*Lease{good, lease(2, "0.0.0.0/0", "", "192.0.2.66")}, []string{"10.5.1.0-24"}, []string{"0.0.0.0-0: 0.0.0.0/0 is not inside the network"}},
		"old default route":    {v4Only, []*Lease{lease(0, "0.0.0.0/0", "", "192.0.2.66"), good}, []string{"10.5.1.0-24"}, []string{"0.0.0.0-0: not inside"}},

		"wide":                  {v4Only, []*Lease{lease(1, "10.5.8.0/23", "", "")}, nil, []string{"10.5.8.0-23: larger than a subnet of the network, which is a /24"}},
		"all of the network":    {v4Only, []*Lease{lease(1, "10.5.0.0/16", "", ""), good}, []string{"10.5.1.0-24"}, []string{"10.5.0.0-16: larger than a subnet"}},
		"outside":               {v4Only, []*Lease{lease(1, "10.6.1.0/24", "", ""), good}, []string{"10.5.1.0-24"}, []string{"10.6.1.0-24: not inside"}},
		"unaligned":             {v4Only, []*Lease{{Subnets: Subnets{V4: netip.MustParsePrefix("10.5.9.7/24")}}, lease(1, "10.5.9.0/25", "", "")}, []string{"10.5.9.0-25"}, []string{"10.5.9.7-24: not a network address, which would be 10.5.9.0/24"}},
		"younger inside older":  {v4Only, []*Lease{lease(2, "10.5.1.128/25", "", ""), good}, []string{"10.5.1.0-24"}, []string{"10.5.1.128-25: overlaps 10.5.1.0/24, the subnet of an older lease"}},
		"younger around older":  {v4Only, []*Lease{lease(1, "10.5.1.128/25", "", ""), lease(2, "10.5.1.0/24", "", "")}, []string{"10.5.1.128-25"}, []string{"10.5.1.0-24: overlaps 10.5.1.128/25, the subnet of an older lease"}},
		"a refused one is none": {v4Only, []*Lease{lease(1, "10.5.0.0/20", "", ""), lease(2, "10.5.1.0/24", "", ""), lease(3, "10.5.1.0/25", "", "")}, []string{"10.5.1.0-24"}, []string{"10.5.0.0-20: larger", "10.5.1.0-25: overlaps"}},
		"same age":              {v4Only, []*Lease{lease(1, "10.5.1.0/25", "", ""), lease(1, "10.5.1.0/24", "", "")}, []string{"10.5.1.0-24"}, []string{"10.5.1.0-25: overlaps"}},
		"link-local":            {"169.252.0.0/14 /24", []*Lease{lease(1, "169.254.1.0/24", "", ""), lease(1, "169.253.1.0/24", "", "")}, []string{"169.253.1.0-24"}, []string{"169.254.1.0-24: link-local range 169.254.0.0/16"}},
		"loopback, multicast":   {"0.0.0.0/0 /8", []*Lease{lease(1, "127.0.0.0/8", "", ""), lease(1, "224.0.0.0/8", "", "")}, nil, []string{"127.0.0.0-8: loopback", "224.0.0.0-8: multicast"}},
		"IPv6 link-local":       {"fe00::/8", []*Lease{lease(1, "", "fe80::/64", ""), lease(1, "", "fe00:1::/64", "")}, []string{"0.0.0.0-0&fe00:1::-64"}, []string{"0.0.0.0-0&fe80::-64: link-local range fe80::/10"}},

		"holds my underlay":      {v4Only, []*Lease{lease(1, "10.5.200.0/24", "", "")}, nil, []string{"10.5.200.0-24: holds the underlay address 10.5.200.1"}},
		"holds its own address":  {v4Only, []*Lease{lease(1, "10.5.3.0/24", "", "10.5.3.7")}, nil, []string{"10.5.3.0-24: holds the underlay address 10.5.3.7"}},
		"holds an older host":    {v4Only, []*Lease{lease(1, "10.5.1.0/24", "", "10.5.3.7"), lease(2, "10.5.3.0/24", "", "")}, []string{"10.5.1.0-24"}, []string{"10.5.3.0-24: holds the underlay address 10.5.3.7"}},
		"address in an older":    {v4Only, []*Lease{good, lease(2, "10.5.3.0/24", "", "10.5.1.7")}, []string{"10.5.1.0-24"}, []string{"10.5.3.0-24: its public address 10.5.1.7 lies in 10.5.1.0/24, the subnet of an older lease"}},
		"address in mine":        {v4Only, []*Lease{lease(1, "10.5.3.0/24", "", "10.5.77.7")}, nil, []string{"10.5.3.0-24: its public address 10.5.77.7 lies in 10.5.77.0/24, this host's own subnet"}},
		"mine, left":             {v4Only, []*Lease{of("me", "now", lease(1, "10.5.5.0/24", "", "192.0.2.77"))}, nil, nil},
		"reserved for me":        {v4Only, []*Lease{reserved}, nil, nil},
		"names me":               {v4Only, []*Lease{of("me", "other", lease(1, "10.5.5.0/24", "", "192.0.2.9"))}, nil, []string{"10.5.5.0-24: it names this host's node id"}},
		"names me, in another":   {v4Only, []*Lease{of("me", "", lease(0, "10.5.5.0/24", "", "10.5.1.7")), good}, []string{"10.5.1.0-24"}, []string{"10.5.5.0-24: it names this host's node id"}},
		"names me, overlaps":     {v4Only, []*Lease{of("me", "", lease(0, "10.5.1.0/25", "", "192.0.2.9")), good}, []string{"10.5.1.0-24"}, []string{"10.5.1.0-25: it names this host's node id"}},
		"my lease says nonsense": {dual, []*Lease{of("me", "now", &Lease{Subnets: self.Subnets, Attrs: Attrs{Public: dualAddr(t, "10.5.1.7", "")}}), good}, []string{"10.5.1.0-24"}, nil},
		"mine by subnets":        {dual, []*Lease{lease(1, "10.5.77.0/24", "fc00:0:0:77::/64", "")}, nil, nil},
		"my subnets stolen":      {dual, []*Lease{good, {Subnets: self.Subnets, Attrs: Attrs{Node: "thief", Public: dualAddr(t, "10.5.1.9", "")}}}, []string{"10.5.1.0-24"}, nil},
		"not mine by half of it": {dual, []*Lease{lease(1, "10.5.77.0/24", "fc00:0:0:78::/64", "")}, []string{"0.0.0.0-0&fc00:0:0:78::-64"}, []string{"10.5.77.0-24&fc00:0:0:78::-64: this host's own subnet"}},

		"dual":                     {dual, []*Lease{lease(1, "10.5.1.0/24", "fc00:0:0:1::/64", "")}, []string{"10.5.1.0-24&fc00:0:0:1::-64"}, nil},
		"IPv4 only in dual":        {dual, []*Lease{good}, []string{"10.5.1.0-24"}, nil},
		"dual in IPv4 only":        {v4Only, []*Lease{lease(1, "10.5.1.0/24", "fc00:0:0:1::/64", "")}, []string{"10.5.1.0-24"}, nil},
		"dual in IPv6 only":        {v6Only, []*Lease{lease(1, "10.5.1.0/24", "fc00:0:0:1::/64", "")}, []string{"0.0.0.0-0&fc00:0:0:1::-64"}, nil},
		"IPv4 in IPv6 only":        {v6Only, []*Lease{good}, nil, []string{"10.5.1.0-24: does not use its family"}},
		"IPv6 half is bad":         {dual, []*Lease{lease(1, "10.5.1.0/24", "fd00::/64", "")}, []string{"10.5.1.0-24"}, []string{"10.5.1.0-24&fd00::-64: fd00::/64 is not inside the network fc00::/48"}},
		"IPv4 half is bad":         {dual, []*Lease{lease(1, "10.6.1.0/24", "fc00:0:0:1::/64", "")}, []string{"0.0.0.0-0&fc00:0:0:1::-64"}, []string{"10.6.1.0-24&fc00:0:0:1::-64: 10.6.1.0/24 is not inside"}},
		"both halves are bad":      {dual, []*Lease{lease(1, "10.6.1.0/24", "fd00::/64", "")}, nil, []string{"10.6.1.0-24&fd00::-64: 10.6.1.0/24", "10.6.1.0-24&fd00::-64: fd00::/64"}},
		"many pairs with one half": {dual, []*Lease{lease(3, "10.5.1.0/24", "fc00:0:0:3::/64", ""), lease(1, "10.5.1.0/24", "fc00:0:0:1::/64", "")}, []string{"0.0.0.0-0&fc00:0:0:3::-64", "10.5.1.0-24&fc00:0:0:1::-64"}, []string{"10.5.1.0-24&fc00:0:0:3::-64: overlaps 10.5.1.0/24"}},
		"link-local half":          {dual, []*Lease{lease(1, "10.5.1.0/24", "fe80::/64", "")}, []string{"10.5.1.0-24"}, []string{"10.5.1.0-24&fe80::-64: not inside"}},
	} {
		t.Run(name, func(t *testing.T) {
			usable, refused := Judge(networkOf(tt.config), tt.leases, self)
			keys := keysOf(usable)
			var reasons []string
			for _, p := range refused {
				reasons = append(reasons, p.Key+": "+p.Reason)
			}
			slices.Sort(tt.usable)
			slices.Sort(keys)
			if !slices.Equal(keys, tt.usable) {
				t.Errorf("usable %q, want %q", keys, tt.usable)
			}
			if !slices.EqualFunc(reasons, tt.refused, says) {
				t.Errorf("refused %q, want them to say %q", reasons, tt.refused)
			}
		})
	}
}

func keysOf(leases []*Lease) []string {
	var keys []string
	for _, l := range leases {
		keys = append(keys, KeyOf(l.Subnets))
	}
	return keys
}

// says reports whether a problem has the key and the words of want, "key: words".
func says(problem, want string) bool {
	key, words, _ := strings.Cut(want, ": ")
	reason, ok := strings.CutPrefix(problem, key+": ")
	return ok && strings.Contains(reason, words)
}

// The laws of Judge, against a plain reading of its rules and for any order of the input.
func TestJudgeLaws(t *testing.T) {
	configs := []Network{
		networkOf("10.5.0.0/24 /28"),
		networkOf("10.5.0.0/24 /30, fc00::/120 /124"),
	}
	self := Self{Node: "me", Subnets: subnetsOf(t, "10.5.0.16/28", ""), Underlay: []netip.Addr{netip.MustParseAddr("10.5.0.40"), netip.MustParseAddr("fc00::99")}}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom(configs).Draw(t, "network")
		byKey := map[string]*Lease{}
		for range rapid.IntRange(0, 25).Draw(t, "leases") {
			if l := drawLease(t, n); l.Subnets != (Subnets{}) {
				byKey[KeyOf(l.Subnets)] = l
			}
		}
		var leases []*Lease
		for _, l := range byKey { // in random order
			leases = append(leases, l)
		}
		usable, refused := Judge(n, leases, self)
		slices.Reverse(leases)
		if again, refusedAgain := Judge(n, leases, self); !reflect.DeepEqual(again, usable) || !slices.Equal(refused, refusedAgain) {
			t.Fatalf("the order of the leases matters:\n%q %v\n%q %v", keysOf(usable), refused, keysOf(again), refusedAgain)
		}
		for _, f := range n.Families() {
			checkJudged(t, n, f, leases, usable, self)
		}
		reported := map[string]bool{}
		for _, p := range refused {
			reported[p.Key] = true
		}
		for _, l := range leases {
			kept := slices.ContainsFunc(usable, func(u *Lease) bool { return u.Subnets == l.Subnets })
			if !kept && !reported[KeyOf(l.Subnets)] && !self.owns(l) {
				t.Fatalf("%v was left out silently", l)
			}
		}
	})
}

func checkJudged(t *rapid.T, n Network, f ip.Family, leases, usable []*Lease, self Self) {
	pool := n.Pools.Of(f)
	for i, u := range usable {
		p := u.Subnets.Of(f)
		if !p.IsValid() {
			continue
		}
		if !ip.Contains(pool.Network, p) || p.Bits() < pool.SubnetLen || self.Subnets.Of(f).Overlaps(p) || slices.ContainsFunc(self.Underlay, p.Contains) {
			t.Fatalf("usable %s", p)
		}
		for _, other := range usable[i+1:] {
			if p.Overlaps(other.Subnets.Of(f)) {
				t.Fatalf("usable %s and %s", p, other.Subnets.Of(f))
			}
		}
		for _, l := range usable {
			if l.Subnets.Of(f).IsValid() && p.Contains(l.Attrs.Public.Of(f)) {
				t.Fatalf("usable %s captures %s", p, l.Attrs.Public.Of(f))
			}
		}
	}
	// The oldest lease has nothing but itself and this host against it.
	if len(leases) == 0 {
		return
	}
	oldest := slices.MinFunc(leases, CompareSubnetClaims)
	p, addr := oldest.Subnets.Of(f), oldest.Attrs.Public.Of(f)
	if ip.Contains(pool.Network, p) && p.Bits() >= pool.SubnetLen && !self.Subnets.Of(f).Overlaps(p) && !slices.ContainsFunc(self.Underlay, p.Contains) &&
		!p.Contains(addr) && !self.Subnets.Of(f).Contains(addr) && !slices.ContainsFunc(usable, func(u *Lease) bool { return u.Subnets.Of(f) == p }) {
		t.Fatalf("the oldest lease %v is not usable", oldest)
	}
}

func BenchmarkJudge(b *testing.B) {
	for _, config := range []string{
		"10.0.0.0/8 /24",
		"10.0.0.0/8 /24, fc00::/40",
	} {
		n := networkOf(config)
		leases := fullLeases(b, n, 10_000)
		self := Self{Node: leases[17].Attrs.Node, Subnets: leases[17].Subnets}
		b.Run(fmt.Sprintf("families=%d/leases=%d", len(n.Families()), len(leases)), func(b *testing.B) {
			for b.Loop() {
				if usable, refused := Judge(n, leases, self); len(usable) != len(leases)-1 || len(refused) > 0 {
					b.Fatalf("%d usable, refused %v", len(usable), refused)
				}
			}
		})
	}
}

// Whatever the store holds, the time must not grow faster than the number of leases.
func BenchmarkJudgeHostile(b *testing.B) {
	n := networkOf("10.0.0.0/8 /10, fc00::/8 /10")
	random := rand.New(rand.NewPCG(1, 2))
	leases := make([]*Lease, 10_000)
	for i := range leases {
		addr := netip.AddrFrom16([16]byte{0: 0xfc, 12: byte(i >> 8), 13: byte(i)})
		bits := 10 + random.IntN(118)
		leases[i] = &Lease{Created: Revision(random.Int64N(100)), Subnets: Subnets{V4: netip.MustParsePrefix("10.64.0.0/10"), V6: netip.PrefixFrom(addr, bits).Masked()}}
	}
	for b.Loop() {
		Judge(n, leases, Self{})
	}
}
