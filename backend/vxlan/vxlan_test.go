package vxlan

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

func network(t testing.TB, options string, families ...ip.Family) subnet.Network {
	t.Helper()
	n := subnet.Network{Backend: subnet.Backend{Type: Name, Options: json.RawMessage(options)}}
	for _, f := range families {
		if f == ip.IPv4 {
			n.Pools.V4 = subnet.Pool{Network: netip.MustParsePrefix("10.5.0.0/16"), SubnetLen: 24}
		} else {
			n.Pools.V6 = subnet.Pool{Network: netip.MustParsePrefix("fc00:5::/48"), SubnetLen: 64}
		}
	}
	return n
}

func open(t testing.TB, n subnet.Network) backend.Backend {
	t.Helper()
	b, warnings, err := New(n)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Fatalf("doubts about %s: %v", n.Backend.Options, warnings)
	}
	return b
}

// host is a host whose uplink has the number n in the last byte of its addresses.
func host(n int) backend.Host {
	up := ip.Uplink{Link: "eth0", MTU: 1500}
	up.Addr.V4 = netip.AddrFrom4([4]byte{172, 30, 0, byte(n)})
	up.Addr.V6 = netip.MustParseAddr(fmt.Sprintf("fd30::%x", n))
	up.Public = up.Addr
	return backend.Host{Node: fmt.Sprintf("h%d", n), Uplink: up}
}

// lease is what host n advertises, holding 10.5.n.0/24 and fc00:5:0:n::/64.
func lease(t testing.TB, b backend.Backend, n int, families ...ip.Family) subnet.Lease {
	t.Helper()
	attrs, err := b.Advertise(host(n), subnet.Attrs{})
	if err != nil {
		t.Fatal(err)
	}
	l := subnet.Lease{Attrs: attrs}
	for _, f := range families {
		if f == ip.IPv4 {
			l.Subnets.V4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(n), 0}), 24)
		} else {
			l.Subnets.V6 = netip.MustParsePrefix(fmt.Sprintf("fc00:5:0:%x::/64", n))
		}
	}
	return l
}

