package ip_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"tulle/ip"
	"tulle/ip/iptest"
)

// What the firewalls of hosts do with the packets of a tunnel: nothing, or to which peers, and whether that is sure.
func TestBlockedTunnels(t *testing.T) {
	for _, test := range []struct{ rules, in, out string }{
		{rules: ""},
		{rules: ":INPUT ACCEPT\n:OUTPUT ACCEPT"},
		{rules: ":INPUT DROP", in: "INPUT drops 2 3"},
		{rules: ":OUTPUT DROP", out: "OUTPUT drops 2 3"},
		{rules: ":FORWARD DROP"},
		{rules: ":INPUT DROP\n-A INPUT -p udp -m udp --dport 8472 -j ACCEPT"},
		{rules: ":INPUT DROP\n-A INPUT -p udp -m udp --dport 8000:9000 -j ACCEPT"},
		{rules: ":INPUT DROP\n-A INPUT -p udp -j ACCEPT"},
		{rules: ":INPUT DROP\n-A INPUT -p udp -m udp --dport 4789 -j ACCEPT", in: "INPUT drops 2 3"},
		{rules: ":INPUT DROP\n-A INPUT -p tcp -m tcp --dport 8472 -j ACCEPT", in: "INPUT drops 2 3"},
		{rules: ":INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p icmp -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", in: "INPUT drops 2 3"},
		{rules: ":INPUT DROP\n-A INPUT -i eth0 -j ACCEPT"},
		{rules: ":INPUT DROP\n-A INPUT -i eth1 -j ACCEPT", in: "INPUT drops 2 3"},
		// Answers come to port 8472 too, so that no connection of a tunnel is ever known.
		{rules: ":INPUT DROP\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", in: "INPUT drops 2 3"},
		{rules: ":INPUT DROP\n-A INPUT -p udp -m udp --dport 8472 -m conntrack --ctstate NEW -j ACCEPT"},
		{rules: ":INPUT DROP\n-A INPUT -s 192.0.2.0/24 -p udp -m udp --dport 8472 -j ACCEPT"},
		{rules: ":INPUT DROP\n-A INPUT -s 192.0.2.2/32 -p udp -m udp --dport 8472 -j ACCEPT", in: "INPUT drops 3"},
		{rules: ":INPUT DROP\n-A INPUT -s 192.0.2.2/32 -j ACCEPT\n-A INPUT -s 192.0.2.3/32 -j ACCEPT"},
		{rules: ":INPUT ACCEPT\n-A INPUT -s 192.0.2.3/32 -j DROP", in: "INPUT drops 3"},
		{rules: ":INPUT ACCEPT\n-A INPUT -s 198.51.100.3/32 -j DROP"},
		{rules: ":INPUT ACCEPT\n-A INPUT -p udp -m udp --dport 8472 -j REJECT", in: "INPUT drops 2 3"},
		{rules: ":INPUT ACCEPT\n-A INPUT -m limit -j DROP"},
		{rules: ":INPUT DROP\n-A INPUT -m set -j ACCEPT", in: "INPUT may drop 2 3"},
		{rules: ":INPUT ACCEPT\n:IN_public -\n-A INPUT -j IN_public\n-A IN_public -p tcp -m tcp --dport 22 -j ACCEPT\n-A IN_public -j DROP", in: "IN_public drops 2 3"},
		{rules: ":OUTPUT ACCEPT\n-A OUTPUT -o eth0 -d 192.0.2.2/32 -j DROP", out: "OUTPUT drops 2"},
		{rules: ":OUTPUT DROP\n-A OUTPUT -o lo -j ACCEPT\n-A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT", out: "OUTPUT drops 2 3"},
		{rules: ":OUTPUT DROP\n-A OUTPUT -o eth+ -j ACCEPT"},
	} {
		for _, engine := range []ip.Engine{ip.NFTables, ip.IPTables} {
			filters := iptest.ParseSave(engine, ip.IPv4, "*filter\n"+test.rules+"\nCOMMIT\n")
			if test.rules == "" {
				filters = nil
			}
			for _, inbound := range []bool{true, false} {
				own := netip.MustParsePrefix("192.0.2.1/32")
				flow := ip.Flow{Src: own, Out: "eth0", Port: 8472}
				if inbound {
					flow = ip.Flow{Dst: own, In: "eth0", Port: 8472, Inbound: true}
				}
				peers := []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")}
				var got []string
				for _, b := range ip.BlockedTunnels(filters, flow, peers, 10) {
					text := b.At.Chain + " may drop"
					if b.Sure {
						text = b.At.Chain + " drops"
					}
					for _, f := range b.Flows {
						peer := f.Dst
						if inbound {
							peer = f.Src
						}
						text += fmt.Sprint(" ", peer.Addr().As4()[3])
					}
					got = append(got, text)
				}
				want := test.out
				if inbound {
					want = test.in
				}
				if strings.Join(got, ", ") != want {
					t.Errorf("%s, inbound %v:\n%s\nblocked: %q, want %q", engine, inbound, test.rules, strings.Join(got, ", "), want)
				}
			}
		}
	}
}

// Raw tables are asked too, and of very many peers some.
func TestBlockedTunnelsOfManyPeers(t *testing.T) {
	filters := iptest.ParseSave(ip.IPTables, ip.IPv6, "*raw\n:PREROUTING ACCEPT\n-A PREROUTING -p udp -m udp --dport 8472 -j DROP\nCOMMIT\n")
	var peers []netip.Addr
	for i := range 1000 {
		peers = append(peers, netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", 2+i)))
	}
	flow := ip.Flow{Dst: netip.MustParsePrefix("2001:db8::1/128"), In: "eth0", Port: 8472, Inbound: true}
	got := ip.BlockedTunnels(filters, flow, peers, 100)
	if len(got) != 1 || !got[0].Sure || got[0].Hook != ip.AtPrerouting || len(got[0].Flows) != 100 || got[0].Flows[99].Src.Addr().Compare(peers[900]) < 0 {
		t.Errorf("blocked: %+v, want one at prerouting for 100 peers, from first to last", got)
	}
	if got := ip.BlockedTunnels(filters, flow, nil, 100); got != nil {
		t.Errorf("blocked without peers: %+v", got)
	}
}
