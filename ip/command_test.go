package ip_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/ip"
)

// host is a small host with one peer over VXLAN and one behind the same router.
func host() ip.State {
	mac := ip.MAC{2, 0, 0, 0, 0, 3}
	network := ip.Match{Prefix: netip.MustParsePrefix("10.50.0.0/16")}
	outside := ip.Match{Prefix: netip.MustParsePrefix("224.0.0.0/4"), Not: true}
	return ip.State{
		Guards: []ip.Guard{{
			Family: ip.IPv4, VNI: 1, Port: 8472, Link: "flannel.1", Uplink: "up0", Network: network.Prefix, Bits: 24,
			Peers: peersAt("192.0.2.3", "192.0.2.3 10.50.3.0/24", "192.0.2.4"),
		}},
		Links: []ip.Link{{
			Name: "flannel.1", MAC: ip.MAC{2, 0, 0, 0, 0, 1}, MTU: 1450, Up: true,
			Kind: ip.VXLAN{VNI: 1, Local: netip.MustParseAddr("192.0.2.1"), Port: 8472},
		}},
		Sysctls: []ip.Sysctl{
			{Key: "net/ipv4/ip_forward", Value: "1"},
			{Key: "net/ipv6/conf/flannel.1/accept_ra", Value: "0", Link: "flannel.1"},
		},
		Addrs:     []ip.Addr{{Link: "flannel.1", Prefix: netip.MustParsePrefix("10.50.1.0/32")}},
		FDB:       []ip.FDB{{Link: "flannel.1", MAC: mac, Dst: netip.MustParseAddr("192.0.2.3")}},
		Neighbors: []ip.Neighbor{{Link: "flannel.1", IP: netip.MustParseAddr("10.50.3.0"), MAC: mac}},
		Routes: []ip.Route{
			{Dst: netip.MustParsePrefix("10.50.3.0/24"), Via: netip.MustParseAddr("10.50.3.0"), Link: "flannel.1", Metric: 7, Protocol: ip.Protocol, OnLink: true},
			{Dst: netip.MustParsePrefix("10.50.4.0/24"), Via: netip.MustParseAddr("192.0.2.4"), Link: "up0", Metric: 8, Protocol: ip.Protocol},
		},
		Tables: []ip.Table{{Family: ip.IPv4, Rules: []ip.Rule{
			{Chain: ip.Keeping, Src: network, Dst: network, Verdict: ip.KeepSource},
			{Chain: ip.Postrouting, Src: network, Dst: outside, Verdict: ip.Masquerade},
			{Chain: ip.Forward, Src: network, Verdict: ip.Accept},
			{Chain: ip.Forward, Dst: network, Verdict: ip.Accept},
		}}},
	}
}

func peersAt(addrs ...string) []ip.Peer {
	var peers []ip.Peer
	for _, a := range addrs {
		var p ip.Peer
		if err := p.UnmarshalText([]byte(a)); err != nil {
			panic(err)
		}
		peers = append(peers, p)
	}
	return peers
}

