package decision

import (
	"fmt"
	"net/netip"
	"slices"

	"tulle/ip"
)

// mostTraced is how many peers are looked at one by one, at each chain that drops packets of some.
const mostTraced = 256

// tunnels finds where the packets that hosts exchange through a tunnel of UDP are dropped on this one.
func tunnels(in Inputs, want ip.State) (blocked []ip.Blockade) {
	filters := remaining(in.Kernel)
	for _, l := range want.Links {
		kind, ok := l.Kind.(ip.VXLAN)
		if !ok {
			continue
		}
		var peers []netip.Addr
		for _, entry := range want.FDB {
			if entry.Link == l.Name {
				peers = append(peers, entry.Dst)
			}
		}
		own, uplink := netip.PrefixFrom(kind.Local, kind.Local.BitLen()), in.Host.Uplink.Link
		for _, flow := range []ip.Flow{{Dst: own, In: uplink, Inbound: true, Port: kind.Port}, {Src: own, Out: uplink, Port: kind.Port}} {
			blocked = append(blocked, ip.BlockedTunnels(filters, flow, peers, mostTraced)...)
		}
	}
	return blocked
}

// describeTunnel says where packets of a tunnel are dropped, and what ends that.
func describeTunnel(b ip.Blockade) string {
	flow, direction, run := b.Flows[0], "to", "run"
	if flow.Inbound {
		direction = "from"
	}
	if !b.Sure {
		run = "if it does, run"
	}
	var peers []netip.Addr
	for _, f := range b.Flows {
		peer := f.Dst
		if f.Inbound {
			peer = f.Src
		}
		peers = append(peers, peer.Addr())
	}
	slices.SortFunc(peers, netip.Addr.Compare)
	hosts := peers[0].String()
	switch len(peers) {
	case 1:
	case 2:
		hosts += " and " + peers[1].String()
	default:
		hosts += fmt.Sprintf(" and %d other hosts", len(peers)-1)
	}
	return fmt.Sprintf("%s %s the packets of the tunnel, UDP port %d, %s %s: %s %s", b.At, verb(b), flow.Port, direction, hosts, run, tunnelRemedy(b, flow))
}

func tunnelRemedy(b ip.Blockade, flow ip.Flow) string {
	switch {
	case b.At.Table == firewalldTable && flow.Inbound:
		return fmt.Sprintf("firewall-cmd --permanent --add-port=%d/udp and firewall-cmd --reload", flow.Port)
	case b.UFW && flow.Inbound:
		return fmt.Sprintf("ufw allow %d/udp", flow.Port)
	case b.UFW:
		return fmt.Sprintf("ufw allow out %d/udp", flow.Port)
	}
	return b.At.AcceptPort(flow.Port)
}
