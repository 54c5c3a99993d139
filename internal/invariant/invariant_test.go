package invariant

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func subnets(s string) subnet.Subnets { return subnet.Subnets{V4: prefix(s)} }

// overlay is a host that reaches one peer, 10.5.2.0/24 at 172.30.0.2.
func overlay() ip.State {
	mac := ip.MAC{2, 0, 0, 0, 0, 2}
	return ip.State{
		Links:     []ip.Link{{Name: "flannel.1", Up: true, MAC: ip.MAC{2, 0, 0, 0, 0, 1}, Kind: ip.VXLAN{VNI: 1, Port: 8472, Local: addr("172.30.0.1")}}},
		FDB:       []ip.FDB{{Link: "flannel.1", MAC: mac, Dst: addr("172.30.0.2")}},
		Neighbors: []ip.Neighbor{{Link: "flannel.1", IP: addr("10.5.2.0"), MAC: mac}},
		Routes:    []ip.Route{{Dst: prefix("10.5.2.0/24"), Via: addr("10.5.2.0"), Link: "flannel.1", Protocol: ip.Protocol, OnLink: true}},
	}
}

// ipip is the same over IPIP.
func ipip() ip.State {
	return ip.State{
		Guards: []ip.Guard{{Family: ip.IPv4, IPIP: true, Peers: []ip.Peer{{Addr: addr("172.30.0.2")}}}},
		Links:  []ip.Link{{Name: "flannel.ipip", Up: true, Kind: ip.IPIP{Local: addr("172.30.0.1")}}},
		Routes: []ip.Route{{Dst: prefix("10.5.2.0/24"), Via: addr("172.30.0.2"), Link: "flannel.ipip", Protocol: ip.Protocol, OnLink: true}},
	}
}

func scope() ip.Scope {
	return ip.Scope{Links: []string{"flannel.1"}, Networks: []netip.Prefix{prefix("10.5.0.0/16")}}
}

