package doctor

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"tulle/internal/trouble"
)

// soundPair are two hosts between which all is well.
func soundPair() Case {
	one := func(node, public, mac string) Facts {
		addr := netip.MustParseAddr(public)
		return Facts{
			Node: node, Clock: time.Unix(1e9, 0), Daemon: Daemon{Running: true},
			Status: &Status{Ready: true, Version: "1", Probes: true, Networks: []Network{{Backend: "vxlan"}}, Uplink: &Uplink{Link: "eth0", Addrs: []netip.Addr{addr}, Public: []netip.Addr{addr}}},
			Links: []Link{
				{Name: "eth0", Role: RoleUplink, Up: true, MAC: mac, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 24)}},
				{Name: "flannel-v6.1", Role: RoleTunnel, Kind: "vxlan", Up: true, VNI: 1, UDPPort: 8472},
				{Name: "flannel.1", Role: RoleTunnel, Kind: "vxlan", Up: true, VNI: 1, UDPPort: 8472},
			},
		}
	}
	a, b := one("h1", "192.0.2.1", "02::1"), one("h2", "192.0.2.2", "02::2")
	toward := func(other Facts) *Toward {
		up := other.Status.Uplink
		return &Toward{
			Node: other.Node, Public: up.Public, Underlay: &Route{Link: "eth0"}, Next: &Neighbor{Addr: up.Public[0], MAC: other.Links[0].MAC, State: "REACHABLE", Link: "eth0"},
			Station: &Station{MAC: "02::9", Dst: up.Public[0]}, Ways: []Way{{Family: "ipv4", Way: "underlay", State: "well"}, {Family: "ipv4", Way: "fabric", State: "well"}},
		}
	}
	a.Toward, b.Toward = toward(b), toward(a)
	return Case{Here: a, There: &b, Lease: "L1", Peer: &Peer{Member: Member{Node: "h2", Lease: "L2"}}}
}

func TestPair(t *testing.T) {
	silence := func(c *Case, state string) {
		c.There, c.Peer.Silent = nil, true
		c.Here.Toward.Next.State = state
	}
	ways := func(f *Facts, under, over string) { f.Toward.Ways[0].State, f.Toward.Ways[1].State = under, over }
	tell := func(f *Facts, code trouble.Code, subject string) {
		f.Status.Troubles = append(f.Status.Troubles, trouble.New(code, subject, "text"))
	}
	type found struct {
		code trouble.Code
		host string
	}
	for name, test := range map[string]struct {
		spoil func(*Case)
		want  []found
	}{
		"all is well":                        {func(*Case) {}, nil},
		"tulled is stopped":                  {func(c *Case) { silence(c, "REACHABLE") }, []found{{trouble.PeerStopped, "h2"}}},
		"tulled is stopped, as far as known": {func(c *Case) { silence(c, "STALE") }, []found{{trouble.PeerStopped, "h2"}}},
		"the machine is off":                 {func(c *Case) { silence(c, "FAILED") }, []found{{trouble.PeerGone, "h2"}}},
		"the gateway is off":                 {func(c *Case) { silence(c, "FAILED"); c.Here.Toward.Underlay.Via = netip.MustParseAddr("192.0.2.254") }, []found{{trouble.PeerStopped, "h2"}}},
		"it does not answer, and lives":      {func(c *Case) { c.There = nil }, nil},
		"VNI":                                {func(c *Case) { c.There.Links[2].VNI = 2; tell(c.There, trouble.ConfigPending, "") }, []found{{trouble.BackendDiffers, "h2"}}},
		"VNI, the other one is late":         {func(c *Case) { c.There.Links[2].VNI = 2; tell(&c.Here, trouble.ConfigPending, "") }, []found{{trouble.BackendDiffers, "h1"}}},
		"port":                               {func(c *Case) { c.Here.Links[2].UDPPort = 4789 }, []found{{trouble.BackendDiffers, "h2"}}},
		"backend":                            {func(c *Case) { c.Here.Status.Networks[0].Backend = "host-gw" }, []found{{trouble.BackendDiffers, "h2"}}},
		"announced address": {func(c *Case) {
			c.Here.Toward.Public = []netip.Addr{netip.MustParseAddr("192.0.2.9")}
			ways(&c.Here, "unreachable", "unreachable")
			ways(c.There, "unreachable", "unreachable")
		}, []found{{trouble.UplinkMisannounced, "h2"}}},
		"a NAT that works": {func(c *Case) { c.Here.Toward.Public = []netip.Addr{netip.MustParseAddr("192.0.2.9")} }, nil},
		"neighbour":        {func(c *Case) { c.There.Toward.Next.MAC = "02::7" }, []found{{trouble.NeighborWrong, "h2"}}},
		"station":          {func(c *Case) { c.Here.Toward.Station.Dst = netip.MustParseAddr("192.0.2.9") }, []found{{trouble.TunnelStray, "h1"}}},
		"cut": {func(c *Case) {
			ways(&c.Here, "unreachable", "unreachable")
			ways(c.There, "unreachable", "unreachable")
			tell(&c.Here, trouble.PeerUnreachable, "L2")
		}, []found{{trouble.PathCut, "h1"}}},
		"tunnel filtered": {func(c *Case) {
			ways(&c.Here, "well", "unreachable")
			ways(c.There, "well", "unreachable")
			tell(c.There, trouble.PeerUnreachable, "L1")
		}, []found{{trouble.PathFiltered, "h1"}}},
		"refused by the kernel there": {func(c *Case) {
			ways(&c.Here, "well", "unreachable")
			ways(c.There, "well", "unreachable")
			for i := range c.There.Toward.Ways {
				c.There.Toward.Ways[i].Reason = "operation not permitted"
			}
		}, []found{{trouble.PathFiltered, "h2"}}},
		"tunnel filtered there": {func(c *Case) { ways(&c.Here, "well", "unreachable"); tell(c.There, trouble.TunnelBlocked, "") }, []found{{trouble.TunnelBlocked, "h2"}}},
		"heard one way":         {func(c *Case) { ways(&c.Here, "unreachable", "well") }, []found{{trouble.PathFiltered, "h2"}}},
		"another peer":          {func(c *Case) { tell(&c.Here, trouble.PeerUnreachable, "L3"); tell(c.There, trouble.PeerNarrow, "L3") }, nil},
		"clock":                 {func(c *Case) { c.There.Clock = c.There.Clock.Add(-2 * time.Minute) }, []found{{trouble.ClockApart, "h2"}}},
	} {
		c := soundPair()
		test.spoil(&c)
		var got []found
		for _, f := range Diagnose(c).Findings {
			got = append(got, found{f.Code, f.Host})
			if len(f.Fix) == 0 && f.Remedy == "" {
				t.Errorf("%s: %s says not what to do", name, f.Code)
			}
		}
		// An earlier configuration is what the difference comes of.
		got = slices.DeleteFunc(got, func(f found) bool { return f.code == trouble.ConfigPending })
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: found %v, want %v", name, got, test.want)
		}
	}
	c := soundPair()
	c.There.Status.Version = "2"
	if r := Diagnose(c); !r.Healthy() || len(r.Advice) != 1 || r.Advice[0].Code != trouble.VersionDiffers {
		t.Errorf("another version: %+v", r)
	}
}
