package ip

import "net/netip"

// BlockedTunnels is where packets of a tunnel between this host and peers are dropped. The flow is one of them, but for the peer's address. First the packets of all
// are looked at together; only at chains that drop some are they one by one, those of up to most peers, from the first to the last.
func BlockedTunnels(filters []Filter, flow Flow, peers []netip.Addr, most int) []Blockade {
	if len(peers) == 0 {
		return nil
	}
	var blockades []Blockade
	together := flow.with(coverOf(peers))
	step := max(1, (len(peers)+most-1)/most)
	for _, base := range filters {
		if !together.comesTo(base) {
			continue
		}
		if outcome, _, picked := trace(filters, base, together); outcome == Passes && !picked {
			continue
		}
		for i := 0; i < len(peers); i += step {
			blockades = block(blockades, filters, base, flow.with(netip.PrefixFrom(peers[i], peers[i].BitLen())))
		}
	}
	return blockades
}

// with is the flow of a tunnel with the addresses of peers.
func (f Flow) with(peers netip.Prefix) Flow {
	if f.Inbound {
		f.Src = peers
	} else {
		f.Dst = peers
	}
	return f
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
