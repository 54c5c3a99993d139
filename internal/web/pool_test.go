package web

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

func TestPools(t *testing.T) {
	for name, tt := range map[string]struct {
		config string
		leases []string // keys; a leading * is a reservation
		want   []string // "network each subnets free leased/reserved/refused outside first-last cells used"
	}{
		"one family": {
			config: `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`,
			leases: []string{"10.5.1.0-24", "10.5.255.0-24", "*10.5.7.0-24", "10.9.0.0-24"},
			want:   []string{"10.5.0.0/16 1 255 252 2/1/0 1 1-255 256 [[1 1 0 0] [7 0 1 0] [255 1 0 0]]"},
		},
		"between bounds": {
			config: `{"Network":"10.5.0.0/16","SubnetLen":20,"SubnetMin":"10.5.16.0","SubnetMax":"10.5.64.0","Backend":{"Type":"vxlan"}}`,
			leases: []string{"10.5.16.0-20", "10.5.240.0-20"},
			want:   []string{"10.5.0.0/16 1 4 3 2/0/0 0 1-4 16 [[1 1 0 0] [15 1 0 0]]"},
		},
		"wider and narrower than a subnet": {
			config: `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`,
			leases: []string{"10.5.8.0-22", "10.5.20.0-25", "10.5.20.128-25"},
			want:   []string{"10.5.0.0/16 1 255 254 2/0/1 0 1-255 256 [[8 0 0 1] [9 0 0 1] [10 0 0 1] [11 0 0 1] [20 2 0 0]]"},
		},
		"the whole network": {
			config: `{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`,
			leases: []string{"0.0.0.0-0", "10.0.0.0-8"},
			want:   []string{"10.5.0.0/16 1 255 255 0/0/0 2 1-255 256 []"},
		},
		"both families, one of them vast": {
			config: `{"Network":"10.0.0.0/8","EnableIPv6":true,"IPv6Network":"fc00::/16","IPv6SubnetLen":96,"Backend":{"Type":"vxlan"}}`,
			leases: []string{"10.5.1.0-24&fc00:1::-96", "0.0.0.0-0&fc00:ffff:ffff:ffff:ffff:ffff::-96"},
			want: []string{
				"10.0.0.0/8 64 65535 65534 1/0/0 0 0-1023 1024 [[20 1 0 0]]",
				"fc00::/16 1180591620717411303424 1208925819614629174706175 1208925819614629174706173 2/0/0 0 0-1023 1024 [[0 1 0 0] [1023 1 0 0]]",
			},
		},
	} {
		n, _, err := flannel.ParseNetwork([]byte(tt.config), 1)
		if err != nil {
			t.Fatal(name, err)
		}
		set := subnet.Set{Network: &n}
		for i, key := range tt.leases {
			l := subnet.Lease{Created: subnet.Revision(2 + i)}
			if key[0] == '*' {
				l.Reserved, key = true, key[1:]
			}
			if l.Subnets, err = subnet.ParseKey(key); err != nil {
				t.Fatal(name, err)
			}
			set.Leases = append(set.Leases, &l)
		}
		for i, p := range poolsOf(set, judge(set)) {
			got := fmt.Sprintf("%s %s %s %s %d/%d/%d %d %d-%d %d %v", p.Network, p.Each, p.Subnets, p.Free, p.Leased, p.Reserved, p.Refused, p.Outside, p.First, p.Last, len(p.Cells), p.Used)
			if got != tt.want[i] {
				t.Errorf("%s:\n%s, want\n%s", name, got, tt.want[i])
			}
			if len(p.Cells) > mostCells || !ip.Contains(netip.MustParsePrefix(p.Network), netip.MustParsePrefix(p.Cells[len(p.Cells)-1])) {
				t.Errorf("%s: cells %s to %s", name, p.Cells[0], p.Cells[len(p.Cells)-1])
			}
		}
	}
}

// Of two leases that overlap, one is used; a lease may be used in one of its families.
func TestStates(t *testing.T) {
	n, _, err := flannel.ParseNetwork([]byte(`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fc00:5::/48","Backend":{"Type":"vxlan"}}`), 1)
	if err != nil {
		t.Fatal(err)
	}
	set := subnet.Set{Network: &n}
	for i, l := range []subnet.Lease{
		{Subnets: subnet.Subnets{V4: netip.MustParsePrefix("10.5.1.0/24"), V6: netip.MustParsePrefix("fc00:5::/64")}},
		{Subnets: subnet.Subnets{V4: netip.MustParsePrefix("10.5.1.0/24")}},
		{Subnets: subnet.Subnets{V4: netip.MustParsePrefix("10.5.2.0/24"), V6: netip.MustParsePrefix("fd00::/64")}},
		{Subnets: subnet.Subnets{V4: netip.MustParsePrefix("10.5.3.0/24")}, Reserved: true},
		{Subnets: subnet.Subnets{V4: netip.MustParsePrefix("10.5.4.0/24")}, HeldBack: true},
	} {
		l.Created = subnet.Revision(i + 1)
		set.Leases = append(set.Leases, &l)
	}
	j := judge(set)
	var got []string
	for _, l := range set.Leases {
		state, _ := j.state(l)
		got = append(got, state)
	}
	if want := []string{leased, refused, inPart, reserved, heldBack}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("states %q, want %q", got, want)
	}
}

// What the scripts read is there even where it is empty: null has no length.
func TestNothingIsNull(t *testing.T) {
	for name, f := range map[string]facts{"nothing known": {}, "a view": {heard: true, set: subnet.Set{Leases: []*subnet.Lease{{}}}}} {
		text, err := json.Marshal(modelOf(f))
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		if hasNull(value) {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func hasNull(value any) bool {
	switch v := value.(type) {
	case nil:
		return true
	case []any:
		if slices.ContainsFunc(v, hasNull) {
			return true
		}
	case map[string]any:
		for _, e := range v {
			if hasNull(e) {
				return true
			}
		}
	}
	return false
}
