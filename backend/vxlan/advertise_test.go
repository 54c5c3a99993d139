package vxlan

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

// announcing is a lease of host n, made at a revision, that announces a MAC.
func announcing(n int, created subnet.Revision, mac ip.MAC) *subnet.Lease {
	l := &subnet.Lease{Created: created}
	l.Subnets.V4 = netip.MustParsePrefix(fmt.Sprintf("10.5.%d.0/24", n))
	l.Attrs.BackendType = Name
	l.Attrs.Public.V4 = host(n).Uplink.Addr.V4
	l.Attrs.BackendData.V4 = fmt.Appendf(nil, `{"VNI":1,"VtepMAC":"%s"}`, mac)
	return l
}

func macOf(t *testing.T, attrs subnet.Attrs) ip.MAC {
	t.Helper()
	mac, err := vtep(attrs.BackendData.V4)
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// A host gives way with its MAC where newcomers would take it for another's, and else never.
func TestMACGivesWay(t *testing.T) {
	b := open(t, network(t, `{}`, ip.IPv4))
	first, err := b.Advertise(host(1), subnet.Attrs{})
	if err != nil {
		t.Fatal(err)
	}
	mac := macOf(t, first)
	mine := announcing(1, 10, mac)
	older, younger := announcing(66, 5, mac), announcing(66, 15, mac)
	gone := announcing(66, 5, mac)
	gone.HeldBack = true
	alloc := announcing(66, 5, mac)
	alloc.Attrs.BackendType = "alloc"
	same := announcing(66, 5, mac)
	same.Attrs.Public = mine.Attrs.Public
	left := announcing(66, 5, mac)
	left.Attrs.Node, left.Attrs.Instance = "h1", "run"
	mine.Attrs.Node, mine.Attrs.Instance = "h1", "run"
	upper := announcing(66, 5, mac)
	upper.Attrs.BackendData.V4 = fmt.Appendf(nil, `{ "VtepMAC": %q }`, strings.ToUpper(mac.String()))
	outside, wide := announcing(66, 5, mac), announcing(66, 5, mac)
	outside.Subnets.V4 = netip.MustParsePrefix("10.99.1.0/24")
	wide.Subnets.V4 = netip.MustParsePrefix("10.5.64.0/20")
	for name, tt := range map[string]struct {
		self  *subnet.Lease
		other *subnet.Lease
		gives bool
	}{
		"an older lease":              {mine, older, true},
		"written in another way":      {mine, upper, true},
		"a younger one":               {mine, younger, false},
		"a younger one, before a own": {nil, younger, true},
		"one that is held back":       {mine, gone, false},
		"one of another backend":      {mine, alloc, false},
		"one of the same host":        {mine, same, false},
		"one that the host has left":  {mine, left, false},
		"one outside the network":     {mine, outside, false},
		"one larger than a subnet":    {mine, wide, false},
	} {
		h := host(1)
		h.Leases, h.Self = []*subnet.Lease{tt.other}, tt.self
		if tt.self != nil {
			h.Leases = append(h.Leases, tt.self)
		}
		attrs, err := b.Advertise(h, first)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := macOf(t, attrs); (got != mac) != tt.gives {
			t.Errorf("%s: announces %s after %s", name, got, mac)
		}
	}
}

// Somebody who follows with an older lease makes a host change its MAC a few times, not for ever; then the host says so.
func TestMACGivesWayOnlySoOften(t *testing.T) {
	b := open(t, network(t, `{}`, ip.IPv4))
	attrs, err := b.Advertise(host(1), subnet.Attrs{})
	seen := map[ip.MAC]bool{}
	for range 2 * mostMACs {
		mac := macOf(t, attrs)
		if errors.Is(err, backend.ErrOutranked) {
			break
		}
		if err != nil || seen[mac] {
			t.Fatalf("announces %s again, %v", mac, err)
		}
		seen[mac] = true
		h := host(1)
		h.Self = announcing(1, 10, mac)
		h.Leases = []*subnet.Lease{h.Self, announcing(66, 5, mac)}
		attrs, err = b.Advertise(h, attrs)
	}
	if len(seen) != mostMACs || !errors.Is(err, backend.ErrOutranked) {
		t.Fatalf("%d MACs, then %v, want %d and that there is no other", len(seen), err, mostMACs)
	}
	for _, want := range []string{"172.30.0.66", "tulle leases release '10.5.66.0-24'"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	// What others announce is not taken, whatever their age.
	all := host(1)
	all.Self = announcing(1, 10, v4MAC(b, 0))
	all.Leases = []*subnet.Lease{all.Self, announcing(66, 5, v4MAC(b, 0)), announcing(67, 99, v4MAC(b, 1)), announcing(68, 98, v4MAC(b, 2))}
	attrs, err = b.Advertise(all, all.Self.Attrs)
	if got := macOf(t, attrs); err != nil || got != v4MAC(b, 3) {
		t.Errorf("announces %s, %v, want %s, which is free", got, err, v4MAC(b, 3))
	}
}

func v4MAC(b backend.Backend, n int) ip.MAC { return b.(*VXLAN).derivedMAC(ip.IPv4, host(1), n) }
