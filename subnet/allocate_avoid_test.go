package subnet

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"tulle/ip"
)

func prefixesOf(text string) []netip.Prefix {
	var ps []netip.Prefix
	for word := range strings.FieldsSeq(text) {
		ps = append(ps, netip.MustParsePrefix(word))
	}
	return ps
}

// A new subnet overlaps no network that the host is in, and one that the host had is kept. If nothing else is free, the error names them.
func TestAllocateAvoidsNetworksOfTheHost(t *testing.T) {
	n := networkOf("10.5.0.0/16, fc00::/48")
	all := "10.5.0.0/17 10.5.128.0/17 fc00::/49 fc00:0:0:8000::/49"
	for name, tt := range map[string]struct {
		avoid    string
		previous Subnets
		want     Subnets
		fails    string
	}{
		"all but one subnet": {
			avoid: "10.5.0.0/17 10.5.128.0/18 10.5.192.0/19 10.5.224.0/20 10.5.240.0/21 10.5.248.0/22 10.5.252.0/23 10.5.255.0/24 " +
				"fc00::/49 fc00:0:0:8000::/50 fc00:0:0:c000::/51 fc00:0:0:e000::/52 fc00:0:0:f000::/53 fc00:0:0:f800::/54 fc00:0:0:fc00::/55 fc00:0:0:fe00::/56 " +
				"fc00:0:0:ff00::/57 fc00:0:0:ff80::/58 fc00:0:0:ffc0::/59 fc00:0:0:ffe0::/60 fc00:0:0:fff0::/61 fc00:0:0:fff8::/62 fc00:0:0:fffc::/63 fc00:0:0:ffff::/64",
			want: subnetsOf(t, "10.5.254.0/24", "fc00:0:0:fffe::/64"),
		},
		"the previous one is kept":      {avoid: all, previous: subnetsOf(t, "10.5.7.0/24", "fc00:0:0:7::/64"), want: subnetsOf(t, "10.5.7.0/24", "fc00:0:0:7::/64")},
		"IPv4 without anything":         {avoid: "10.5.0.0/16", fails: "no free subnet that does not overlap [10.5.0.0/16]"},
		"IPv6 without anything":         {avoid: "fc00::/49 fc00:0:0:8000::/49", fails: "no free subnet that does not overlap [fc00::/49 fc00:0:0:8000::/49]"},
		"what the network was cut from": {avoid: "10.0.0.0/8 fc00::/7", previous: subnetsOf(t, "10.5.9.0/24", "fc00:0:0:9::/64"), want: subnetsOf(t, "10.5.9.0/24", "fc00:0:0:9::/64")},
	} {
		claim := claimOf("a")
		claim.Previous, claim.Avoid = tt.previous, prefixesOf(tt.avoid)
		got, err := Allocate(n, Set{}, claim)
		switch {
		case tt.fails != "":
			if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), tt.fails) || !strings.Contains(err.Error(), "tulle config set") {
				t.Errorf("%s: %v, want %q and what to do", name, err, tt.fails)
			}
		case err != nil || got != tt.want:
			t.Errorf("%s: %v, %v; want %v", name, got, err, tt.want)
		}
	}
	wide := claimOf("a")
	wide.Avoid = prefixesOf("10.0.0.0/8 fc00::/7")
	got, err := Allocate(n, Set{}, wide)
	if without, _ := Allocate(n, Set{}, claimOf("a")); err != nil || got != without {
		t.Errorf("in a network that this one was cut from: %v, %v; want %v", got, err, without)
	}
}

// Whatever a host is in, what it gets new overlaps none of it, unless the whole network was cut out of it.
func TestAllocateAvoidsWhateverThereIs(t *testing.T) {
	n := networkOf("10.5.0.0/16, fc00::/48 /56")
	rapid.Check(t, func(t *rapid.T) {
		claim := claimOf(rapid.StringMatching(`[a-z]{1,4}`).Draw(t, "node"))
		for range rapid.IntRange(0, 12).Draw(t, "prefixes") {
			f := rapid.SampledFrom(n.Families()).Draw(t, "family")
			pool := n.Pools.Of(f)
			at := pool.start(f, draw(rapid.StringMatching(`[a-z]{1,4}`).Draw(t, "place"), 0))
			claim.Avoid = append(claim.Avoid, netip.PrefixFrom(at, rapid.IntRange(pool.Network.Bits(), f.Bits()).Draw(t, "bits")).Masked())
		}
		got, err := Allocate(n, Set{}, claim)
		if err != nil {
			if !errors.Is(err, ErrExhausted) {
				t.Fatal(err)
			}
			return
		}
		for _, f := range ip.Families() {
			if i := slices.IndexFunc(claim.Avoid, got.Of(f).Overlaps); i >= 0 {
				t.Fatalf("%s overlaps %s", got.Of(f), claim.Avoid[i])
			}
		}
	})
}
