package backend

import (
	"net/netip"
	"slices"

	"tulle/ip"
	"tulle/subnet"
)

// Admission is who may send what to the links of one family: the hosts that packets go to, each from its subnets, of which it may have several.
type Admission struct {
	family ip.Family
	pool   subnet.Pool
	peers  []ip.Peer
}

// NewAdmission admits nobody yet, and has room for so many.
func NewAdmission(f ip.Family, pool subnet.Pool, most int) *Admission {
	return &Admission{family: f, pool: pool, peers: make([]ip.Peer, 0, 2*most)}
}

// Admit lets a host in with what comes from its subnet. The guard compares with one length, so that a lease longer than SubnetLen may
// send from the whole subnet of SubnetLen around it.
func (a *Admission) Admit(host netip.Addr, own netip.Prefix) {
	around := netip.PrefixFrom(own.Addr(), a.pool.SubnetLen).Masked()
	a.peers = append(a.peers, ip.Peer{Addr: host}, ip.Peer{Addr: host, Subnet: around})
}

// Guard drops what comes to the link from anybody else, or with anything else in it.
func (a *Admission) Guard(l ip.Link, uplink ip.Uplink) ip.Guard {
	slices.SortFunc(a.peers, ip.Peer.Compare)
	tunnel := l.Kind.Tunnel()
	return ip.Guard{
		Family: a.family, VNI: tunnel.VNI, Port: tunnel.Port, IPIP: tunnel.IPIP, Link: l.Name, Uplink: uplink.Link,
		Network: a.pool.Network, Bits: a.pool.SubnetLen,
		Peers: slices.Compact(a.peers),
	}
}