func TestStateReadsAsCommands(t *testing.T) {
	const want = `sysctl -w net/ipv4/ip_forward=1
nft 'add table ip tulle-peers; add set ip tulle-peers peers { type ipv4_addr; elements = { 192.0.2.3, 192.0.2.4 }; }; add set ip tulle-peers sources { typeof ip saddr . @th,336,32; elements = { 192.0.2.3 . 0x0a320300 }; }; add counter ip tulle-peers strangers; add counter ip tulle-peers forged; add counter ip tulle-peers injected; add chain ip tulle-peers incoming; add rule ip tulle-peers incoming iifname "up0" @th,224,16 0x800 ip saddr . (@th,336,32 & 0xffffff00) @sources accept; add rule ip tulle-peers incoming meta l4proto != udp accept; add rule ip tulle-peers incoming @th,96,24 != 1 accept; add rule ip tulle-peers incoming meta iifkind "bridge" fib saddr . iif oif missing counter name injected drop; add rule ip tulle-peers incoming meta iifkind "veth" fib saddr . iif oif missing counter name injected drop; add rule ip tulle-peers incoming meta iifkind "tun" fib saddr . iif oif missing counter name injected drop; add rule ip tulle-peers incoming @th,224,16 0x800 ip saddr . (@th,336,32 & 0xffffff00) @sources accept; add rule ip tulle-peers incoming ip saddr != @peers counter name strangers drop; add rule ip tulle-peers incoming counter name forged drop; add chain ip tulle-peers input { type filter hook input priority raw; policy accept; }; add rule ip tulle-peers input th dport 8472 jump incoming; add chain ip tulle-peers forwarded; add rule ip tulle-peers forwarded meta l4proto != udp accept; add rule ip tulle-peers forwarded @th,96,24 != 1 accept; add rule ip tulle-peers forwarded ip saddr 10.50.0.0/16 counter name injected drop; add rule ip tulle-peers forwarded ct status snat,dnat counter name injected drop; add rule ip tulle-peers forwarded fib saddr . iif oif missing counter name injected drop; add chain ip tulle-peers forward { type filter hook forward priority raw; policy accept; }; add rule ip tulle-peers forward th dport 8472 jump forwarded; add chain ip tulle-peers postrouting { type nat hook postrouting priority -199; policy accept; }; add rule ip tulle-peers postrouting udp dport 8472 @th,96,24 != 1 accept; add rule ip tulle-peers postrouting udp dport 8472 iif != 0 iifname != "flannel.1" snat to ip saddr'
ip link add flannel.1 address 02:00:00:00:00:01 mtu 1450 type vxlan id 1 local 192.0.2.1 dstport 8472 nolearning
sysctl -w net/ipv6/conf/flannel.1/accept_ra=0
ip link set dev flannel.1 up
ip address add 10.50.1.0/32 dev flannel.1
bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.0.2.3 self permanent
ip neigh replace 10.50.3.0 lladdr 02:00:00:00:00:03 dev flannel.1 nud permanent
ip route replace 10.50.3.0/24 via 10.50.3.0 dev flannel.1 proto 84 metric 7 onlink
ip route replace 10.50.4.0/24 via 192.0.2.4 dev up0 proto 84 metric 8
nft 'add table ip tulle; add chain ip tulle keeping { type nat hook postrouting priority srcnat - 1; }; add rule ip tulle keeping ip saddr 10.50.0.0/16 ip daddr 10.50.0.0/16 snat to ip saddr; add chain ip tulle postrouting { type nat hook postrouting priority srcnat; }; add rule ip tulle postrouting ip saddr 10.50.0.0/16 ip daddr != 224.0.0.0/4 masquerade; add chain ip tulle forward { type filter hook forward priority filter; policy accept; }; add rule ip tulle forward ip saddr 10.50.0.0/16 accept; add rule ip tulle forward ip daddr 10.50.0.0/16 accept'
`
	if diff := cmp.Diff(want, host().String()); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

func TestLongCommandsAreCutShortInMessages(t *testing.T) {
	guard := ip.Guard{Family: ip.IPv4, VNI: 1, Port: 8472, Peers: make([]ip.Peer, 10_000)}
	op := ip.Op{Verb: ip.Add, New: guard}
	if text := (ip.OpError{Op: op, Err: errors.New("no space")}).Error(); len(text) > 500 || !strings.HasSuffix(text, "…: no space") {
		t.Errorf("%d bytes: %.600s", len(text), text)
	}
	short := ip.Op{Verb: ip.Delete, Old: guard}
	if text := short.Brief(); text != short.String() {
		t.Errorf("%q is cut", text)
	}
}

func TestPlanReadsAsCommands(t *testing.T) {
	remade := host()
	remade.Links = []ip.Link{remade.Links[0]}
	remade.Links[0].Kind = ip.VXLAN{VNI: 1, Local: netip.MustParseAddr("192.0.2.1"), Port: 4789, GBP: true}
	changed := host()
	changed.Links = []ip.Link{changed.Links[0]}
	changed.Links[0].MAC[5] = 9
	changed.Links[0].MTU = 1400
	with := func(edit func(*ip.State)) ip.State {
		s := host()
		edit(&s)
		return s
	}
	v6 := ip.Route{
		Dst: netip.MustParsePrefix("fd50:0:0:3::/64"), Via: netip.MustParseAddr("fd50:0:0:3::"),
		Link: "flannel-v6.1", Metric: 7, Protocol: ip.Protocol, OnLink: true,
	}
	direct := v6
	direct.Via, direct.Link, direct.OnLink = netip.MustParseAddr("2001:db8::3"), "up0", false
	for name, test := range map[string]struct {
		have, want ip.State
		plan       string
	}{
		"link changed": {host(), changed, `ip link set dev flannel.1 address 02:00:00:00:00:09 mtu 1400
ip neigh replace 10.50.3.0 lladdr 02:00:00:00:00:03 dev flannel.1 nud permanent
`},
		"link made anew": {host(), remade, `ip link del dev flannel.1
ip link add flannel.1 address 02:00:00:00:00:01 mtu 1450 type vxlan id 1 local 192.0.2.1 dstport 4789 nolearning gbp
sysctl -w net/ipv6/conf/flannel.1/accept_ra=0
ip link set dev flannel.1 up
ip address add 10.50.1.0/32 dev flannel.1
bridge fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.0.2.3 self permanent
ip neigh replace 10.50.3.0 lladdr 02:00:00:00:00:03 dev flannel.1 nud permanent
ip route replace 10.50.3.0/24 via 10.50.3.0 dev flannel.1 proto 84 metric 7 onlink
`},
		"one peer gone, another come": {
			host(),
			with(func(s *ip.State) {
				s.Guards[0].Peers = peersAt("192.0.2.4", "192.0.2.5", "192.0.2.5 10.50.5.0/24")
				s.FDB, s.Neighbors, s.Routes = nil, nil, s.Routes[1:]
			}),
			`nft 'add element ip tulle-peers peers { 192.0.2.5 }'
nft 'add element ip tulle-peers sources { 192.0.2.5 . 0x0a320500 }'
ip route del 10.50.3.0/24 via 10.50.3.0 dev flannel.1 proto 84 metric 7
ip neigh del 10.50.3.0 dev flannel.1
bridge fdb del 02:00:00:00:00:03 dev flannel.1 dst 192.0.2.3 self
nft 'delete element ip tulle-peers peers { 192.0.2.3 }'
nft 'delete element ip tulle-peers sources { 192.0.2.3 . 0x0a320300 }'
`},
		"rules changed": {
			host(),
			with(func(s *ip.State) { s.Tables = []ip.Table{{Family: ip.IPv4, Rules: s.Tables[0].Rules[2:3]}} }),
			`nft 'delete table ip tulle; add table ip tulle; add chain ip tulle forward { type filter hook forward priority filter; policy accept; }; add rule ip tulle forward ip saddr 10.50.0.0/16 accept'
`},
		"sources checked": {
			host(),
			with(func(s *ip.State) {
				s.Tables = []ip.Table{{Family: ip.IPv4, Rules: []ip.Rule{
					{Chain: ip.Forward, In: "cni0", Src: s.Tables[0].Rules[0].Src, Verdict: ip.Accept},
					{Chain: ip.Forward, In: "cni0", Unrouted: true, Verdict: ip.DropSpoof},
				}}}
			}),
			`nft 'delete table ip tulle; add table ip tulle; add counter ip tulle spoofed; add chain ip tulle forward { type filter hook forward priority filter; policy accept; }; add rule ip tulle forward iifname "cni0" ip saddr 10.50.0.0/16 accept; add rule ip tulle forward iifname "cni0" fib saddr . iif oif missing counter name spoofed drop'
`},
		"a path gets narrow": {
			host(),
			with(func(s *ip.State) { s.Routes[0].MTU = 1300 }),
			`ip route replace 10.50.3.0/24 via 10.50.3.0 dev flannel.1 proto 84 metric 7 onlink mtu 1300
`},
		"a narrow path goes": {
			with(func(s *ip.State) { s.Routes[0].MTU = 1300 }),
			with(func(s *ip.State) { s.Routes = s.Routes[1:] }),
			`ip route del 10.50.3.0/24 via 10.50.3.0 dev flannel.1 proto 84 metric 7 mtu 1300
`},
		"everything gone": {
			with(func(s *ip.State) {
				s.Leftovers = []ip.Leftover{{Engine: ip.NFTables, Family: ip.IPv4, Table: "filter", Chain: "FLANNEL-FWD"}, {Engine: ip.NFTables, Family: ip.IPv6, Table: "flannel-ipv6"}}
			}),
			ip.State{},
			`nft delete table ip6 flannel-ipv6
nft delete chain ip filter FLANNEL-FWD
nft delete table ip tulle
ip route del 10.50.4.0/24 via 192.0.2.4 dev up0 proto 84 metric 8
ip link del dev flannel.1
nft delete table ip tulle-peers
`},
		"guard changed": {
			ip.State{Guards: []ip.Guard{{Family: ip.IPv6, VNI: 1, Port: 8472, Peers: peersAt("2001:db8::3")}}},
			ip.State{Guards: []ip.Guard{{Family: ip.IPv6, VNI: 7, Port: 4789, Link: "flannel-v6.7", Uplink: "up0", Network: netip.MustParsePrefix("fd50::/44")}}},
			`nft 'delete table ip6 tulle-peers; add table ip6 tulle-peers; add set ip6 tulle-peers peers { type ipv6_addr; }; add counter ip6 tulle-peers strangers; add counter ip6 tulle-peers forged; add counter ip6 tulle-peers injected; add chain ip6 tulle-peers incoming; add rule ip6 tulle-peers incoming iifname "up0" ip6 saddr @peers accept; add rule ip6 tulle-peers incoming meta l4proto != udp accept; add rule ip6 tulle-peers incoming @th,96,24 != 7 accept; add rule ip6 tulle-peers incoming meta iifkind "bridge" fib saddr . iif oif missing counter name injected drop; add rule ip6 tulle-peers incoming meta iifkind "veth" fib saddr . iif oif missing counter name injected drop; add rule ip6 tulle-peers incoming meta iifkind "tun" fib saddr . iif oif missing counter name injected drop; add rule ip6 tulle-peers incoming ip6 saddr @peers accept; add rule ip6 tulle-peers incoming ip6 saddr != @peers counter name strangers drop; add chain ip6 tulle-peers input { type filter hook input priority raw; policy accept; }; add rule ip6 tulle-peers input th dport 4789 jump incoming; add rule ip6 tulle-peers input ip6 nexthdr != udp ip6 nexthdr != tcp exthdr frag exists counter name strangers drop; add chain ip6 tulle-peers forwarded; add rule ip6 tulle-peers forwarded meta l4proto != udp accept; add rule ip6 tulle-peers forwarded @th,96,24 != 7 accept; add rule ip6 tulle-peers forwarded ip6 saddr fd50::/44 counter name injected drop; add rule ip6 tulle-peers forwarded ct status snat,dnat counter name injected drop; add rule ip6 tulle-peers forwarded fib saddr . iif oif missing counter name injected drop; add chain ip6 tulle-peers forward { type filter hook forward priority raw; policy accept; }; add rule ip6 tulle-peers forward th dport 4789 jump forwarded; add rule ip6 tulle-peers forward ip6 nexthdr != udp ip6 nexthdr != tcp exthdr frag exists counter name injected drop; add chain ip6 tulle-peers postrouting { type nat hook postrouting priority -199; policy accept; }; add rule ip6 tulle-peers postrouting udp dport 4789 @th,96,24 != 7 accept; add rule ip6 tulle-peers postrouting udp dport 4789 iif != 0 iifname != "flannel-v6.7" snat to ip6 saddr'
`},
		"IPv6 peer out of reach": {
			ip.State{Routes: []ip.Route{direct}}, ip.State{Routes: []ip.Route{v6}},
			`ip -6 route replace fd50:0:0:3::/128 dev flannel-v6.1 proto 84 metric 7
ip -6 route replace fd50:0:0:3::/64 via fd50:0:0:3:: dev flannel-v6.1 proto 84 metric 7 onlink
ip -6 route del fd50:0:0:3::/128 dev flannel-v6.1 proto 84 metric 7
`},
		"IPv6 nexthop too many": {
			ip.State{Routes: []ip.Route{v6, direct}}, ip.State{Routes: []ip.Route{v6}},
			`ip -6 route del fd50:0:0:3::/64 via 2001:db8::3 dev up0 proto 84 metric 7
`},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.plan, ip.Diff(test.have, test.want).String()); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}
