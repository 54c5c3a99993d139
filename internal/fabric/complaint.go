package fabric

import (
	"cmp"
	"slices"
	"time"

	"tulle/internal/probe"
	"tulle/subnet"
)

// How long packets do not arrive before others are told through the store: a blink is not worth a write. If nobody has answered since, it may be this host's
// own fault, which the prober knows after a while (probe.Bad.Silent).
const (
	complainAfter   = 10 * time.Second
	complainUnheard = 30 * time.Second
)

// complaint is what to tell others of the peers of a network; nil: nothing. bad has all that is not well.
func complaint(g *Probing, bad probe.Bad, now time.Time) *subnet.Complaint {
	if g == nil || bad.Silent {
		return nil
	}
	var peers [][]subnet.BadPeer
	for _, reports := range byLease(bad.Reports) {
		if lines := badLines(g, reports, bad.Heard, now); len(lines) > 0 {
			peers = append(peers, lines)
		}
	}
	if len(peers) == 0 {
		return nil
	}
	c := &subnet.Complaint{Time: now, More: max(0, len(peers)-subnet.MostBadPeers)}
	peers = peers[:len(peers)-c.More]
	// Each peer's worst way, and of the others as many as there is room for.
	room := subnet.MostBadPeers - len(peers)
	for _, lines := range peers {
		n := min(room, len(lines)-1)
		room -= n
		c.Peers = append(c.Peers, lines[:1+n]...)
	}
	slices.SortFunc(c.Peers, func(a, b subnet.BadPeer) int {
		return cmp.Or(cmp.Compare(a.Lease, b.Lease), cmp.Compare(a.Family, b.Family), cmp.Compare(a.Way, b.Way))
	})
	return c
}

// badLines are the ways to a peer that have not been well for some time, the worst first: the fabric before the underlay.
func badLines(g *Probing, reports []probe.Report, heard, now time.Time) (lines []subnet.BadPeer) {
	for _, r := range reports {
		if !g.has(r.Peer) {
			continue
		}
		for _, way := range probe.Ways() {
			v := r.Ways[way]
			after := complainAfter
			if !heard.After(v.Since) && g.asksOthers(r.Peer.Lease) {
				after = complainUnheard
			}
			if v.State != probe.Unreachable && v.State != probe.Narrow || now.Sub(v.Since) < after {
				continue
			}
			p := subnet.BadPeer{Lease: r.Peer.Lease, Node: r.Peer.Node, Family: r.Peer.Family.String(), Way: way.String(), State: subnet.PeerUnreachable, Since: v.Since}
			if v.State == probe.Narrow {
				p.State, p.Size, p.Full = subnet.PeerNarrow, v.Size, r.Peer.Size[way]
			}
			lines = append(lines, p)
		}
	}
	slices.SortStableFunc(lines, func(a, b subnet.BadPeer) int {
		return cmp.Or(-cmp.Compare(a.State, b.State), cmp.Compare(a.Way, b.Way), cmp.Compare(a.Size, b.Size))
	})
	return lines
}

// asksOthers reports whether others are asked than a peer.
func (g *Probing) asksOthers(lease string) bool {
	return slices.ContainsFunc(g.Peers, func(p probe.Peer) bool { return p.Lease != lease })
}
