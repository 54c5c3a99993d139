package ip

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

func addresses(prefixes ...string) []InterfaceAddr {
	var as []InterfaceAddr
	for _, p := range prefixes {
		as = append(as, InterfaceAddr{Prefix: netip.MustParsePrefix(p)})
	}
	return as
}

// lan is a host with a NAT interface first, as Vagrant makes it, and a LAN interface second.
func lan() Snapshot {
	return Snapshot{
		Interfaces: []Interface{
			{Name: "lo", Up: true, Loopback: true, MTU: 65536, Addrs: addresses("127.0.0.1/8", "::1/128")},
			{Name: "eth0", Up: true, MTU: 1500, Addrs: addresses("10.0.2.15/24", "fe80::1/64", "fd00::15/64")},
			{Name: "eth1", Up: true, MTU: 9000, Addrs: addresses("192.168.7.3/24", "fd77::3/64")},
			{Name: "eth2", MTU: 1500, Addrs: addresses("192.168.8.3/24")},
		},
		Defaults: []Route{
			{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.0.2.2"), Link: "eth0"},
			{Dst: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("fe80::2"), Link: "eth0"},
		},
		Paths: map[netip.Addr]Path{
			netip.MustParseAddr("192.168.7.9"): {Link: "eth1", Source: netip.MustParseAddr("192.168.7.3")},
		},
	}
}

func TestChooseUplink(t *testing.T) {
	v4, both := []Family{IPv4}, []Family{IPv4, IPv6}
	public := func(v4, v6 string) (d Dual[netip.Addr]) {
		if v4 != "" {
			d.V4 = netip.MustParseAddr(v4)
		}
		if v6 != "" {
			d.V6 = netip.MustParseAddr(v6)
		}
		return d
	}
	tests := []struct {
		name     string
		choice   UplinkChoice
		families []Family
		want     Uplink
		err      string
	}{
		{"default route", UplinkChoice{}, both,
			Uplink{"eth0", 1500, public("10.0.2.15", "fd00::15"), public("10.0.2.15", "fd00::15")}, ""},
		{"by name", UplinkChoice{Interfaces: []string{"nope", "eth1"}}, v4,
			Uplink{"eth1", 9000, public("192.168.7.3", ""), public("192.168.7.3", "")}, ""},
		{"by address", UplinkChoice{Interfaces: []string{"192.168.7.3"}}, both,
			Uplink{"eth1", 9000, public("192.168.7.3", "fd77::3"), public("192.168.7.3", "fd77::3")}, ""},
		{"by pattern over addresses before names", UplinkChoice{Patterns: []*regexp.Regexp{regexp.MustCompile(`^192\.168\.7|eth0`)}}, v4,
			Uplink{"eth1", 9000, public("192.168.7.3", ""), public("192.168.7.3", "")}, ""},
		{"by reachability", UplinkChoice{CanReach: netip.MustParseAddr("192.168.7.9")}, v4,
			Uplink{"eth1", 9000, public("192.168.7.3", ""), public("192.168.7.3", "")}, ""},
		{"owner of the public address", UplinkChoice{Public: public("192.168.7.3", "")}, v4,
			Uplink{"eth1", 9000, public("192.168.7.3", ""), public("192.168.7.3", "")}, ""},
		{"public address of a NAT", UplinkChoice{Public: public("203.0.113.9", "")}, v4,
			Uplink{"eth0", 1500, public("10.0.2.15", ""), public("203.0.113.9", "")}, ""},
		{"named interface behind a NAT", UplinkChoice{Interfaces: []string{"eth1"}, Public: public("203.0.113.9", "")}, v4,
			Uplink{"eth1", 9000, public("192.168.7.3", ""), public("203.0.113.9", "")}, ""},
		{"down", UplinkChoice{Interfaces: []string{"eth2"}}, v4, Uplink{}, "eth2 is down"},
		{"missing", UplinkChoice{Interfaces: []string{"eth7"}}, v4, Uplink{}, "--iface eth7: no such interface"},
		{"unreachable", UplinkChoice{CanReach: netip.MustParseAddr("198.51.100.1")}, v4, Uplink{}, "--iface-can-reach 198.51.100.1"},
		{"no match", UplinkChoice{Patterns: []*regexp.Regexp{regexp.MustCompile("wlan")}}, v4, Uplink{}, "no interface matches"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.choice.Choose(lan(), tt.families)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestUplinkAddressPreference(t *testing.T) {
	s := lan()
	s.Interfaces[1].Addrs = []InterfaceAddr{
		{Prefix: netip.MustParsePrefix("fe80::1/64")},
		{Prefix: netip.MustParsePrefix("fd00::dead/64"), Deprecated: true},
		{Prefix: netip.MustParsePrefix("fd00::7e/64"), Temporary: true, Dynamic: true},
		{Prefix: netip.MustParsePrefix("fd00::d/64"), Dynamic: true},
		{Prefix: netip.MustParsePrefix("fd00::1/64")},
	}
	for _, want := range []string{"fd00::1", "fd00::d", "fd00::7e"} {
		up, err := UplinkChoice{}.Choose(s, []Family{IPv6})
		if err != nil {
			t.Fatal(err)
		}
		if up.Addr.V6 != netip.MustParseAddr(want) {
			t.Fatalf("chose %v, want %s of %v", up.Addr.V6, want, s.Interfaces[1].Addrs)
		}
		for i, a := range s.Interfaces[1].Addrs {
			if a.Prefix.Addr() == up.Addr.V6 {
				s.Interfaces[1].Addrs[i].Deprecated = true
			}
		}
	}
	// An interface that has come up has its link-local address first.
	for _, choice := range []UplinkChoice{{}, {Interfaces: []string{"fe80::1"}}, {Patterns: []*regexp.Regexp{regexp.MustCompile("^fe80")}}} {
		if up, err := choice.Choose(s, []Family{IPv6}); err == nil || !strings.Contains(err.Error(), "interface eth0 has no ipv6 address that other hosts reach") {
			t.Errorf("chose %v, %v, want no link-local address", up.Addr.V6, err)
		}
	}
}

// What is in use is kept while it works, whatever comes to the host or goes.
func TestUplinkInUse(t *testing.T) {
	both := []Family{IPv4, IPv6}
	use := Dual[netip.Addr]{V4: netip.MustParseAddr("192.168.7.3"), V6: netip.MustParseAddr("fd77::3")}
	eth1 := func(s *Snapshot) *Interface { return &s.Interfaces[2] }
	for name, tt := range map[string]struct {
		change func(*Snapshot)
		want   string // link, or what the error says
		v4     string
	}{
		"nothing":                  {func(*Snapshot) {}, "eth1", "192.168.7.3"},
		"no default route":         {func(s *Snapshot) { s.Defaults = nil }, "eth1", "192.168.7.3"},
		"a virtual address, first": {func(s *Snapshot) { eth1(s).Addrs = append(addresses("192.168.7.99/32"), eth1(s).Addrs...) }, "eth1", "192.168.7.3"},
		"its lifetime is limited": {func(s *Snapshot) {
			eth1(s).Addrs[0].Dynamic, eth1(s).Addrs[1].Dynamic = true, true
			eth1(s).Addrs = append(addresses("192.168.7.99/24", "fd77::99/64"), eth1(s).Addrs...)
		}, "eth1", "192.168.7.3"},
		"it is gone":       {func(s *Snapshot) { eth1(s).Addrs = eth1(s).Addrs[1:] }, "eth0", "10.0.2.15"},
		"it is deprecated": {func(s *Snapshot) { eth1(s).Addrs[1].Deprecated = true }, "eth0", "10.0.2.15"},
		"the link is down": {func(s *Snapshot) { eth1(s).Up = false }, "eth0", "10.0.2.15"},
		"it moves to another link": {func(s *Snapshot) {
			s.Interfaces[1].Addrs, eth1(s).Addrs = append(s.Interfaces[1].Addrs, eth1(s).Addrs...), nil
		}, "eth0", "192.168.7.3"},
		"all is gone": {func(s *Snapshot) { eth1(s).Addrs, s.Defaults = nil, nil }, "no interface matches and there is no default route", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := lan()
			tt.change(&s)
			up, err := UplinkChoice{Current: use}.Choose(s, both)
			if err != nil && strings.Contains(err.Error(), tt.want) {
				return
			}
			if err != nil || up.Link != tt.want || up.Addr.V4 != netip.MustParseAddr(tt.v4) {
				t.Errorf("chose %+v, %v, want %s", up, err, tt.want)
			}
		})
	}
	// What the operator says comes first.
	for _, choice := range []UplinkChoice{{Interfaces: []string{"eth0"}}, {Public: Dual[netip.Addr]{V4: netip.MustParseAddr("10.0.2.15")}}} {
		choice.Current = use
		if up, err := choice.Choose(lan(), both); err != nil || up.Link != "eth0" {
			t.Errorf("%+v: chose %+v, %v, want eth0", choice, up, err)
		}
	}
}

// A host that has nothing in use yet takes its own address before a virtual one.
func TestVirtualAddressIsTakenLast(t *testing.T) {
	s := lan()
	own := addresses("10.0.2.15/24", "fd00::15/64")
	own[0].Dynamic, own[1].Dynamic = true, true
	s.Interfaces[1].Addrs = append(addresses("10.0.2.99/32", "fd00::99/128"), own...)
	if up, err := (UplinkChoice{}).Choose(s, []Family{IPv4, IPv6}); err != nil || up.Addr.V4 != own[0].Prefix.Addr() || up.Addr.V6 != own[1].Prefix.Addr() {
		t.Errorf("chose %+v, %v", up, err)
	}
	s.Interfaces[1].Addrs = addresses("10.0.2.99/32", "fd00::99/128") // as clouds give them
	if up, err := (UplinkChoice{}).Choose(s, []Family{IPv4, IPv6}); err != nil || up.Addr.V4 != netip.MustParseAddr("10.0.2.99") {
		t.Errorf("chose %+v, %v", up, err)
	}
}

// Linux lists the newest IPv6 address first. One that is added, as a virtual address is, must not become the uplink's.
func TestUplinkKeepsItsAddress(t *testing.T) {
	snap := lan()
	snap.Interfaces[1].Addrs = addresses("10.0.2.15/24", "fd00::99/128", "fd00::15/64", "fe80::1/64")
	for _, tt := range []struct{ name, keep, want string }{
		{"nothing to keep", "", "fd00::15"},
		{"the one in use", "fd00::15", "fd00::15"},
		{"a virtual one in use", "fd00::99", "fd00::99"},
		{"gone", "fd00::7", "fd00::15"},
		{"of the link alone", "fe80::1", "fd00::15"},
	} {
		for _, choice := range []UplinkChoice{{}, {Patterns: []*regexp.Regexp{regexp.MustCompile("^fd00:")}}} {
			if tt.keep != "" {
				choice.Current.V6 = netip.MustParseAddr(tt.keep)
			}
			up, err := choice.Choose(snap, []Family{IPv6})
			if err != nil || up.Addr.V6 != netip.MustParseAddr(tt.want) {
				t.Errorf("%s: %v, %v, want %s", tt.name, up.Addr.V6, err, tt.want)
			}
		}
	}
}
