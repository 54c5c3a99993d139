package subnettest

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"tulle/ip"
	"tulle/subnet"
)

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

// v4 makes subnets of one.
func v4(text string) subnet.Subnets { return subnet.Subnets{V4: prefix(text)} }

// The networks of most tests: of one family or of both.
func network4() subnet.Network    { return networkOf(pool4()) }
func network6() subnet.Network    { return networkOf(pool6()) }
func networkDual() subnet.Network { return networkOf(pool4(), pool6()) }

func pool4() subnet.Pool { return pool("10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0") }
func pool6() subnet.Pool { return pool("fc00:5::/48", 64, "fc00:5:0:1::", "fc00:5:0:ffff::") }

func pool(network string, bits int, first, last string) subnet.Pool {
	return subnet.Pool{Network: prefix(network), SubnetLen: bits, Min: netip.MustParseAddr(first), Max: netip.MustParseAddr(last)}
}

func networkOf(pools ...subnet.Pool) subnet.Network {
	n := subnet.Network{Backend: subnet.Backend{Type: "vxlan", Options: json.RawMessage(`{"Type":"vxlan"}`)}}
	for _, p := range pools {
		n.Pools.Set(ip.FamilyOf(p.Min), p)
	}
	return n
}

// at is what the lease of a host with an address says, and nothing else.
func at(address string) subnet.Attrs {
	return subnet.Attrs{Public: ip.Dual[netip.Addr]{V4: netip.MustParseAddr(address)}}
}

// flanneld is what a flanneld at 10.99.0.1 says: it has no node id.
func flanneld() subnet.Attrs {
	a := at("10.99.0.1")
	a.BackendType = "vxlan"
	a.BackendData.V4 = json.RawMessage(`{"VNI":1,"VtepMAC":"4e:f3:a5:78:97:d4"}`)
	return a
}

// leaseAt returns the lease that is stored of subnets.
func leaseAt(h Harness, s subnet.Subnets) (l subnet.Lease, there bool) {
	leases := h.Leases()
	i := slices.IndexFunc(leases, func(l subnet.Lease) bool { return l.Subnets == s })
	if i < 0 {
		return subnet.Lease{}, false
	}
	return leases[i], true
}

// wantLease fails unless a lease is stored that says just that.
func wantLease(t *testing.T, h Harness, s subnet.Subnets, a subnet.Attrs, reserved bool) {
	t.Helper()
	l, there := leaseAt(h, s)
	same := l.Attrs.Equal(a) && maps.EqualFunc(l.Attrs.Extra, a.Extra, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) })
	if !there || !same || l.Reserved != reserved {
		t.Errorf("lease %s = %+v (there: %v), want %+v (reserved: %v)", subnet.KeyOf(s), l, there, a, reserved)
	}
}

// wantLeases fails unless exactly these subnets are leased.
func wantLeases(t *testing.T, h Harness, want ...subnet.Subnets) {
	t.Helper()
	slices.SortFunc(want, subnet.CompareSubnets)
	var got []subnet.Subnets
	for _, l := range h.Leases() {
		got = append(got, l.Subnets)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("leases = %v, want %v", got, want)
	}
}