func TestViolations(t *testing.T) {
	peer := Peer{Name: "h2", Subnets: subnets("10.5.2.0/24"), Public: ip.Dual[netip.Addr]{V4: addr("172.30.0.2")}, MAC: ip.Dual[ip.MAC]{V4: ip.MAC{2, 0, 0, 0, 0, 2}}}
	network, _, err := flannel.ParseNetwork([]byte(`{"Network":"10.5.0.0/16"}`), 1)
	if err != nil {
		t.Fatal(err)
	}
	del := func(o ip.Object) ip.Plan { return ip.Plan{{Verb: ip.Delete, Old: o}} }
	route := overlay().Routes[0]
	moved := route
	moved.Link, moved.Via = "eth0", addr("172.30.0.2")
	foreign := ip.Route{Dst: prefix("10.5.9.0/24"), Via: addr("192.0.2.1"), Link: "eth1", Protocol: 4}
	without := func(cut func(*ip.State)) ip.State {
		s := overlay()
		cut(&s)
		return s
	}
	guarded := func(peers ...string) ip.State {
		g := ip.Guard{Family: ip.IPv4, VNI: 1, Port: 8472}
		for _, p := range peers {
			var peer ip.Peer
			if err := peer.UnmarshalText([]byte(p)); err != nil {
				t.Fatal(err)
			}
			if g.Peers = append(g.Peers, peer); peer.Subnet.IsValid() {
				g.Bits = peer.Subnet.Bits()
			}
		}
		return without(func(s *ip.State) { s.Guards = []ip.Guard{g} })
	}
	lease := func(s, public string) *subnet.Lease {
		return &subnet.Lease{Subnets: subnets(s), Attrs: subnet.Attrs{Public: ip.Dual[netip.Addr]{V4: addr(public)}}}
	}
	leases := []*subnet.Lease{lease("10.5.2.0/24", "172.30.0.2"), lease("10.5.3.0/24", "172.30.0.3")}
	there := ipip()
	there.Links[0].Kind = ip.IPIP{Local: addr("172.30.0.2")}
	there.Guards[0].Peers[0].Addr = addr("172.30.0.1")
	unreachable := ipip()
	unreachable.Links = there.Links
	reached := Host{Name: "h2", Subnets: subnets("10.5.2.0/24"), Uplink: ip.Uplink{Addr: peer.Public}}
	withState := func(s ip.State) Host {
		h := reached
		h.State = s
		return h
	}
	elsewhere := guarded("172.30.0.2")
	elsewhere.Guards[0].Port++
	around := guarded("172.30.0.2", "172.30.0.3")
	around.Routes = append(around.Routes, ip.Route{Dst: prefix("10.5.3.0/24"), Via: addr("172.30.0.3"), Link: "eth0", Protocol: ip.Protocol})
	unseen := []ip.Part{{Scope: scope()}}
	for name, tt := range map[string]struct {
		got  []Violation
		want string // empty: none
	}{
		"two owners":                 {Apart([]Owner{{"h1", subnets("10.5.1.0/24")}, {"h2", subnets("10.5.1.128/25")}}), OneOwner},
		"two subnets":                {Apart([]Owner{{"h1", subnets("10.5.1.0/24")}, {"h2", subnets("10.5.2.0/24")}}), ""},
		"a wide lease is used":       {Usable(network, subnets("10.5.1.0/24"), []*subnet.Lease{{Subnets: subnets("10.5.128.0/17")}}), UsableOnly},
		"a lease from outside":       {Usable(network, subnets("10.5.1.0/24"), []*subnet.Lease{{Subnets: subnets("10.6.1.0/24")}}), UsableOnly},
		"one in another":             {Usable(network, subnet.Subnets{}, []*subnet.Lease{{Subnets: subnets("10.5.3.0/24")}, {Subnets: subnets("10.5.3.128/25")}}), UsableOnly},
		"my own is used":             {Usable(network, subnets("10.5.1.0/24"), []*subnet.Lease{{Subnets: subnets("10.5.1.0/25")}}), OneOwner},
		"good leases":                {Usable(network, subnets("10.5.1.0/24"), []*subnet.Lease{{Subnets: subnets("10.5.2.0/24")}, {Subnets: subnets("10.5.3.0/24")}}), ""},
		"a foreign route":            {Owned(del(foreign), scope()), OwnedOnly},
		"a foreign link":             {Owned(ip.Plan{{Verb: ip.Replace, New: ip.Link{Name: "eth0"}, Old: ip.Link{Name: "eth0", Up: true}}}, scope()), OwnedOnly},
		"what is owned":              {Owned(ip.Diff(overlay(), ip.State{}), scope()), ""},
		"pruned before a view":       {Seen(del(route), unseen), SeenFirst},
		"all gone before a view":     {Seen(ip.Diff(overlay(), ip.State{}), unseen), SeenFirst},
		"a guard goes before a view": {Seen(del(ip.Guard{Net: "red"}), []ip.Part{{Net: "red"}}), SeenFirst},
		"the guard of another goes":  {Seen(del(ip.Guard{Net: "red"}), unseen), ""},
		"pruned after a view":        {Seen(del(route), nil), ""},
		"pruned of another network":  {Seen(del(route), []ip.Part{{Net: "red", Scope: ip.Scope{Links: []string{"flannel.6"}, Networks: []netip.Prefix{prefix("10.6.0.0/16")}}}}), ""},
		"made before a view":         {Seen(ip.Diff(ip.State{}, overlay()), unseen), ""},
		"a route of a peer goes":     {Kept(del(route), []Peer{peer}), KeptPeers},
		"a neighbour goes":           {Kept(del(overlay().Neighbors[0]), []Peer{peer}), KeptPeers},
		"an entry goes":              {Kept(del(overlay().FDB[0]), []Peer{peer}), KeptPeers},
		"a route moves":              {Kept(append(ip.Plan{{Verb: ip.Add, New: moved}}, del(route)...), []Peer{peer}), ""},
		"a route of nobody goes":     {Kept(del(route), nil), ""},
		"a path is whole":            {Whole(overlay()), ""},
		"a path lacks a neighbour":   {Whole(without(func(s *ip.State) { s.Neighbors = nil })), WholePaths},
		"a path lacks an entry":      {Whole(without(func(s *ip.State) { s.FDB = nil })), WholePaths},
		"IPIP needs no frames":       {append(Whole(ipip()), Filtered(ipip(), true, leases)...), ""},
		"IPIP arrives":               {Reach(Host{Name: "h1", State: ipip()}, withState(there)), ""},
		"IPIP to VXLAN":              {Reach(Host{Name: "h1", State: ipip()}, withState(overlay())), Reachable},
		"IPIP from a stranger":       {Reach(Host{Name: "h1", State: ipip()}, withState(unreachable)), Reachable},
		"a guard of VXLAN for IPIP":  {Filtered(func() ip.State { s := ipip(); s.Guards[0].IPIP = false; return s }(), true, leases), PeersOnly},
		"a kernel is as it should":   {AtRest(overlay(), overlay()), ""},
		"a kernel lacks something":   {AtRest(without(func(s *ip.State) { s.FDB = nil }), overlay()), EqualAtRest},
		"a kernel has too much":      {AtRest(overlay(), without(func(s *ip.State) { s.Routes = nil })), EqualAtRest},
		"peers are let in":           {Filtered(guarded("172.30.0.2"), true, leases), ""},
		"a direct one is let in":     {Filtered(around, true, leases), ""},
		"there is no filter":         {Filtered(overlay(), true, leases), PeersOnly},
		"the filter is off":          {Filtered(overlay(), false, leases), ""},
		"the filter stays":           {Filtered(guarded("172.30.0.2"), false, leases), PeersOnly},
		"no VXLAN, no filter":        {Filtered(ip.State{}, true, leases), ""},
		"a peer is shut out":         {Filtered(guarded(), true, leases), PeersOnly},
		"a direct one is shut out":   {Filtered(func() ip.State { s := around; s.Guards = guarded("172.30.0.2").Guards; return s }(), true, leases), PeersOnly},
		"a stranger is let in":       {Filtered(guarded("172.30.0.2", "172.30.0.9"), true, leases), PeersOnly},
		"one without a lease":        {Filtered(guarded("172.30.0.2"), true, leases[1:]), PeersOnly},
		"one that is not served":     {Filtered(guarded("172.30.0.2", "172.30.0.3"), true, leases), PeersOnly},
		"a peer in its own name":     {Filtered(guarded("172.30.0.2", "172.30.0.2 10.5.2.0/24"), true, leases), ""},
		"a peer in another's name":   {Filtered(guarded("172.30.0.2", "172.30.0.2 10.5.2.0/24", "172.30.0.2 10.5.3.0/24"), true, leases), PeersOnly},
		"a peer may send nothing":    {Filtered(func() ip.State { s := guarded("172.30.0.2"); s.Guards[0].Bits = 24; return s }(), true, leases), PeersOnly},
		"another port is filtered":   {Filtered(elsewhere, true, leases), PeersOnly},
		"a peer drops what comes":    {Reach(Host{Name: "h1", State: overlay()}, Host{Name: "h2", Subnets: subnets("10.5.2.0/24"), Uplink: ip.Uplink{Addr: peer.Public}, State: guarded("172.30.0.9")}), Reachable},
		"a peer is not reached":      {Reach(Host{Name: "h1", State: overlay()}, Host{Name: "h3", Subnets: subnets("10.5.3.0/24")}), Reachable},
		"a peer lives elsewhere":     {Reach(Host{Name: "h1", State: overlay()}, Host{Name: "h2", Subnets: subnets("10.5.2.0/24"), Uplink: ip.Uplink{Addr: ip.Dual[netip.Addr]{V4: addr("172.30.0.9")}}}), Reachable},
		"a peer has no such device":  {Reach(Host{Name: "h1", State: overlay()}, Host{Name: "h2", Subnets: subnets("10.5.2.0/24"), Uplink: ip.Uplink{Addr: peer.Public}}), Reachable},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.want == "" && len(tt.got) > 0 || tt.want != "" && (len(tt.got) != 1 || tt.got[0].Invariant != tt.want || tt.got[0].Detail == "") {
				t.Errorf("violations %v, want of %q", tt.got, tt.want)
			}
		})
	}
}

