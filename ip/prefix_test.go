package ip_test

import (
	"math/big"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"tulle/ip"
)

func TestLast(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.50.3.0/24":    "10.50.3.255",
		"10.50.3.7/30":    "10.50.3.7",
		"10.50.3.7/32":    "10.50.3.7",
		"0.0.0.0/0":       "255.255.255.255",
		"fd50:0:0:3::/64": "fd50::3:ffff:ffff:ffff:ffff",
	} {
		if got := ip.Last(netip.MustParsePrefix(prefix)); got != netip.MustParseAddr(want) {
			t.Errorf("Last(%s) = %s, want %s", prefix, got, want)
		}
	}
}

func TestContains(t *testing.T) {
	for _, test := range []struct {
		outer, inner string
		want         bool
	}{
		{"10.50.0.0/16", "10.50.3.0/24", true},
		{"10.50.0.0/16", "10.50.0.0/16", true},
		{"10.50.3.0/24", "10.50.0.0/16", false},
		{"10.50.0.0/16", "10.51.0.0/24", false},
		{"0.0.0.0/0", "10.51.0.0/24", true},
		{"0.0.0.0/0", "::/0", false},
		{"::/0", "10.51.0.0/24", false},
		{"fd50::/48", "fd50:0:0:3::/64", true},
	} {
		if got := ip.Contains(netip.MustParsePrefix(test.outer), netip.MustParsePrefix(test.inner)); got != test.want {
			t.Errorf("Contains(%s, %s) = %t", test.outer, test.inner, got)
		}
	}
	if ip.Contains(netip.Prefix{}, netip.MustParsePrefix("10.0.0.0/8")) || ip.Contains(netip.MustParsePrefix("10.0.0.0/8"), netip.Prefix{}) {
		t.Error("the zero prefix contains something or lies in something")
	}
}

func TestNumberAndAddrOfAreInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SampledFrom([]ip.Family{ip.IPv4, ip.IPv6}).Draw(t, "family")
		b := rapid.SliceOfN(rapid.Byte(), f.Bits()/8, f.Bits()/8).Draw(t, "bytes")
		addr, _ := netip.AddrFromSlice(b)
		if got, ok := ip.AddrOf(f, ip.Number(addr)); !ok || got != addr {
			t.Fatalf("AddrOf(Number(%s)) = %s, %t", addr, got, ok)
		}
	})
	for _, f := range ip.Families() {
		for _, n := range []*big.Int{big.NewInt(-1), new(big.Int).Lsh(big.NewInt(1), uint(f.Bits()))} {
			if addr, ok := ip.AddrOf(f, n); ok {
				t.Errorf("AddrOf(%s, %s) = %s, want none", f, n, addr)
			}
		}
	}
}

func TestComparePrefix(t *testing.T) {
	var sorted []netip.Prefix
	for _, text := range []string{"10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "fd00::/8", "fd00::/64"} {
		sorted = append(sorted, netip.MustParsePrefix(text))
	}
	got := slices.Clone(sorted)
	slices.Reverse(got)
	slices.SortFunc(got, ip.ComparePrefix)
	if !slices.Equal(got, sorted) {
		t.Errorf("sorted = %v, want %v", got, sorted)
	}
}

func TestParseMAC(t *testing.T) {
	for text, want := range map[string]ip.MAC{
		"02:00:00:00:00:0a": {2, 0, 0, 0, 0, 10},
		"02-00-00-00-00-0A": {2, 0, 0, 0, 0, 10},
		"0200.0000.000a":    {2, 0, 0, 0, 0, 10},
	} {
		if got, err := ip.ParseMAC(text); err != nil || got != want {
			t.Errorf("ParseMAC(%q) = %s, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "null", "02:00:00:00:00", "00:00:00:00:00:00", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "02:00:00:00:00:00:00:01",
	} {
		if got, err := ip.ParseMAC(text); err == nil {
			t.Errorf("ParseMAC(%q) = %s, want an error", text, got)
		}
	}
}

func TestTableEqualIgnoresOrderBetweenChains(t *testing.T) {
	rules := host().Tables[0].Rules[1:]
	table := ip.Table{Family: ip.IPv4, Rules: rules}
	for name, test := range map[string]struct {
		rules []ip.Rule
		want  bool
	}{
		"same":          {rules, true},
		"chains apart":  {[]ip.Rule{rules[1], rules[0], rules[2]}, true},
		"chain swapped": {[]ip.Rule{rules[0], rules[2], rules[1]}, false},
		"rule missing":  {rules[:2], false},
		"empty":         {nil, false},
	} {
		if got := table.Equal(ip.Table{Family: ip.IPv4, Rules: test.rules}); got != test.want {
			t.Errorf("%s: Equal = %t, want %t", name, got, test.want)
		}
	}
	if table.Equal(ip.Table{Family: ip.IPv6, Rules: rules}) {
		t.Error("tables of different families are equal")
	}
}
