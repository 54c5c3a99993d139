package ip

import (
	"cmp"
	"net/netip"
	"slices"
	"sort"
	"time"
)

// FastPath is what packets between containers of this host and of its peers may take a shorter way by: one that skips the bridge, the IP stack and
// netfilter, for flows of which a packet has just come through these unchanged. The zero FastPath has none do so.
type FastPath struct {
	Bridges []string       // whose ports lead to containers
	Uplinks []string       // that packets between hosts leave and come by
	Subnets []netip.Prefix // this host's own
	Exclude []netip.Prefix // whose packets never take it
	Devices []FastDevice   // of Tulle's, that tunnel
	Peers   FastPeers
}

// FastDevice is a VXLAN device.
type FastDevice struct {
	Name   string
	Local  netip.Addr // source of the outer packets
	Tunnel Tunnel
	MAC    MAC
	MTU    int // bytes of the inner packet
}

// FastPeer is a peer's subnet and how packets reach it. There are as many as there are peers.
type FastPeer struct {
	Subnet netip.Prefix
	Link   string     // one of the devices, or the uplink where packets are routed as they are
	Remote netip.Addr // the peer's host
	MAC    MAC        // of its end of the tunnel
}

// FastPathOf derives the fast path from what is wanted of the kernel, which must be sorted. Peers that are reached by other means than VXLAN and the uplinks have none,
// nor those to which a route names an MTU: only the IP stack tells senders of packets that are larger.
func FastPathOf(want State, uplinks, bridges []string, subnets, exclude []netip.Prefix) FastPath {
	f := FastPath{Bridges: bridges, Uplinks: uplinks, Subnets: subnets, Exclude: exclude}
	own := map[string]bool{} // and whether packets may be tunnelled by the device
	for _, l := range want.Links {
		vxlan, ok := l.Kind.(VXLAN)
		if own[l.Name] = ok && !vxlan.GBP && !vxlan.Learning; own[l.Name] {
			f.Devices = append(f.Devices, FastDevice{Name: l.Name, Local: vxlan.Local, Tunnel: vxlan.Tunnel(), MAC: l.MAC, MTU: l.MTU})
		}
	}
	neighbors, entries := sorted[Neighbor]{all: want.Neighbors}, sorted[FDB]{all: want.FDB}
	peers := make([]FastPeer, 0, len(want.Routes))
	for _, r := range want.Routes {
		if r.MTU != 0 || slices.ContainsFunc(exclude, func(p netip.Prefix) bool { return Contains(p, r.Dst) }) {
			continue
		}
		p := FastPeer{Subnet: r.Dst, Link: r.Link, Remote: r.Via}
		if fast, ours := own[r.Link]; ours {
			p.MAC = neighbors.find(func(n Neighbor) int { return cmp.Or(cmp.Compare(n.Link, r.Link), n.IP.Compare(r.Via)) }).MAC
			p.Remote = entries.find(func(e FDB) int { return cmp.Or(cmp.Compare(e.Link, r.Link), slices.Compare(e.MAC[:], p.MAC[:])) }).Dst
			if !fast || !p.Remote.IsValid() || FamilyOf(p.Remote) != FamilyOf(r.Dst.Addr()) {
				continue
			}
		} else if !slices.Contains(uplinks, r.Link) || !r.Via.IsValid() {
			continue
		}
		peers = append(peers, p)
	}
	f.Peers = FastPeersOf(peers...)
	return f
}

// sorted is a list in order, of which most often the next is looked for.
type sorted[T any] struct {
	all  []T
	next int
}

// find returns the element that compares as 0, else the zero T. Those before it compare as less, and those after it as more.
func (s *sorted[T]) find(compare func(T) int) (found T) {
	if s.next >= len(s.all) || compare(s.all[s.next]) != 0 {
		s.next = sort.Search(len(s.all), func(i int) bool { return compare(s.all[i]) >= 0 })
	}
	if s.next < len(s.all) && compare(s.all[s.next]) == 0 {
		found = s.all[s.next]
		s.next++
	}
	return found
}

