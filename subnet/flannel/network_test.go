package flannel

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/ip"
	"tulle/subnet"
)

func poolOf(t testing.TB, network string, length int, low, high string) subnet.Pool {
	t.Helper()
	return subnet.Pool{Network: netip.MustParsePrefix(network), SubnetLen: length, Min: netip.MustParseAddr(low), Max: netip.MustParseAddr(high)}
}

func TestParseNetwork(t *testing.T) {
	v4 := poolOf(t, "10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0")
	v6 := poolOf(t, "fc00::/48", 64, "fc00:0:0:1::", "fc00:0:0:ffff::")
	none := subnet.Backend{Type: "vxlan", Options: json.RawMessage("{}")}
	for name, tt := range map[string]struct {
		text     string
		pools    ip.Dual[subnet.Pool]
		other    *subnet.Backend // unless vxlan without options
		warnings []string        // what each says
	}{
		"least":           {text: `{"Network":"10.5.0.0/16"}`, pools: ip.Dual[subnet.Pool]{V4: v4}},
		"any case":        {text: `{"network":"10.5.0.0/16","enableipv6":false,"SUBNETLEN":24}`, pools: ip.Dual[subnet.Pool]{V4: v4}},
		"nulls are unset": {text: `{"Network":"10.5.0.0/16","SubnetLen":null,"SubnetMin":null,"Backend":null,"EnableIPv4":null}`, pools: ip.Dual[subnet.Pool]{V4: v4}},
		"zeros are unset": {text: `{"Network":"10.5.0.0/16","SubnetLen":0,"SubnetMin":"0.0.0.0","SubnetMax":""}`, pools: ip.Dual[subnet.Pool]{V4: v4}},
		"dual":            {text: `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00::/48"}`, pools: ip.Dual[subnet.Pool]{V4: v4, V6: v6}},
		"IPv6 only":       {text: `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48","IPv6SubnetMin":"::","IPv6SubnetMax":"::"}`, pools: ip.Dual[subnet.Pool]{V6: v6}},
		"all set": {
			text: `{"Network":"10.0.0.0/8","SubnetLen":20,"SubnetMin":"10.10.0.0","SubnetMax":"10.99.0.0",
				"EnableIPv6":true,"IPv6Network":"fc00::/40","IPv6SubnetLen":56,"IPv6SubnetMin":"fc00:0:1::","IPv6SubnetMax":"fc00:0:2::",
				"EnableNFTables":false,"Backend":{"Type":"VXLAN","Port":8472}}`,
			pools: ip.Dual[subnet.Pool]{V4: poolOf(t, "10.0.0.0/8", 20, "10.10.0.0", "10.99.0.0"), V6: poolOf(t, "fc00::/40", 56, "fc00:0:1::", "fc00:0:2::")},
			other: &subnet.Backend{Type: "vxlan", Options: json.RawMessage(`{"Type":"VXLAN","Port":8472}`)},
		},
		"first subnet by choice": {text: `{"Network":"10.5.0.0/16","SubnetMin":"10.5.0.0","SubnetMax":"10.5.0.0"}`, pools: ip.Dual[subnet.Pool]{V4: poolOf(t, "10.5.0.0/16", 24, "10.5.0.0", "10.5.0.0")}},
		"just room for /24":      {text: `{"Network":"10.5.0.0/22"}`, pools: ip.Dual[subnet.Pool]{V4: poolOf(t, "10.5.0.0/22", 24, "10.5.1.0", "10.5.3.0")}},
		"no room for /24":        {text: `{"Network":"10.5.0.0/23"}`, pools: ip.Dual[subnet.Pool]{V4: poolOf(t, "10.5.0.0/23", 25, "10.5.0.128", "10.5.1.128")}},
		"smallest":               {text: `{"Network":"10.5.0.0/28"}`, pools: ip.Dual[subnet.Pool]{V4: poolOf(t, "10.5.0.0/28", 30, "10.5.0.4", "10.5.0.12")}},
		"largest":                {text: `{"Network":"0.0.0.0/0","SubnetLen":2}`, pools: ip.Dual[subnet.Pool]{V4: poolOf(t, "0.0.0.0/0", 2, "64.0.0.0", "192.0.0.0")}},
		"IPv6 just room for /64": {text: `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/62"}`, pools: ip.Dual[subnet.Pool]{V6: poolOf(t, "fc00::/62", 64, "fc00:0:0:1::", "fc00:0:0:3::")}},
		"IPv6 smallest":          {text: `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/124"}`, pools: ip.Dual[subnet.Pool]{V6: poolOf(t, "fc00::/124", 126, "fc00::4", "fc00::c")}},
		"no backend type":        {text: `{"Network":"10.5.0.0/16","Backend":{"VNI":2}}`, pools: ip.Dual[subnet.Pool]{V4: v4}, other: &subnet.Backend{Type: "vxlan", Options: json.RawMessage(`{"VNI":2}`)}},
		"another backend":        {text: `{"Network":"10.5.0.0/16","backend":{"type":"Host-GW"}}`, pools: ip.Dual[subnet.Pool]{V4: v4}, other: &subnet.Backend{Type: "host-gw", Options: json.RawMessage(`{"type":"Host-GW"}`)}},
		"host bits":              {text: `{"Network":"10.5.7.1/16"}`, pools: ip.Dual[subnet.Pool]{V4: v4}, warnings: []string{"taken as 10.5.0.0/16"}},
		"unknown fields": {
			text: `{"Netwrok":"10.6.0.0/16","Network":"10.5.0.0/16","SubnetLength":24,"Purpose of this network":"lab"}`, pools: ip.Dual[subnet.Pool]{V4: v4},
			warnings: []string{`"Netwrok" is unknown and ignored: did you mean Network?`, `"Purpose of this network" is unknown and ignored`, "did you mean SubnetLen?"},
		},
		"fields of a family that is off": {text: `{"Network":"10.5.0.0/16","IPv6Network":"fc00::/48"}`, pools: ip.Dual[subnet.Pool]{V4: v4}, warnings: []string{"IPv6Network has no effect while EnableIPv6 is false"}},
	} {
		t.Run(name, func(t *testing.T) {
			n, warnings, err := ParseNetwork([]byte(tt.text), 7)
			if err != nil {
				t.Fatal(err)
			}
			want := subnet.Network{Pools: tt.pools, Backend: none, Revision: 7}
			if tt.other != nil {
				want.Backend = *tt.other
			}
			if diff := cmp.Diff(want, n, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("network (-want +got):\n%s", diff)
			}
			if !slices.EqualFunc(warnings, tt.warnings, strings.Contains) {
				t.Errorf("warnings %q, want them to say %q", warnings, tt.warnings)
			}
		})
	}
}

func TestParseNetworkRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		text    string
		reasons []string // one for each error
	}{
		"empty":            {``, []string{`want a JSON object: unexpected end of JSON input: write for example {"Network": "10.5.0.0/16"}`}},
		"not JSON":         {`Network=10.5.0.0/16`, []string{"invalid character 'N'"}},
		"array":            {`[]`, []string{"want a JSON object, got array"}},
		"null":             {`null`, []string{"want a JSON object, got null"}},
		"no network":       {`{}`, []string{"Network is missing: add it, or set EnableIPv4 to false"}},
		"no IPv6 network":  {`{"Network":"10.5.0.0/16","EnableIPv6":true}`, []string{"IPv6Network is missing: add it, or set EnableIPv6 to false"}},
		"no prefix":        {`{"Network":"10.5.0.0"}`, []string{`Network "10.5.0.0" is not a prefix: write ADDRESS/LENGTH`}},
		"no string":        {`{"Network":16}`, []string{`Network 16: want a prefix in quotes`}},
		"IPv6 in Network":  {`{"Network":"fc00::/48"}`, []string{`put it in IPv6Network, with EnableIPv6 true`}},
		"IPv4 in IPv6":     {`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"10.5.0.0/16"}`, []string{`put it in Network, with EnableIPv4 true`}},
		"mapped IPv4":      {`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"::ffff:10.5.0.0/112"}`, []string{"is not a prefix"}},
		"too small":        {`{"Network":"10.5.0.0/29"}`, []string{"Network 10.5.0.0/29 is too small to be cut into subnets: use a /28 or a larger one"}},
		"IPv6 too small":   {`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/125"}`, []string{"use a /124 or a larger one"}},
		"link-local":       {`{"Network":"169.254.0.0/16"}`, []string{"link-local space: choose a private prefix"}},
		"length too small": {`{"Network":"10.5.0.0/16","SubnetLen":17}`, []string{"SubnetLen 17 is out of range: with Network 10.5.0.0/16 use 18 to 30"}},
		"length too large": {`{"Network":"10.5.0.0/16","SubnetLen":31}`, []string{"use 18 to 30"}},
		"negative length":  {`{"Network":"10.5.0.0/16","SubnetLen":-1}`, []string{"SubnetLen -1 is out of range"}},
		"length in quotes": {`{"Network":"10.5.0.0/16","SubnetLen":"24"}`, []string{`SubnetLen "24": want a prefix length without quotes`}},
		"IPv6 length":      {`{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48","IPv6SubnetLen":127}`, []string{"use 50 to 126"}},
		"min outside":      {`{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0"}`, []string{"SubnetMin 10.6.0.0 is outside 10.5.0.0/16"}},
		"max unaligned":    {`{"Network":"10.5.0.0/16","SubnetMax":"10.5.9.9"}`, []string{"SubnetMax 10.5.9.9 is not the start of a /24: use 10.5.9.0"}},
		"min of IPv6":      {`{"Network":"10.5.0.0/16","SubnetMin":"fc00::"}`, []string{`SubnetMin "fc00::" is not an ipv4 address`}},
		"min above max":    {`{"Network":"10.5.0.0/16","SubnetMin":"10.5.9.0","SubnetMax":"10.5.3.0"}`, []string{"SubnetMin 10.5.9.0 is above SubnetMax 10.5.3.0"}},
		"max below min":    {`{"Network":"10.5.0.0/16","SubnetMax":"10.5.0.0"}`, []string{"SubnetMin 10.5.1.0 is above SubnetMax 10.5.0.0"}},
		"no family":        {`{"EnableIPv4":false}`, []string{"EnableIPv4 and EnableIPv6 are both false"}},
		"bad switch":       {`{"Network":"10.5.0.0/16","EnableIPv6":"yes"}`, []string{`EnableIPv6 "yes": want true or false`}},
		"backend text":     {`{"Network":"10.5.0.0/16","Backend":"vxlan"}`, []string{`Backend "vxlan": want a JSON object, got string: write for example {"Type": "vxlan"}`}},
		"backend type":     {`{"Network":"10.5.0.0/16","Backend":{"Type":1}}`, []string{`Backend.Type 1: want a name in quotes`}},
		"several": {
			`{"Network":"10.5.0.0/16","SubnetMin":"10.6.0.0","SubnetMax":"10.5.9.9","EnableIPv6":true,"Backend":7}`,
			[]string{"SubnetMin 10.6.0.0 is outside", "SubnetMax 10.5.9.9 is not", "IPv6Network is missing", "Backend 7"},
		},
	} {
		n, _, err := ParseNetwork([]byte(tt.text), 1)
		if err == nil {
			t.Errorf("%s: parsed as %v", name, n)
			continue
		}
		if lines := strings.Split(err.Error(), "\n"); !slices.EqualFunc(lines, tt.reasons, strings.Contains) {
			t.Errorf("%s: errors %q, want them to say %q", name, lines, tt.reasons)
		}
	}
}

