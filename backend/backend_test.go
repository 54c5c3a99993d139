package backend

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/ip"
	"tulle/subnet"
)

func TestMetricsAreNearlyAllDistinct(t *testing.T) {
	for name, subnetOf := range map[string]func(i int) netip.Prefix{
		"ipv4": func(i int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		},
		"ipv6": func(i int) netip.Prefix {
			return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfc, 0, 0, 5, 6: byte(i >> 8), 7: byte(i)}), 64)
		},
	} {
		seen := map[uint32]int{}
		for i := range 10_000 {
			m := Metric(subnetOf(i))
			// 1024 and below is what kernels, people and DHCP clients use.
			if m <= 1024 {
				t.Errorf("%s: metric %d of %s is one that others use", name, m, subnetOf(i))
			}
			seen[m]++
		}
		if len(seen) < 9_950 {
			t.Errorf("%s: 10000 subnets have %d metrics", name, len(seen))
		}
		for m, n := range seen {
			if n > 4 {
				t.Errorf("%s: %d subnets have the metric %d", name, n, m)
			}
		}
	}
	if a, b := netip.MustParsePrefix("10.5.34.7/24"), netip.MustParsePrefix("10.5.34.0/24"); Metric(a) != Metric(b) {
		t.Error("the metric of a subnet depends on how it is written")
	}
}

func TestDecodeOptions(t *testing.T) {
	type options struct {
		VNI    uint32
		Port   uint16
		MTU    int
		Direct bool
	}
	for _, tt := range []struct {
		name, text   string
		want         options
		warning, err string
	}{
		{name: "absent", want: options{VNI: 1}},
		{name: "empty", text: `{}`, want: options{VNI: 1}},
		{name: "type alone", text: `{"Type":"vxlan"}`, want: options{VNI: 1}},
		{name: "any case", text: `{"type":"vxlan","vni":7,"PORT":4789,"direct":true}`, want: options{VNI: 7, Port: 4789, Direct: true}},
		{name: "null keeps the default", text: `{"VNI":null}`, want: options{VNI: 1}},
		{name: "unknown", text: `{"Prot":1}`, want: options{VNI: 1}, warning: "Port"},
		{name: "text for a number", text: `{"MTU":"1400"}`, err: "Backend.MTU does not take a string: want a number without quotes"},
		{name: "number out of range", text: `{"Port":70000}`, err: "Backend.Port does not take a number 70000: want a number from 0 to 65535"},
		{name: "negative", text: `{"VNI":-1}`, err: "Backend.VNI does not take a number -1: want a number without quotes"},
		{name: "number for a switch", text: `{"Direct":1}`, err: "Backend.Direct does not take a number: want true or false"},
		{name: "no object", text: `[]`, err: "Backend"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := options{VNI: 1}
			warnings, err := DecodeOptions(subnet.Backend{Options: json.RawMessage(tt.text)}, &got)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("%+v, error %v, want %+v", got, err, tt.want)
			}
			if (tt.warning == "") != (len(warnings) == 0) || len(warnings) > 0 && !strings.Contains(warnings[0], tt.warning) {
				t.Errorf("warnings %q, want %q", warnings, tt.warning)
			}
		})
	}
}

func TestReach(t *testing.T) {
	addr := netip.MustParseAddr
	h := Host{Own: map[netip.Addr]bool{addr("192.0.2.9"): true}, Shared: map[netip.Addr]bool{addr("172.30.0.255"): true}}
	h.Uplink.Addr = ip.Dual[netip.Addr]{V4: addr("172.30.0.1"), V6: addr("fd30::1")}
	h.Uplink.Public = ip.Dual[netip.Addr]{V4: addr("203.0.113.1"), V6: addr("fd30::1")}
	for _, tt := range []struct {
		name, backend, v4, v6 string
		family                ip.Family
		want                  string // address, or part of the error
	}{
		{"ipv4", "x", "172.30.0.2", "fd30::2", ip.IPv4, "172.30.0.2"},
		{"ipv6", "x", "172.30.0.2", "fd30::2", ip.IPv6, "fd30::2"},
		{"another backend", "y", "172.30.0.2", "", ip.IPv4, `its backend is "y", this network's is "x"`},
		{"no backend", "", "172.30.0.2", "", ip.IPv4, `its backend is ""`},
		{"no address", "x", "", "fd30::2", ip.IPv4, "no public ipv4 address"},
		{"no address of the family", "x", "172.30.0.2", "", ip.IPv6, "no public ipv6 address"},
		{"any address", "x", "0.0.0.0", "", ip.IPv4, "no public ipv4 address"},
		{"my public address", "x", "203.0.113.1", "", ip.IPv4, "is this host's own"},
		{"my uplink's address", "x", "172.30.0.1", "", ip.IPv4, "is this host's own"},
		{"an address of mine", "x", "192.0.2.9", "", ip.IPv4, "is this host's own"},
		{"multicast", "x", "", "ff02::1", ip.IPv6, "not the address of a host"},
		{"loopback", "x", "127.0.0.2", "", ip.IPv4, "not the address of a host"},
		{"broadcast", "x", "255.255.255.255", "", ip.IPv4, "not the address of a host"},
		{"broadcast in a network of mine", "x", "172.30.0.255", "", ip.IPv4, "not the address of a host"},
		{"a link's own address", "x", "", "fe80::2", ip.IPv6, "not the address of a host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			peer := subnet.Lease{Attrs: subnet.Attrs{BackendType: tt.backend}}
			if tt.v4 != "" {
				peer.Attrs.Public.V4 = addr(tt.v4)
			}
			if tt.v6 != "" {
				peer.Attrs.Public.V6 = addr(tt.v6)
			}
			got, err := Reach(h, peer, tt.family, "x")
			if err == nil && got.String() != tt.want || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestOpen(t *testing.T) {
	all := map[string]New{"b": nil, "a": nil}
	_, _, err := Open(all, subnet.Network{Backend: subnet.Backend{Type: "udp"}})
	if diff := cmp.Diff(`Backend.Type is "udp": choose one of a, b`, err.Error()); diff != "" {
		t.Error(diff)
	}
}
