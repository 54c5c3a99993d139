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
	put(k.guards, del, g.Family, &guard{Guard: g, peers: peers})
}

func (k *Kernel) applyPeer(del bool, p ip.Peer) error {
	g, ok := k.guards[ip.FamilyOf(p.Addr)]
	ok = ok && (!p.Subnet.IsValid() || g.Bits > 0)
	switch {
	case ok:
		put(g.peers, del, p, true)
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
		s.Drops.Set(g.Family, g.drops)
	}
	for f, n := range k.spoofed {
		drops := s.Drops.Of(f)
		drops.Spoofed = n
		s.Drops.Set(f, drops)
	}
}

// Knock has a VXLAN packet arrive at a UDP port of the host, with a packet in it that claims to come from inner.
func (k *Kernel) Knock(from netip.Addr, port uint16, vni uint32, inner netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.guards[ip.FamilyOf(from)]
	if g == nil || g.Port != port || g.VNI != vni {
		return
	}
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
	f := ip.FamilyOf(src)
	for _, r := range k.tables[f].Rules {
		if r.Chain == ip.Forward && (r.In == "" || r.In == in) && matches(r.Src, src) && matches(r.Dst, dst) && !(r.Unrouted && k.routedBack(src, in)) {
			if r.Verdict == ip.DropSpoof {
				k.spoofed[f]++
			}
			return
		}
	}
}

func matches(m ip.Match, addr netip.Addr) bool {
	return !m.Prefix.IsValid() || m.Prefix.Contains(addr) != m.Not
}

// routedBack reports whether packets to addr leave through an interface.
func (k *Kernel) routedBack(addr netip.Addr, link string) bool {
	path, ok := k.path(addr)
	return ok && path.Link == link
}