func TestViolationNamesTheInvariantFirst(t *testing.T) {
	if text := fmt.Sprint(Violation{OneOwner, "detail"}); !strings.HasPrefix(text, OneOwner) {
		t.Error(text)
	}
}

// BenchmarkPass is what a pass over ten thousand peers spends on the invariants: at rest, and when something changes.
func BenchmarkPass(b *testing.B) {
	network, _, err := flannel.ParseNetwork([]byte(`{"Network":"10.0.0.0/8"}`), 1)
	if err != nil {
		b.Fatal(err)
	}
	guard := ip.Guard{Family: ip.IPv4, VNI: 1, Port: 8472, Bits: 24}
	s := ip.State{Links: overlay().Links}
	var leases []*subnet.Lease
	for i := range 10_000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
		mac := ip.MAC{2, 0, 0, 1, byte(i >> 8), byte(i)}
		public := netip.AddrFrom4([4]byte{172, 30, byte(i >> 8), byte(i)})
		leases = append(leases, &subnet.Lease{Subnets: subnet.Subnets{V4: p}, Attrs: subnet.Attrs{Public: ip.Dual[netip.Addr]{V4: public}}})
		guard.Peers = append(guard.Peers, ip.Peer{Addr: public}, ip.Peer{Addr: public, Subnet: p})
		s.FDB = append(s.FDB, ip.FDB{Link: "flannel.1", MAC: mac, Dst: public})
		s.Neighbors = append(s.Neighbors, ip.Neighbor{Link: "flannel.1", IP: p.Addr(), MAC: mac})
		s.Routes = append(s.Routes, ip.Route{Dst: p, Via: p.Addr(), Link: "flannel.1", Protocol: ip.Protocol})
	}
	s.Guards = []ip.Guard{guard}
	have := s
	have.Routes = append([]ip.Route{}, s.Routes...)
	b.Run("rest", func(b *testing.B) {
		for b.Loop() {
			if vs := AtRest(have, s); len(vs) > 0 {
				b.Fatal(vs)
			}
		}
	})
	b.Run("change", func(b *testing.B) {
		for b.Loop() {
			if vs := slices.Concat(Usable(network, subnets("10.255.0.0/24"), leases), Whole(s), Filtered(s, true, leases)); len(vs) > 0 {
				b.Fatal(vs)
			}
		}
	})
}