// Equal reports whether both are the same.
func (f FastPath) Equal(o FastPath) bool {
	return f.SameLinks(o) && slices.Equal(f.Devices, o.Devices) && f.Peers.Equal(o.Peers)
}

// SameLinks reports whether f and o are equal but for their devices and peers.
func (f FastPath) SameLinks(o FastPath) bool {
	return slices.Equal(f.Bridges, o.Bridges) && slices.Equal(f.Uplinks, o.Uplinks) && slices.Equal(f.Subnets, o.Subnets) && slices.Equal(f.Exclude, o.Exclude)
}

// Exchange is f without the peers of removed and with those of added.
func (f FastPath) Exchange(removed, added FastPath) FastPath {
	f.Peers = f.Peers.Exchange(removed.Peers, added.Peers)
	return f
}

// Plus is the fast path of two networks of one host.
func (f FastPath) Plus(o FastPath) FastPath {
	f.Bridges, f.Uplinks, f.Subnets, f.Exclude = union(f.Bridges, o.Bridges), union(f.Uplinks, o.Uplinks), union(f.Subnets, o.Subnets), union(f.Exclude, o.Exclude)
	f.Devices = union(f.Devices, o.Devices)
	f.Peers = f.Peers.Exchange(FastPeers{}, o.Peers)
	return f
}

// FastPathFilter is what the names of the fast path's filters of tc begin with.
const FastPathFilter = "tulle_"

// FastPathState is how the fast path stands.
type FastPathState struct {
	On       bool              `json:"on"`
	Reason   string            `json:"reason,omitempty"` // why it is off
	Partly   string            `json:"partly,omitempty"` // what of it is off, and why
	Unkept   string            `json:"unkept,omitempty"` // why it ends with tulled
	Failed   string            `json:"failed,omitempty"` // what could not be made as wanted
	Ports    int               `json:"ports,omitempty"`  // of containers, that have it
	Hook     string            `json:"hook,omitempty"`   // what its programs hang by: tcx or clsact
	Fill     int               `json:"fill,omitempty"`   // flows that are admitted, or were and have not been put out by others
	Room     int               `json:"room,omitempty"`   // for flows
	Out      FastTraffic       `json:"out"`
	In       FastTraffic       `json:"in"`
	Paused   time.Duration     `json:"paused,omitempty"`   // for how long it stays off by an operator's wish
	Admitted uint64            `json:"admitted,omitempty"` // flows, each counted anew with each look through the stack
	Refused  map[string]uint64 `json:"refused,omitempty"`  // packets of containers that may not take it, by reason
	Raised   map[string]uint64 `json:"raised,omitempty"`   // how often all admissions have ended, by cause
}

// FastTraffic counts packets between containers of different hosts in one direction.
type FastTraffic struct {
	FastPackets uint64 `json:"fastPackets"`
	FastBytes   uint64 `json:"fastBytes"` // of whole inner frames; segments that travel together count as one frame
	SlowPackets uint64 `json:"slowPackets"`
	SlowBytes   uint64 `json:"slowBytes"`
}

// Add adds what was counted elsewhere.
func (t *FastTraffic) Add(o FastTraffic) {
	t.FastPackets += o.FastPackets
	t.FastBytes += o.FastBytes
	t.SlowPackets += o.SlowPackets
	t.SlowBytes += o.SlowBytes
}

// FastFlow is an admitted flow.
type FastFlow struct {
	In       bool           `json:"in"` // towards a container of this host
	Protocol uint8          `json:"protocol"`
	Src      netip.AddrPort `json:"src"`
	Dst      netip.AddrPort `json:"dst"`
	Peer     netip.Addr     `json:"peer"` // the host
	Link     string         `json:"link"` // that its packets are sent to
	Packets  uint64         `json:"packets"`
	Bytes    uint64         `json:"bytes"`
	Age      time.Duration  `json:"age"` // since a packet of it was seen to pass the stack
}