func TestPlanReadsAsCommands(t *testing.T) {
	both := []ip.Family{ip.IPv4, ip.IPv6}
	direct := map[netip.Addr]ip.Path{
		netip.MustParseAddr("172.30.0.2"): {Link: "eth0"},
		netip.MustParseAddr("fd30::2"):    {Link: "eth0", Gateway: netip.MustParseAddr("fd30::fe")},
	}
	tests := []struct {
		name     string
		families []ip.Family
		options  string
		want     string
	}{
		{"ipv4", both[:1], `{"Type":"vxlan"}`, `
nft 'add table ip tulle-peers; add set ip tulle-peers peers { type ipv4_addr; elements = { 172.30.0.2 }; }; add set ip tulle-peers sources { typeof ip saddr . @th,336,32; elements = { 172.30.0.2 . 0x0a050200 }; }; add counter ip tulle-peers strangers; add counter ip tulle-peers forged; add counter ip tulle-peers injected; add chain ip tulle-peers incoming; add rule ip tulle-peers incoming iifname "eth0" @th,224,16 0x800 ip saddr . (@th,336,32 & 0xffffff00) @sources accept; add rule ip tulle-peers incoming meta l4proto != udp accept; add rule ip tulle-peers incoming @th,96,24 != 1 accept; add rule ip tulle-peers incoming meta iifkind "bridge" fib saddr . iif oif missing counter name injected drop; add rule ip tulle-peers incoming meta iifkind "veth" fib saddr . iif oif missing counter name injected drop; add rule ip tulle-peers incoming meta iifkind "tun" fib saddr . iif oif missing counter name injected drop; add rule ip tulle-peers incoming @th,224,16 0x800 ip saddr . (@th,336,32 & 0xffffff00) @sources accept; add rule ip tulle-peers incoming ip saddr != @peers counter name strangers drop; add rule ip tulle-peers incoming counter name forged drop; add chain ip tulle-peers input { type filter hook input priority raw; policy accept; }; add rule ip tulle-peers input th dport 8472 jump incoming; add chain ip tulle-peers forwarded; add rule ip tulle-peers forwarded meta l4proto != udp accept; add rule ip tulle-peers forwarded @th,96,24 != 1 accept; add rule ip tulle-peers forwarded ip saddr 10.5.0.0/16 counter name injected drop; add rule ip tulle-peers forwarded ct status snat,dnat counter name injected drop; add rule ip tulle-peers forwarded fib saddr . iif oif missing counter name injected drop; add chain ip tulle-peers forward { type filter hook forward priority raw; policy accept; }; add rule ip tulle-peers forward th dport 8472 jump forwarded; add chain ip tulle-peers postrouting { type nat hook postrouting priority -199; policy accept; }; add rule ip tulle-peers postrouting udp dport 8472 @th,96,24 != 1 accept; add rule ip tulle-peers postrouting udp dport 8472 iif != 0 iifname != "flannel.1" snat to ip saddr'
ip link add flannel.1 address 5e:02:aa:00:00:01 mtu 1450 type vxlan id 1 local 172.30.0.1 dstport 8472 nolearning
sysctl -w net/ipv6/conf/flannel.1/disable_ipv6=1
ip link set dev flannel.1 up
ip address add 10.5.1.0/32 dev flannel.1
bridge fdb replace 5e:02:aa:00:00:02 dev flannel.1 dst 172.30.0.2 self permanent
ip neigh replace 10.5.2.0 lladdr 5e:02:aa:00:00:02 dev flannel.1 nud permanent
ip route replace 10.5.2.0/24 via 10.5.2.0 dev flannel.1 proto 84 metric M onlink
`},
		{"ipv6 with options", both[1:], `{"Type":"vxlan","vni":7,"Port":4789,"MTU":9000,"GBP":true,"Learning":true}`, `
nft 'add table ip6 tulle-peers; add set ip6 tulle-peers peers { type ipv6_addr; elements = { fd30::2 }; }; add set ip6 tulle-peers sources { typeof ip6 saddr . @th,304,128; elements = { fd30::2 . 0xfc000005000000020000000000000000 }; }; add counter ip6 tulle-peers strangers; add counter ip6 tulle-peers forged; add counter ip6 tulle-peers injected; add chain ip6 tulle-peers incoming; add rule ip6 tulle-peers incoming iifname "eth0" @th,224,16 0x86dd ip6 saddr . (@th,304,128 & 0xffffffffffffffff0000000000000000) @sources accept; add rule ip6 tulle-peers incoming meta l4proto != udp accept; add rule ip6 tulle-peers incoming @th,96,24 != 7 accept; add rule ip6 tulle-peers incoming meta iifkind "bridge" fib saddr . iif oif missing counter name injected drop; add rule ip6 tulle-peers incoming meta iifkind "veth" fib saddr . iif oif missing counter name injected drop; add rule ip6 tulle-peers incoming meta iifkind "tun" fib saddr . iif oif missing counter name injected drop; add rule ip6 tulle-peers incoming @th,224,16 0x86dd ip6 saddr . (@th,304,128 & 0xffffffffffffffff0000000000000000) @sources accept; add rule ip6 tulle-peers incoming ip6 saddr != @peers counter name strangers drop; add rule ip6 tulle-peers incoming counter name forged drop; add chain ip6 tulle-peers input { type filter hook input priority raw; policy accept; }; add rule ip6 tulle-peers input th dport 4789 jump incoming; add rule ip6 tulle-peers input ip6 nexthdr != udp ip6 nexthdr != tcp exthdr frag exists counter name strangers drop; add chain ip6 tulle-peers forwarded; add rule ip6 tulle-peers forwarded meta l4proto != udp accept; add rule ip6 tulle-peers forwarded @th,96,24 != 7 accept; add rule ip6 tulle-peers forwarded ip6 saddr fc00:5::/48 counter name injected drop; add rule ip6 tulle-peers forwarded ct status snat,dnat counter name injected drop; add rule ip6 tulle-peers forwarded fib saddr . iif oif missing counter name injected drop; add chain ip6 tulle-peers forward { type filter hook forward priority raw; policy accept; }; add rule ip6 tulle-peers forward th dport 4789 jump forwarded; add rule ip6 tulle-peers forward ip6 nexthdr != udp ip6 nexthdr != tcp exthdr frag exists counter name injected drop; add chain ip6 tulle-peers postrouting { type nat hook postrouting priority -199; policy accept; }; add rule ip6 tulle-peers postrouting udp dport 4789 @th,96,24 != 7 accept; add rule ip6 tulle-peers postrouting udp dport 4789 iif != 0 iifname != "flannel-v6.7" snat to ip6 saddr'
ip link add flannel-v6.7 address 5e:02:aa:00:00:01 mtu 8930 type vxlan id 7 local fd30::1 dstport 4789 learning gbp
sysctl -w net/ipv6/conf/flannel-v6.7/accept_ra=0
sysctl -w net/ipv6/conf/flannel-v6.7/disable_ipv6=0
ip link set dev flannel-v6.7 up
ip address add fc00:5:0:1::/128 dev flannel-v6.7 nodad
bridge fdb replace 5e:02:aa:00:00:02 dev flannel-v6.7 dst fd30::2 self permanent
ip neigh replace fc00:5:0:2:: lladdr 5e:02:aa:00:00:02 dev flannel-v6.7 nud permanent
ip -6 route replace fc00:5:0:2::/64 via fc00:5:0:2:: dev flannel-v6.7 proto 84 metric M onlink
`},
		{"direct for the family that is a neighbour", both, `{"Type":"vxlan","DirectRouting":true}`, `
nft 'add table ip tulle-peers; add set ip tulle-peers peers { type ipv4_addr; elements = { 172.30.0.2 }; }; add set ip tulle-peers sources { typeof ip saddr . @th,336,32; elements = { 172.30.0.2 . 0x0a050200 }; }; add counter ip tulle-peers strangers; add counter ip tulle-peers forged; add counter ip tulle-peers injected; add chain ip tulle-peers incoming; add rule ip tulle-peers incoming iifname "eth0" @th,224,16 0x800 ip saddr . (@th,336,32 & 0xffffff00) @sources accept; add rule ip tulle-peers incoming meta l4proto != udp accept; add rule ip tulle-peers incoming @th,96,24 != 1 accept; add rule ip tulle-peers incoming meta iifkind "bridge" fib saddr . iif oif missing counter name injected drop; add rule ip tulle-peers incoming meta iifkind "veth" fib saddr . iif oif missing counter name injected drop; add rule ip tulle-peers incoming meta iifkind "tun" fib saddr . iif oif missing counter name injected drop; add rule ip tulle-peers incoming @th,224,16 0x800 ip saddr . (@th,336,32 & 0xffffff00) @sources accept; add rule ip tulle-peers incoming ip saddr != @peers counter name strangers drop; add rule ip tulle-peers incoming counter name forged drop; add chain ip tulle-peers input { type filter hook input priority raw; policy accept; }; add rule ip tulle-peers input th dport 8472 jump incoming; add chain ip tulle-peers forwarded; add rule ip tulle-peers forwarded meta l4proto != udp accept; add rule ip tulle-peers forwarded @th,96,24 != 1 accept; add rule ip tulle-peers forwarded ip saddr 10.5.0.0/16 counter name injected drop; add rule ip tulle-peers forwarded ct status snat,dnat counter name injected drop; add rule ip tulle-peers forwarded fib saddr . iif oif missing counter name injected drop; add chain ip tulle-peers forward { type filter hook forward priority raw; policy accept; }; add rule ip tulle-peers forward th dport 8472 jump forwarded; add chain ip tulle-peers postrouting { type nat hook postrouting priority -199; policy accept; }; add rule ip tulle-peers postrouting udp dport 8472 @th,96,24 != 1 accept; add rule ip tulle-peers postrouting udp dport 8472 iif != 0 iifname != "flannel.1" snat to ip saddr'
nft 'add table ip6 tulle-peers; add set ip6 tulle-peers peers { type ipv6_addr; elements = { fd30::2 }; }; add set ip6 tulle-peers sources { typeof ip6 saddr . @th,304,128; elements = { fd30::2 . 0xfc000005000000020000000000000000 }; }; add counter ip6 tulle-peers strangers; add counter ip6 tulle-peers forged; add counter ip6 tulle-peers injected; add chain ip6 tulle-peers incoming; add rule ip6 tulle-peers incoming iifname "eth0" @th,224,16 0x86dd ip6 saddr . (@th,304,128 & 0xffffffffffffffff0000000000000000) @sources accept; add rule ip6 tulle-peers incoming meta l4proto != udp accept; add rule ip6 tulle-peers incoming @th,96,24 != 1 accept; add rule ip6 tulle-peers incoming meta iifkind "bridge" fib saddr . iif oif missing counter name injected drop; add rule ip6 tulle-peers incoming meta iifkind "veth" fib saddr . iif oif missing counter name injected drop; add rule ip6 tulle-peers incoming meta iifkind "tun" fib saddr . iif oif missing counter name injected drop; add rule ip6 tulle-peers incoming @th,224,16 0x86dd ip6 saddr . (@th,304,128 & 0xffffffffffffffff0000000000000000) @sources accept; add rule ip6 tulle-peers incoming ip6 saddr != @peers counter name strangers drop; add rule ip6 tulle-peers incoming counter name forged drop; add chain ip6 tulle-peers input { type filter hook input priority raw; policy accept; }; add rule ip6 tulle-peers input th dport 8472 jump incoming; add rule ip6 tulle-peers input ip6 nexthdr != udp ip6 nexthdr != tcp exthdr frag exists counter name strangers drop; add chain ip6 tulle-peers forwarded; add rule ip6 tulle-peers forwarded meta l4proto != udp accept; add rule ip6 tulle-peers forwarded @th,96,24 != 1 accept; add rule ip6 tulle-peers forwarded ip6 saddr fc00:5::/48 counter name injected drop; add rule ip6 tulle-peers forwarded ct status snat,dnat counter name injected drop; add rule ip6 tulle-peers forwarded fib saddr . iif oif missing counter name injected drop; add chain ip6 tulle-peers forward { type filter hook forward priority raw; policy accept; }; add rule ip6 tulle-peers forward th dport 8472 jump forwarded; add rule ip6 tulle-peers forward ip6 nexthdr != udp ip6 nexthdr != tcp exthdr frag exists counter name injected drop; add chain ip6 tulle-peers postrouting { type nat hook postrouting priority -199; policy accept; }; add rule ip6 tulle-peers postrouting udp dport 8472 @th,96,24 != 1 accept; add rule ip6 tulle-peers postrouting udp dport 8472 iif != 0 iifname != "flannel-v6.1" snat to ip6 saddr'
ip link add flannel.1 address 5e:02:aa:00:00:01 mtu 1450 type vxlan id 1 local 172.30.0.1 dstport 8472 nolearning
ip link add flannel-v6.1 address 5e:02:aa:00:00:01 mtu 1430 type vxlan id 1 local fd30::1 dstport 8472 nolearning
sysctl -w net/ipv6/conf/flannel.1/disable_ipv6=1
sysctl -w net/ipv6/conf/flannel-v6.1/accept_ra=0
sysctl -w net/ipv6/conf/flannel-v6.1/disable_ipv6=0
ip link set dev flannel.1 up
ip link set dev flannel-v6.1 up
ip address add 10.5.1.0/32 dev flannel.1
ip address add fc00:5:0:1::/128 dev flannel-v6.1 nodad
bridge fdb replace 5e:02:aa:00:00:02 dev flannel-v6.1 dst fd30::2 self permanent
ip neigh replace fc00:5:0:2:: lladdr 5e:02:aa:00:00:02 dev flannel-v6.1 nud permanent
ip route replace 10.5.2.0/24 via 172.30.0.2 dev eth0 proto 84 metric M
ip -6 route replace fc00:5:0:2::/64 via fc00:5:0:2:: dev flannel-v6.1 proto 84 metric M onlink
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t, network(t, tt.options, tt.families...))
			self, peer := lease(t, b, 1, tt.families...), lease(t, b, 2, tt.families...)
			for n, l := range []*subnet.Lease{&self, &peer} {
				for _, f := range tt.families {
					l.Attrs.BackendData.Set(f, json.RawMessage(fmt.Sprintf(`{"VtepMAC":"5e:02:aa:00:00:%02x"}`, n+1)))
				}
			}
			h := host(1)
			h.Paths = direct
			s, problems := b.Plan(h, self, []*subnet.Lease{&peer})
			if len(problems) > 0 {
				t.Fatalf("problems: %v", problems)
			}
			got := s.String()
			for _, r := range s.Routes {
				got = strings.ReplaceAll(got, fmt.Sprintf("metric %d", r.Metric), "metric M")
			}
			if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), got); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

// Behind NAT the public address is on no interface: packets must leave from one that is.
func TestSourceIsTheInterfaceAddressBehindNAT(t *testing.T) {
	b := open(t, network(t, "", ip.IPv4))
	h := host(1)
	h.Uplink.Public.V4 = netip.MustParseAddr("203.0.113.9")
	attrs, err := b.Advertise(h, subnet.Attrs{})
	if err != nil {
		t.Fatal(err)
	}
	if attrs.Public.V4 != h.Uplink.Public.V4 {
		t.Errorf("advertises %v, want the public address %v", attrs.Public.V4, h.Uplink.Public.V4)
	}
	self := lease(t, b, 1, ip.IPv4)
	s, _ := b.Plan(h, self, nil)
	if got := s.Links[0].Kind.Source(); got != h.Uplink.Addr.V4 {
		t.Errorf("device sends from %v, want %v", got, h.Uplink.Addr.V4)
	}
}

func TestMACIsKept(t *testing.T) {
	b := open(t, network(t, "", ip.IPv4))
	mac := func(h backend.Host, earlier subnet.Attrs) string {
		attrs, err := b.Advertise(h, earlier)
		if err != nil {
			t.Fatal(err)
		}
		m, err := vtep(attrs.BackendData.V4)
		if err != nil {
			t.Fatal(err)
		}
		return m.String()
	}
	fresh := mac(host(1), subnet.Attrs{})
	if again := mac(host(1), subnet.Attrs{}); again != fresh {
		t.Errorf("the MAC of a node changes from %s to %s", fresh, again)
	}
	if other := mac(host(2), subnet.Attrs{}); other == fresh {
		t.Errorf("two nodes share the MAC %s", fresh)
	}
	adopted := host(1)
	adopted.Links = []ip.Link{{Name: "flannel.1", MAC: ip.MAC{0x4e, 0xf3, 0xa5, 0x78, 0x97, 0xd4}}}
	if got := mac(adopted, subnet.Attrs{}); got != "4e:f3:a5:78:97:d4" {
		t.Errorf("MAC is %s, want the existing device's", got)
	}
	earlier := subnet.Attrs{BackendType: Name}
	earlier.BackendData.V4 = json.RawMessage(`{"VNI":1,"VtepMAC":"5a:00:00:00:00:01"}`)
	if got := mac(adopted, earlier); got != "5a:00:00:00:00:01" {
		t.Errorf("MAC is %s, want the one that peers were told", got)
	}
}

func TestVTEPIsReadAlikeHoweverItIsWritten(t *testing.T) {
	for _, raw := range []string{
		`{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}`, `{"VNI": 1, "VtepMAC": "02:00:00:00:00:01"}`, `{"vtepmac":"02:00:00:00:00:01"}`,
		`{"VNI":1,"VtepMAC":"02:00:00:00:00:01","New":{"x":"}"}}`, `{"VNI":1,"VtepMAC":"02:00:00:00:00:0\u0031"}`,
		`{"VNI":1,"VtepMAC":"02:00:00:00:00:09","VtepMAC":"02:00:00:00:00:01"}`, `{"VNI":1,"VtepMAC":"02:00:00:00:00:01","Port":8472}`,
		`{"VNI":1,"VtepMAC":"02:00:00:00:00:01","Port": 8472}`, `{"VNI":1,"VtepMAC":"02:00:00:00:00:01","Port":8472,"Port":4789}`,
	} {
		if mac, err := vtep([]byte(raw)); err != nil || mac != (ip.MAC{2, 0, 0, 0, 0, 1}) {
			t.Errorf("%s: %s, %v", raw, mac, err)
		}
	}
	for _, raw := range []string{`{"VNI":,"VtepMAC":"02:00:00:00:00:01"}`, `{"VNI":1,"VtepMAC":"02:00:00:00:00:01"`, `{"VNI":1,"VtepMAC":""}`, `"}`, `{`, `{"VNI":1,"VtepMAC":"02:00:00:00:00:01","Port":65536}`, `{"VNI":1,"VtepMAC":"02:00:00:00:00:01","Port":}`} {
		if mac, err := vtep([]byte(raw)); err == nil {
			t.Errorf("%s: %s, want an error", raw, mac)
		}
	}
}

// Peers of another VNI or port drop what this host sends. flannel announces no port, and what is not known is believed.
func TestPeerWithAnotherTunnel(t *testing.T) {
	for announced, reason := range map[string]string{
		`{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}`:             "",
		`{"VtepMAC":"02:00:00:00:00:02"}`:                     "",
		`{"VNI":1,"VtepMAC":"02:00:00:00:00:02","Port":8472}`: "",
		`{"VNI":7,"VtepMAC":"02:00:00:00:00:02"}`:             "VNI 7, and this host with 1",
		`{"VNI":1,"VtepMAC":"02:00:00:00:00:02","Port":4789}`: "UDP port 4789, and this host over 8472",
	} {
		v := &VXLAN{opts: options{VNI: 1, Port: DefaultPort}}
		d, _, err := decode([]byte(announced))
		if err != nil {
			t.Fatal(err)
		}
		if err := v.understands(d); (err == nil) != (reason == "") || err != nil && !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, want %q", announced, err, reason)
		}
	}
}

// A lease that was flannel's stays as it is, unless hosts may be on different ports.
func TestPortIsAnnouncedIfItMayDiffer(t *testing.T) {
	const mac = `"VtepMAC":"02:00:00:00:00:02"`
	quiet, loud, other := `{"VNI":1,`+mac+`}`, `{"VNI":1,`+mac+`,"Port":8472}`, `{"VNI":1,`+mac+`,"Port":4789}`
	for _, tt := range []struct{ options, stored, earlier, peer, want string }{
		{`{}`, `{}`, "", "", quiet},
		{`{}`, `{"Port":8472,"VNI":7}`, quiet, "", quiet},
		{`{}`, `{"Port":4789}`, quiet, "", loud},
		{`{}`, `{"Port":4789,"VNI":0}`, quiet, "", quiet}, // in force nowhere
		{`{}`, `{}`, loud, "", loud},
		{`{}`, `{}`, other, "", loud}, // restarted, before others
		{`{}`, `{}`, quiet, other, quiet},
		{`{}`, `{}`, "", other, loud}, // new, and before others
		{`{}`, `{}`, "", quiet, quiet},
		{`{"Port":4789}`, `{"Port":4789}`, other, "", other},
		{`{"Port":4789}`, `{}`, other, "", other},
		{`{"Port":4789}`, `{"Port":4789}`, loud, "", other},
	} {
		attrs := func(data string) (a subnet.Attrs) {
			if data != "" {
				a.BackendType, a.BackendData.V4 = Name, json.RawMessage(data)
			}
			return a
		}
		stored := network(t, tt.stored, ip.IPv4)
		host := backend.Host{Node: "h1", Links: []ip.Link{{Name: "flannel.1", MAC: ip.MAC{2, 0, 0, 0, 0, 2}}}, Stored: &stored}
		if tt.peer != "" {
			host.Leases = []*subnet.Lease{{Attrs: attrs(tt.peer)}}
		}
		got, err := open(t, network(t, tt.options, ip.IPv4)).Advertise(host, attrs(tt.earlier))
		if err != nil || string(got.BackendData.V4) != tt.want {
			t.Errorf("%+v: %s, %v", tt, got.BackendData.V4, err)
		}
	}
}

// A host that was renumbered has two leases for a while, and is one peer.
func TestPeerWithTwoLeasesIsHeardOnce(t *testing.T) {
	b := open(t, network(t, "", ip.IPv4))
	self, first, second := lease(t, b, 1, ip.IPv4), lease(t, b, 2, ip.IPv4), lease(t, b, 3, ip.IPv4)
	second.Attrs = first.Attrs
	s, problems := b.Plan(host(1), self, []*subnet.Lease{&first, &second})
	host := first.Attrs.Public.V4
	want := []ip.Guard{{
		Family: ip.IPv4, VNI: 1, Port: DefaultPort, Link: "flannel.1", Uplink: "eth0", Network: netip.MustParsePrefix("10.5.0.0/16"), Bits: 24,
		Peers: []ip.Peer{{Addr: host}, {Addr: host, Subnet: first.Subnets.V4}, {Addr: host, Subnet: second.Subnets.V4}},
	}}
	if diff := cmp.Diff(want, s.Guards); diff != "" || len(problems) > 0 {
		t.Errorf("problems %v, guards (-want +got):\n%s", problems, diff)
	}
}

// A bad peer costs itself alone.
func TestBadPeers(t *testing.T) {
	b := open(t, network(t, "", ip.IPv4))
	self, good := lease(t, b, 1, ip.IPv4), lease(t, b, 2, ip.IPv4)
	bad := func(change func(*subnet.Lease)) subnet.Lease {
		l := lease(t, b, 3, ip.IPv4)
		change(&l)
		return l
	}
	tests := []struct {
		name   string
		peer   subnet.Lease
		reason string
	}{
		{"another backend", bad(func(l *subnet.Lease) { l.Attrs.BackendType = "host-gw" }), `backend is "host-gw"`},
		{"no data", bad(func(l *subnet.Lease) { l.Attrs.BackendData.V4 = nil }), "no VtepMAC"},
		{"garbage data", bad(func(l *subnet.Lease) { l.Attrs.BackendData.V4 = json.RawMessage(`[]`) }), "decode backend data"},
		{"8-byte MAC", bad(func(l *subnet.Lease) {
			l.Attrs.BackendData.V4 = json.RawMessage(`{"VtepMAC":"02:00:00:00:00:00:00:01"}`)
		}), "8 bytes"},
		{"multicast MAC", bad(func(l *subnet.Lease) { l.Attrs.BackendData.V4 = json.RawMessage(`{"VtepMAC":"ff:ff:ff:ff:ff:ff"}`) }), "unicast"},
		{"another host's MAC", bad(func(l *subnet.Lease) { l.Attrs.BackendData = good.Attrs.BackendData }), "of the host at 172.30.0.2"},
		{"my MAC", bad(func(l *subnet.Lease) { l.Attrs.BackendData = self.Attrs.BackendData }), "of the host at 172.30.0.1"},
		{"my address", bad(func(l *subnet.Lease) { l.Attrs.Public = self.Attrs.Public }), "this host's own"},
		{"no address", bad(func(l *subnet.Lease) { l.Attrs.Public = ip.Dual[netip.Addr]{} }), "no public ipv4 address"},
		{"multicast address", bad(func(l *subnet.Lease) { l.Attrs.Public.V4 = netip.MustParseAddr("224.0.0.1") }), "not the address of a host"},
	}
	alone, _ := b.Plan(host(1), self, []*subnet.Lease{&good})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, problems := b.Plan(host(1), self, []*subnet.Lease{&good, &tt.peer})
			if diff := cmp.Diff(alone.String(), s.String()); diff != "" {
				t.Errorf("the bad peer changes the plan:\n%s", diff)
			}
			if len(problems) != 1 || problems[0].Key != "10.5.3.0-24" || !strings.Contains(problems[0].Reason, tt.reason) {
				t.Errorf("problems %v, want one of 10.5.3.0-24 with %q", problems, tt.reason)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	for options, want := range map[string]string{
		`{"VNI":0}`:        "VNI is 0",
		`{"VNI":16777216}`: "VNI is 16777216",
		`{"VNI":"one"}`:    "Backend.VNI",
		`{"Port":70000}`:   "Backend.Port",
		`{"MTU":-1}`:       "MTU is -1",
	} {
		if _, _, err := New(network(t, options, ip.IPv4)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", options, err, want)
		}
	}
	_, warnings, err := New(network(t, `{"Type":"vxlan","DirectRoutng":true}`, ip.IPv4))
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "DirectRouting") {
		t.Errorf("misspelt option: doubts %q, error %v, want one that names DirectRouting", warnings, err)
	}
}

func TestMTU(t *testing.T) {
	tests := []struct {
		families []ip.Family
		options  string
		uplink   int
		want     int
		err      string
	}{
		{[]ip.Family{ip.IPv4}, ``, 1500, 1450, ""},
		{[]ip.Family{ip.IPv6}, ``, 1500, 1430, ""},
		{[]ip.Family{ip.IPv4, ip.IPv6}, ``, 1500, 1430, ""},
		{[]ip.Family{ip.IPv4}, `{"MTU":1400}`, 1500, 1350, ""},
		{[]ip.Family{ip.IPv4}, `{"MTU":9000}`, 1500, 8950, "Backend.MTU is 9000, and the MTU of eth0 is 1500: larger packets are cut up or lost"},
		{[]ip.Family{ip.IPv6}, ``, 1300, 0, "need 1280: raise the MTU of eth0"},
		{[]ip.Family{ip.IPv6}, `{"MTU":1300}`, 1500, 0, "need 1280: raise Backend.MTU"},
	}
	for _, tt := range tests {
		got, err := open(t, network(t, tt.options, tt.families...)).MTU(ip.Uplink{Link: "eth0", MTU: tt.uplink})
		if tt.err == "" && err != nil || got != tt.want {
			t.Errorf("%v on %d: %d, %v, want %d", tt.families, tt.uplink, got, err, tt.want)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%v on %d: error %v, want %q", tt.families, tt.uplink, err, tt.err)
		}
	}
}

func BenchmarkPlanAndDiff(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		b.Run(fmt.Sprintf("%dpeers", n), func(b *testing.B) {
			net := network(b, "", ip.IPv4)
			net.Pools.V4.Network = netip.MustParsePrefix("10.0.0.0/8")
			v := open(b, net)
			self := lease(b, v, 1, ip.IPv4)
			peers := make([]*subnet.Lease, n)
			for i := range peers {
				h := host(0)
				h.Node = fmt.Sprint(i)
				h.Uplink.Public.V4 = netip.AddrFrom4([4]byte{172, 16 + byte(i>>16), byte(i >> 8), byte(i)})
				attrs, err := v.Advertise(h, subnet.Attrs{})
				if err != nil {
					b.Fatal(err)
				}
				peers[i] = &subnet.Lease{Attrs: attrs}
				peers[i].Subnets.V4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 + byte(i>>8), byte(i), 0}), 24)
			}
			have, problems := v.Plan(host(1), self, peers)
			if len(problems) > 0 {
				b.Fatal(problems[0])
			}
			have.Sort()
			for b.Loop() {
				want, _ := v.Plan(host(1), self, peers)
				want.Sort()
				if plan := ip.Diff(have, want); len(plan) > 0 {
					b.Fatalf("unchanged world needs %d changes", len(plan))
				}
			}
		})
	}
}