func FuzzParseNetwork(f *testing.F) {
	for _, text := range []string{
		`{"Network":"10.5.0.0/16"}`, `{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/8","IPv6SubnetLen":126}`,
		`{"Network":"0.0.0.0/0","SubnetLen":30,"SubnetMax":"255.255.255.252","Backend":{"Type":"x"}}`, `{"Network":1,"network":"::/0"}`, `{}`, `null`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		n, _, err := ParseNetwork(text, 1)
		if err != nil {
			return
		}
		if len(n.Families()) == 0 || n.Backend.Type == "" || !json.Valid(n.Backend.Options) {
			t.Fatalf("accepted %s as %v", text, n)
		}
		var first, last subnet.Subnets
		for _, f := range n.Families() {
			pool := n.Pools.Of(f)
			first.Set(f, netip.PrefixFrom(pool.Min, pool.SubnetLen))
			last.Set(f, netip.PrefixFrom(pool.Max, pool.SubnetLen))
		}
		if !n.Fits(first) || !n.Fits(last) {
			t.Errorf("%s: %v or %v is not a subnet of %v", text, first, last, n)
		}
		s, err := subnet.Allocate(n, subnet.Set{}, subnet.Claim{Attrs: subnet.Attrs{Node: "n"}})
		if err == nil && !n.Fits(s) {
			t.Errorf("%s: allocated %v, which does not fit %v", text, s, n)
		}
	})
}

func TestSameNetwork(t *testing.T) {
	parse := func(text string, revision subnet.Revision) subnet.Network {
		t.Helper()
		n, _, err := ParseNetwork([]byte(text), revision)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	was := parse(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7,"Port":8472}}`, 1)
	for text, same := range map[string]bool{
		`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":7,"Port":8472}}`:                                true,
		"{\n\t\"Backend\": {\"Port\": 8472, \"Type\": \"vxlan\", \"VNI\": 7},\n\t\"Network\": \"10.5.0.0/16\"\n}": true,
		`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","VNI":8,"Port":8472}}`:                                false,
		`{"Network":"10.5.0.0/16","Backend":{"Type":"host-gw","VNI":7,"Port":8472}}`:                              false,
		`{"Network":"10.5.0.0/16","SubnetLen":25,"Backend":{"Type":"vxlan","VNI":7,"Port":8472}}`:                 false,
	} {
		if got := parse(text, 2).Same(was); got != same {
			t.Errorf("%s: the same: %t, want %t", text, got, same)
		}
	}
}
