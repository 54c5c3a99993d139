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
	ip.Guard  // without its peers
	peers     map[ip.Peer]bool
	strangers uint64 // packets dropped
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
		s.Strangers += g.strangers
	}
}

// Knock has a VXLAN packet arrive at a UDP port of the host.
func (k *Kernel) Knock(from netip.Addr, port uint16, vni uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if g := k.guards[ip.FamilyOf(from)]; g != nil && g.Port == port && g.VNI == vni && !g.peers[ip.Peer{Addr: from}] {
		g.strangers++
	}
}
