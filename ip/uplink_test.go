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
			{Name: "eth1", AltNames: []string{"enp0s8", "ens8"}, Up: true, MTU: 9000, Addrs: addresses("192.168.7.3/24", "fd77::3/64")},
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
			Uplink{Link: "eth0", MTU: 1500, Addr: public("10.0.2.15", "fd00::15"), Public: public("10.0.2.15", "fd00::15")}, ""},
		{"by name", UplinkChoice{Interfaces: []string{"nope", "eth1"}}, v4,
			Uplink{Link: "eth1", MTU: 9000, Addr: public("192.168.7.3", ""), Public: public("192.168.7.3", "")}, ""},
		{"by another name", UplinkChoice{Interfaces: []string{"ens8"}}, v4,
			Uplink{Link: "eth1", MTU: 9000, Addr: public("192.168.7.3", ""), Public: public("192.168.7.3", "")}, ""},
		{"by address", UplinkChoice{Interfaces: []string{"192.168.7.3"}}, both,
			Uplink{Link: "eth1", MTU: 9000, Addr: public("192.168.7.3", "fd77::3"), Public: public("192.168.7.3", "fd77::3")}, ""},
		{"by pattern over addresses before names", UplinkChoice{Patterns: []*regexp.Regexp{regexp.MustCompile(`^192\.168\.7|eth0`)}}, v4,
			Uplink{Link: "eth1", MTU: 9000, Addr: public("192.168.7.3", ""), Public: public("192.168.7.3", "")}, ""},
		{"by reachability", UplinkChoice{CanReach: netip.MustParseAddr("192.168.7.9")}, v4,
			Uplink{Link: "eth1", MTU: 9000, Addr: public("192.168.7.3", ""), Public: public("192.168.7.3", "")}, ""},
		{"owner of the public address", UplinkChoice{Public: public("192.168.7.3", "")}, v4,
			Uplink{Link: "eth1", MTU: 9000, Addr: public("192.168.7.3", ""), Public: public("192.168.7.3", "")}, ""},
		{"public address of a NAT", UplinkChoice{Public: public("203.0.113.9", "")}, v4,
			Uplink{Link: "eth0", MTU: 1500, Addr: public("10.0.2.15", ""), Public: public("203.0.113.9", "")}, ""},
		{"named interface behind a NAT", UplinkChoice{Interfaces: []string{"eth1"}, Public: public("203.0.113.9", "")}, v4,
			Uplink{Link: "eth1", MTU: 9000, Addr: public("192.168.7.3", ""), Public: public("203.0.113.9", "")}, ""},
		{"down", UplinkChoice{Interfaces: []string{"eth2"}}, v4, Uplink{}, "eth2 is down"},
		{"missing", UplinkChoice{Interfaces: []string{"eth7"}}, v4, Uplink{}, "--iface eth7: no such interface on this host, Tulle's own aside: could be eth0, eth1"},
		{"unreachable", UplinkChoice{CanReach: netip.MustParseAddr("198.51.100.1")}, v4, Uplink{}, "--iface-can-reach 198.51.100.1"},
		{"no match", UplinkChoice{Patterns: []*regexp.Regexp{regexp.MustCompile("wlan")}}, v4, Uplink{}, "no interface matches and there is no default route: name the uplink with --iface: could be eth0, eth1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, lacking, err := tt.choice.Choose(lan(), tt.families)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want || lacking != nil {
				t.Errorf("got %+v without %v, want %+v", got, lacking, tt.want)
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
	for _, want := range []string{"fd00::1", "fd00::d", "fd00::7e", "fd00::dead"} {
		up, _, err := UplinkChoice{}.Choose(s, []Family{IPv6})
		if err != nil {
			t.Fatal(err)
		}
		if up.Addr.V6 != netip.MustParseAddr(want) {
			t.Fatalf("chose %v, want %s of %v", up.Addr.V6, want, s.Interfaces[1].Addrs)
		}
		for i, a := range s.Interfaces[1].Addrs {
			if a.Prefix.Addr() == up.Addr.V6 {
				s.Interfaces[1].Addrs[i].Unusable = true
			}
		}
	}
	// An interface that has come up has its link-local address first.
	for _, choice := range []UplinkChoice{{}, {Interfaces: []string{"fe80::1"}}, {Patterns: []*regexp.Regexp{regexp.MustCompile("^fe80")}}} {
		if up, _, err := choice.Choose(s, []Family{IPv6}); err == nil || !strings.Contains(err.Error(), "interface eth0 has no ipv6 address that other hosts reach") {
			t.Errorf("chose %v, %v, want no link-local address", up.Addr.V6, err)
		}
	}
}

