package ip

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// What a Guard consists of in nftables.
const (
	GuardTable   = "tulle-peers" // one in each family that it guards
	GuardChain   = "input"       // type filter, hook input, priority raw, policy accept
	GuardSet     = "peers"
	GuardCounter = "strangers"
)

// Guard drops the packets of a VXLAN that come to this host from any but its peers, and counts them. It is an nftables
// table of its own, made in one transaction, so that it never works without the peers; these come and go one by one.
type Guard struct {
	Family Family // of the outer packets
	VNI    uint32
	Port   uint16 // UDP destination port
	Peers  []Peer
}

// Peer is an address that the Guard of its family lets packets in from.
type Peer struct{ netip.Addr }

// Equal reports whether g and h do the same and have the same peers in the same order.
func (g Guard) Equal(h Guard) bool { return g.guards(h) && slices.Equal(g.Peers, h.Peers) }

// guards reports whether g and h guard the same.
func (g Guard) guards(h Guard) bool {
	return g.Family == h.Family && g.VNI == h.VNI && g.Port == h.Port
}

func comparePeer(a, b Peer) int { return a.Compare(b.Addr) }

func sortGuards(guards []Guard) {
	slices.SortFunc(guards, func(a, b Guard) int { return cmp.Compare(a.Family, b.Family) })
	for _, g := range guards {
		slices.SortFunc(g.Peers, comparePeer)
	}
}

func diffGuards(p *plan, have, want []Guard) {
	diffFamilies(p, have, want, func(g Guard) Family { return g.Family }, func(h, w Guard) {
		if h.guards(w) {
			diff(p, h.Peers, w.Peers, func(p Peer) Peer { return p }, drop)
		} else {
			p.set = append(p.set, Op{Verb: Replace, New: w, Old: h})
		}
	})
}

func (g Guard) command(verb Verb, _ Object) string {
	f := nftFamily(g.Family)
	table := f + " " + GuardTable
	if verb == Delete {
		return "nft delete table " + table
	}
	var b strings.Builder
	fmt.Fprintf(&b, "nft '%sadd table %s; add set %s %s { type %s_addr;",
		ifElse(verb == Replace, "delete table "+table+"; ", ""), table, table, GuardSet, g.Family)
	for i, p := range g.Peers {
		fmt.Fprintf(&b, "%s %s", ifElse(i == 0, " elements = {", ","), p)
	}
	fmt.Fprintf(&b, "%s }; add counter %s %s;", ifElse(len(g.Peers) > 0, " };", ""), table, GuardCounter)
	fmt.Fprintf(&b, " add chain %s %s { type filter hook input priority raw; policy accept; };", table, GuardChain)
	// The VNI of RFC 7348 begins 12 bytes after the UDP header does. Where it cannot be read, as in a fragment, it counts as ours.
	fmt.Fprintf(&b, " add rule %s %s udp dport %d @th,96,24 != %d accept;", table, GuardChain, g.Port, g.VNI)
	fmt.Fprintf(&b, " add rule %s %s udp dport %d %s saddr != @%s counter name %s drop'", table, GuardChain, g.Port, f, GuardSet, GuardCounter)
	return b.String()
}

func (p Peer) command(verb Verb, _ Object) string {
	return fmt.Sprintf("nft '%s element %s %s %s { %s }'",
		ifElse(verb == Delete, "delete", "add"), nftFamily(FamilyOf(p.Addr)), GuardTable, GuardSet, p)
}
