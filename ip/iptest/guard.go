package iptest

import (
	"maps"
	"net/netip"
	"slices"
	"syscall"

	"tulle/ip"
)

// guard is a Guard at work.
type guard struct {
	ip.Guard // without its peers
	peers    map[ip.Peer]bool
	drops    ip.Drops
}

func (k *Kernel) applyGuard(del bool, g ip.Guard) {
	peers := map[ip.Peer]bool{}
	for _, p := range g.Peers {
		peers[p] = true
	}
	g.Peers = nil
	put(k.guards, del, tableID{g.Net, g.Family}, &guard{Guard: g, peers: peers})
}

func (k *Kernel) applyMember(del bool, m ip.Member) error {
	g, ok := k.guards[tableID{m.Net, ip.FamilyOf(m.Addr)}]
	ok = ok && (!m.Subnet.IsValid() || g.Bits > 0)
	switch {
	case ok:
		put(g.peers, del, m.Peer, true)
	case !del:
		return syscall.ENOENT
	}
	return nil
}

func (k *Kernel) readGuards(s *ip.Snapshot) {
	for _, g := range k.guards {
		have := g.Guard
		have.Peers = slices.Collect(maps.Keys(g.peers))
		s.Owned.Guards = append(s.Owned.Guards, have)
		s.AddDrops(g.Net, g.Family, g.drops)
	}
	for id, n := range k.spoofed {
		s.AddDrops(id.net, id.family, ip.Drops{Spoofed: n})
	}
}

// Knock has a packet of a tunnel arrive at the host, with a packet in it that claims to come from inner.
func (k *Kernel) Knock(from netip.Addr, tunnel ip.Tunnel, inner netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range k.guards {
		if g.Family == ip.FamilyOf(from) && g.Tunnel() == tunnel {
			g.knock(from, inner)
		}
	}
}

func (g *guard) knock(from, inner netip.Addr) {
	subnet, _ := inner.Prefix(g.Bits)
	switch speaks := ip.FamilyOf(inner) == g.Family && g.peers[ip.Peer{Addr: from, Subnet: subnet}]; {
	case g.Bits > 0 && speaks:
	case !g.peers[ip.Peer{Addr: from}]:
		g.drops.Strangers++
	case g.Bits > 0:
		g.drops.Forged++
	}
}

// Forward has a packet come in through an interface, on its way elsewhere.
func (k *Kernel) Forward(in string, src, dst netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, t := range k.tables {
		applies := func(r ip.Rule) bool {
			return r.Chain == ip.Forward && (r.In == "" || r.In == in) && matches(r.Src, src) && matches(r.Dst, dst) && !(r.Unrouted && k.routedBack(src, in))
		}
		if i := slices.IndexFunc(t.Rules, applies); id.family == ip.FamilyOf(src) && i >= 0 && t.Rules[i].Verdict == ip.DropSpoof {
			k.spoofed[id]++
		}
	}
}

func matches(m ip.Match, addr netip.Addr) bool {
	return !m.Prefix.IsValid() || m.Prefix.Contains(addr) != m.Not
}

// routedBack reports whether packets to addr leave through an interface.
func (k *Kernel) routedBack(addr netip.Addr, link string) bool {
	a := k.answer(k.allInterfaces(), ip.Question{Dst: addr})
	return a.Leads() && a.Link == link
}