// An established uplink is kept while it works, also without the addresses of one family, whatever comes to the host or goes.
func TestEstablishedUplink(t *testing.T) {
	both := []Family{IPv4, IPv6}
	established := Uplink{Link: "eth1", Addr: Dual[netip.Addr]{V4: netip.MustParseAddr("192.168.7.3"), V6: netip.MustParseAddr("fd77::3")}}
	unnamed := Uplink{Addr: established.Addr}
	eth1 := func(s *Snapshot) *Interface { return &s.Interfaces[2] }
	renumber := func(prefixes ...string) func(*Snapshot) {
		return func(s *Snapshot) { eth1(s).Addrs = addresses(prefixes...) }
	}
	for name, tt := range map[string]struct {
		established    Uplink
		change         func(*Snapshot)
		link, v4, lack string
		err            string
	}{
		"nothing":                  {established, func(*Snapshot) {}, "eth1", "192.168.7.3", "", ""},
		"nothing, without a name":  {unnamed, func(*Snapshot) {}, "eth1", "192.168.7.3", "", ""},
		"no default route":         {established, func(s *Snapshot) { s.Defaults = nil }, "eth1", "192.168.7.3", "", ""},
		"a virtual address, first": {established, renumber("192.168.7.99/32", "192.168.7.3/24", "fd77::3/64"), "eth1", "192.168.7.3", "", ""},
		"its lifetime is limited": {established, func(s *Snapshot) {
			eth1(s).Addrs[0].Dynamic, eth1(s).Addrs[1].Dynamic = true, true
			eth1(s).Addrs = append(addresses("192.168.7.99/24", "fd77::99/64"), eth1(s).Addrs...)
		}, "eth1", "192.168.7.3", "", ""},
		"one address is another":      {established, renumber("192.168.7.4/24", "fd77::3/64"), "eth1", "192.168.7.4", "", ""},
		"one address, without a name": {unnamed, renumber("192.168.7.4/24", "fd77::3/64"), "eth1", "192.168.7.4", "", ""},
		"all are others":              {established, renumber("192.168.7.4/24", "fd77::4/64"), "eth1", "192.168.7.4", "", ""},
		"all, without a name":         {unnamed, renumber("192.168.7.4/24", "fd77::4/64"), "eth0", "10.0.2.15", "", ""},
		"a family is gone":            {established, renumber("fd77::3/64"), "eth1", "192.168.7.3", "ipv4", ""},
		"a family, without a name":    {unnamed, renumber("192.168.7.3/24"), "eth1", "192.168.7.3", "ipv6", ""},
		"both families are gone":      {established, renumber("fe80::3/64"), "eth0", "10.0.2.15", "", ""},
		"the link is down":            {established, func(s *Snapshot) { eth1(s).Up = false }, "eth0", "10.0.2.15", "", ""},
		"the names have changed": {established, func(s *Snapshot) {
			s.Interfaces[1].Name, s.Interfaces[2].Name = "eth1", "eth0"
		}, "eth0", "192.168.7.3", "", ""},
		"several links have the address": {established, func(s *Snapshot) {
			s.Interfaces[1].Addrs = eth1(s).Addrs
		}, "eth1", "192.168.7.3", "", ""},
		"another link has the address too, and is down": {unnamed, func(s *Snapshot) {
			s.Interfaces = append([]Interface{{Name: "eth7", MTU: 1500, Addrs: eth1(s).Addrs}}, s.Interfaces...)
		}, "eth1", "192.168.7.3", "", ""},
		"the loopback interface has the address too": {unnamed, func(s *Snapshot) {
			s.Interfaces[0].Addrs = append(s.Interfaces[0].Addrs, addresses("192.168.7.3/32", "fd77::3/128")...)
		}, "eth1", "192.168.7.3", "", ""},
		"all is gone": {established, func(s *Snapshot) { s.Interfaces, s.Defaults = s.Interfaces[:1], nil }, "", "", "", "no interface matches and there is no default route"},
	} {
		t.Run(name, func(t *testing.T) {
			s := lan()
			tt.change(&s)
			up, lacking, err := UplinkChoice{Established: tt.established, Current: tt.established}.Choose(s, both)
			var lack string
			if len(lacking) > 0 {
				lack = lacking[0].String()
			}
			switch {
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("error %v, want %s", err, tt.err)
			case tt.err == "" && (err != nil || up.Link != tt.link || up.Addr.V4 != netip.MustParseAddr(tt.v4) || lack != tt.lack):
				t.Errorf("chose %+v without %q, %v, want %s by %s without %q", up, lack, err, tt.v4, tt.link, tt.lack)
			}
		})
	}
	// What the operator says comes first.
	for _, choice := range []UplinkChoice{{Interfaces: []string{"eth0"}}, {Public: Dual[netip.Addr]{V4: netip.MustParseAddr("10.0.2.15")}}} {
		choice.Established = established
		if up, _, err := choice.Choose(lan(), both); err != nil || up.Link != "eth0" {
			t.Errorf("%+v: chose %+v, %v, want eth0", choice, up, err)
		}
	}
}

