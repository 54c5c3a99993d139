package doctortest

import "tulle/internal/trouble"

// Pair is a fault between c1, a container of h1, and c3, one of h2; the doctor is asked on h1, as in tulle doctor A B. The fields are those of Row.
type Pair struct {
	Fault  string
	Inject []string
	Code   trouble.Code
	On     string // the host that the first finding names
	Follow []trouble.Code
	Fix    []string // the first ones, as they end
	ByHand []string // instead of Fix, where that is in words, or names what is elsewhere in a lab
	After  []string
	Slow   bool // probes take a minute to see that it is over, which is not waited for: it comes last
}

// Pairs lists the faults of two hosts.
func Pairs() []Pair {
	return []Pair{
		{Fault: "the other host's tulled is stopped", Inject: []string{"h2 systemctl stop tulled"}, Code: trouble.PeerStopped, On: "h2", Fix: []string{"systemctl start tulled"}},
		{Fault: "a container of the other host has no default route", Inject: []string{"c3 ip route del default"}, Code: trouble.ContainerRouteless, On: "h2",
			Fix: []string{" ip route add default via GATE4 dev eth0"}, ByHand: []string{"c3 ip route add default via GATE4 dev eth0"}},
		{Fault: "the other host's bridge is down", Inject: []string{"h2 ip link set dev cni0 down"}, Code: trouble.BridgeDown, On: "h2",
			Fix: []string{"ip link set dev cni0 up"}},
		{Fault: "a filter of the other host drops the tunnel's packets, nftables", Code: trouble.TunnelBlocked, On: "h2",
			Inject: []string{"h2 nft add table inet foreign", "h2 nft add chain inet foreign in '{ type filter hook input priority 0; }'", "h2 nft add rule inet foreign in udp dport 8472 drop"},
			Fix:    []string{"nft insert rule inet foreign in udp dport 8472 accept"}, After: []string{"h2 nft delete table inet foreign"}},
		{Fault: "a filter of the other host drops the tunnel's packets, iptables", Code: trouble.TunnelBlocked, On: "h2",
			Inject: []string{"h2 iptables -A INPUT -p udp --dport 8472 -j DROP"},
			Fix:    []string{"iptables -t filter -I INPUT -p udp --dport 8472 -j ACCEPT"}, After: []string{"h2 iptables -F INPUT"}},
		{Fault: "what lies between drops the tunnel's packets one way", Code: trouble.PathFiltered, On: "h1",
			Inject: []string{"router nft add table bridge between", "router nft add chain bridge between forward '{ type filter hook forward priority 0; }'", "router nft add rule bridge between forward ip daddr HOST2 udp dport 8472 drop"},
			ByHand: []string{"router nft delete table bridge between"}},
		{Fault: "what lies between drops the tunnel's packets both ways", Code: trouble.PathFiltered, On: "h1",
			Inject: []string{"router nft add table bridge between", "router nft add chain bridge between forward '{ type filter hook forward priority 0; }'", "router nft add rule bridge between forward udp dport 8472 drop"},
			ByHand: []string{"router nft delete table bridge between"}},
		{Fault: "what lies between drops all packets", Code: trouble.PathCut, On: "h1",
			Inject: []string{"router nft add table bridge between", "router nft add chain bridge between forward '{ type filter hook forward priority 0; }'", "router nft add rule bridge between forward ip saddr HOST1 ip daddr HOST2 drop"},
			ByHand: []string{"router nft delete table bridge between"}},
		{Fault: "a neighbour entry of somebody's leads elsewhere", Inject: []string{"h1 ip neigh replace HOST2 lladdr 02:de:ad:be:ef:01 dev eth0 nud permanent"}, Code: trouble.NeighborWrong, On: "h1",
			Fix: []string{"ip neigh del HOST2 dev eth0"}},
		{Fault: "a wrong route of the other host leads to this one", Inject: []string{"h2 ip route add HOST1 dev cni0"}, Code: trouble.UplinkDiverted, On: "h2", Fix: []string{"ip route del HOST1/32 dev cni0"}},
		{Fault: "one host runs with an earlier VNI", Code: trouble.BackendDiffers, On: "h1",
			Inject: []string{`h1 tulle config get | sed 's/"Type": *"vxlan"/"Type":"vxlan","VNI":9/' | tulle config set -`, "h2 systemctl restart tulled"},
			Fix:    []string{"systemctl restart tulled"},
		},
		{Fault: "the other host's machine is off", Inject: []string{"h2 ip link set dev eth0 down"}, Code: trouble.PeerGone, On: "h2",
			ByHand: []string{"h2 ip link set dev eth0 up", "h2 ip route replace default via ROUTER4 dev eth0", "h2 ip -6 route replace default via ROUTER6 dev eth0"}},
		{Fault: "large packets are lost between the hosts", Code: trouble.PeerNarrow, On: "h1",
			Inject: []string{"router nft add table bridge between", "router nft add chain bridge between forward '{ type filter hook forward priority 0; }'", "router nft add rule bridge between forward ip saddr HOST1 ip daddr HOST2 meta length gt 1300 drop"},
			ByHand: []string{"router nft delete table bridge between"}, Slow: true},
	}
}
