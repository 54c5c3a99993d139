package ip

import "net/netip"

// TunnelFlow are the packets of a tunnel between this host and another one, or several; their addresses are those of the hosts.
type TunnelFlow struct {
	Own     netip.Addr
	Peers   netip.Prefix
	Uplink  string
	Port    uint16 // UDP destination port
	Inbound bool   // the peers send them
}

// flow is how the packets show at a hook.
func (t TunnelFlow) flow() Flow {
	own := netip.PrefixFrom(t.Own, t.Own.BitLen())
	if t.Inbound {
		return Flow{Src: t.Peers, Dst: own, In: t.Uplink, Port: t.Port}
	}
	return Flow{Src: own, Dst: t.Peers, Out: t.Uplink, Port: t.Port}
}

func (t TunnelFlow) comesTo(h Hook) bool {
	if t.Inbound {
		return h == AtPrerouting || h == AtInput
	}
	return h == AtOutput
}

// TunnelBlockade is a chain that drops packets of a tunnel.
type TunnelBlockade struct {
	At    Place
	Base  Place // from which the chain was reached
	Hook  Hook
	Flow  TunnelFlow   // one of them
	Peers []netip.Addr // of them all
	Sure  bool         // false: a rule that is not understood may let them pass
	UFW   bool         // ufw(8) fills the table
}

// BlockedTunnels finds where packets between this host and peers are dropped. All are looked at together first; only where that is not enough are they one by one, up to
// most of them, from first to last.
func BlockedTunnels(filters []Filter, flow TunnelFlow, peers []netip.Addr, most int) []TunnelBlockade {
	if len(peers) == 0 {
		return nil
	}
	var all []TunnelBlockade
	flow.Peers = coverOf(peers)
	for _, base := range filters {
		if !flow.comesTo(base.Hook) || base.Family != 0 && base.Family != FamilyOf(flow.Own) {
			continue
		}
		if outcome, _, picked := trace(filters, base, flow.flow()); outcome == Passes && !picked {
			continue
		}
		step := max(1, (len(peers)+most-1)/most)
		found := map[Place]int{}
		for i := 0; i < len(peers); i += step {
			one := flow
			one.Peers = netip.PrefixFrom(peers[i], peers[i].BitLen())
			outcome, at := Trace(filters, base, one.flow())
			if outcome == Passes {
				continue
			}
			b, known := found[at]
			if !known {
				b = len(all)
				found[at] = b
				all = append(all, TunnelBlockade{At: at, Base: base.Place, Hook: base.Hook, Flow: one})
			}
			all[b].Peers = append(all[b].Peers, peers[i])
			all[b].Sure = all[b].Sure || outcome == Dropped
		}
	}
	return all
}

// coverOf is the longest prefix that holds all addresses, which are of one family.
func coverOf(addrs []netip.Addr) netip.Prefix {
	cover := netip.PrefixFrom(addrs[0], addrs[0].BitLen())
	for _, a := range addrs {
		for !cover.Contains(a) {
			cover = netip.PrefixFrom(cover.Addr(), cover.Bits()-1).Masked()
		}
	}
	return cover
}