// Of an interface, what is used so far is taken before what comes besides, but for what is no address to stay with.
func TestUplinkAddressIsKept(t *testing.T) {
	own := func(dynamic bool, prefixes ...string) []InterfaceAddr {
		as := addresses(prefixes...)
		for i := range as {
			as[i].Dynamic = dynamic
		}
		return as
	}
	temporary := own(true, "fd00::7e/64", "fd00::d/64")
	temporary[0].Temporary = true
	local := addresses("10.9.9.9/24", "10.0.2.15/24")
	local[0].Unusable = true
	preferred := addresses("10.0.2.14/24", "10.0.2.15/32", "10.0.2.16/24")
	preferred[1].Preferred = true
	for name, tt := range map[string]struct {
		addrs      []InterfaceAddr
		used, want string
	}{
		"one for this host alone, first":    {local, "", "10.0.2.15"},
		"one for this host alone, in use":   {local, "10.9.9.9", "10.0.2.15"},
		"the source of a default route":     {preferred, "", "10.0.2.15"},
		"the same, another in use":          {preferred, "10.0.2.16", "10.0.2.16"},
		"a virtual one, at first":           {append(addresses("10.0.2.99/32"), own(true, "10.0.2.15/24")...), "", "10.0.2.15"},
		"a virtual one in use":              {append(addresses("10.0.2.99/32"), own(true, "10.0.2.15/24")...), "10.0.2.99", "10.0.2.99"},
		"a virtual one alone":               {addresses("10.0.2.99/32"), "", "10.0.2.99"},
		"a permanent one comes":             {append(addresses("10.0.2.99/24"), own(true, "10.0.2.15/24")...), "10.0.2.15", "10.0.2.15"},
		"link-local in use, DHCP was late":  {append(addresses("169.254.7.7/16"), own(true, "10.0.2.15/24")...), "169.254.7.7", "10.0.2.15"},
		"temporary in use, SLAAC was late":  {temporary, "fd00::7e", "fd00::d"},
		"IPv6 with a full prefix, at first": {append(own(true, "fd00::5/64"), addresses("fd00::d1c/128")...), "", "fd00::d1c"},
	} {
		s := lan()
		s.Interfaces[1].Addrs = tt.addrs
		want := netip.MustParseAddr(tt.want)
		for _, choice := range []UplinkChoice{{}, {Interfaces: []string{"eth0"}}} {
			if tt.used != "" {
				choice.Current.Addr.Set(FamilyOf(want), netip.MustParseAddr(tt.used))
			}
			if up, _, err := choice.Choose(s, []Family{FamilyOf(want)}); err != nil || up.Addr.Of(FamilyOf(want)) != want {
				t.Errorf("%s: chose %+v, %v, want %s", name, up.Addr, err, want)
			}
		}
	}
}

// Linux lists the newest IPv6 address first. One that is added, as a virtual address is, must not become the uplink's.
func TestUplinkKeepsItsAddress(t *testing.T) {
	snap := lan()
	snap.Interfaces[1].Addrs = addresses("10.0.2.15/24", "fd00::99/128", "fd00::15/64", "fe80::1/64")
	for _, tt := range []struct{ name, keep, want string }{
		{"nothing to keep", "", "fd00::99"},
		{"the one in use", "fd00::15", "fd00::15"},
		{"a virtual one in use", "fd00::99", "fd00::99"},
		{"gone", "fd00::7", "fd00::99"},
		{"of the link alone", "fe80::1", "fd00::99"},
	} {
		for _, choice := range []UplinkChoice{{}, {Patterns: []*regexp.Regexp{regexp.MustCompile("^fd00:")}}} {
			if tt.keep != "" {
				choice.Current.Addr.V6 = netip.MustParseAddr(tt.keep)
			}
			up, _, err := choice.Choose(snap, []Family{IPv6})
			if err != nil || up.Addr.V6 != netip.MustParseAddr(tt.want) {
				t.Errorf("%s: %v, %v, want %s", tt.name, up.Addr.V6, err, tt.want)
			}
		}
	}
}
