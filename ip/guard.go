package ip

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// What a Guard consists of in nftables: a table in each family that it guards, with these chains, sets and counters.
const (
	GuardTable = "tulle-peers"

	GuardInput   = "input"       // type filter, hook input, priority raw, policy accept
	GuardForward = "forward"     // type filter, hook forward, priority raw, policy accept
	GuardPost    = "postrouting" // type nat, hook postrouting, priority -199: before others translate, once for each connection

	// What the first two jump to with the packets of the tunnel: most packets are of none.
	GuardIncoming  = "incoming"
	GuardForwarded = "forwarded"

	GuardPeers   = "peers"   // addresses of peers
	GuardSources = "sources" // the same with the subnet that each may send from

	CountStrangers = "strangers"
	CountForged    = "forged"
	CountInjected  = "injected"
)

// Guard is what a host lets through of a tunnel. What comes in must come from a peer, and the packet inside from the peer's own
// containers; what goes out must be made by this host, and not by something behind it in this host's name. All else is dropped
// and counted. It is an nftables table of its own, made in one transaction, so that it never works without the peers; these
// come and go one by one.
type Guard struct {
	Net     string // name of the network on this host; the only one has none
	Family  Family // of the outer packets, and of those inside
	VNI     uint32
	Port    uint16       // UDP destination port
	IPIP    bool         // it guards an IPIP tunnel, which has neither
	Link    string       // the device that this host's own packets come from
	Uplink  string       // the interface that peers' packets come through, or most of them
	Network netip.Prefix // of containers
	Bits    int          // length of the peers' subnets; 0: what is inside a packet may come from anybody
	Peers   []Peer
}

// Peer is an address that the Guard of its family lets packets in from or, with a Subnet, a subnet that packets from there
// may have their inner source in. A peer of one subnet is two of these.
type Peer struct {
	Addr   netip.Addr
	Subnet netip.Prefix // of Guard.Bits
}

// Compare orders peers by address, and each address before its subnets. That of prefixes would allocate for each that is zero.
func (p Peer) Compare(q Peer) int {
	return cmp.Or(p.Addr.Compare(q.Addr), p.Subnet.Addr().Compare(q.Subnet.Addr()), cmp.Compare(p.Subnet.Bits(), q.Subnet.Bits()))
}

// String is the address, and the subnet behind it.
func (p Peer) String() string {
	if !p.Subnet.IsValid() {
		return p.Addr.String()
	}
	return p.Addr.String() + " " + p.Subnet.String()
}

// MarshalText is String.
func (p Peer) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (p *Peer) UnmarshalText(text []byte) (err error) {
	addr, subnet, more := strings.Cut(string(text), " ")
	*p = Peer{}
	if p.Addr, err = netip.ParseAddr(addr); err == nil && more {
		p.Subnet, err = netip.ParsePrefix(subnet)
	}
	return err
}

// Unchecked returns the guard without what looks inside the packets that come in.
func (g Guard) Unchecked() Guard {
	if g.Bits > 0 {
		g.Bits = 0
		g.Peers = slices.DeleteFunc(slices.Clone(g.Peers), func(p Peer) bool { return p.Subnet.IsValid() })
	}
	return g
}

// Equal reports whether g and h do the same and have the same peers in the same order.
func (g Guard) Equal(h Guard) bool { return g.guards(h) && slices.Equal(g.Peers, h.Peers) }

func (g Guard) id() tableID { return tableID{g.Net, g.Family} }

// Tunnel is what the guard guards.
func (g Guard) Tunnel() Tunnel { return Tunnel{VNI: g.VNI, Port: g.Port, IPIP: g.IPIP} }

// guards reports whether g and h guard the same.
func (g Guard) guards(h Guard) bool {
	return g.id() == h.id() && g.Tunnel() == h.Tunnel() && g.Link == h.Link && g.Uplink == h.Uplink && g.Network == h.Network && g.Bits == h.Bits
}

func (g Guard) clone() Guard {
	g.Peers = slices.Clone(g.Peers)
	return g
}

// swapPeers is exchange for the peers of guards.
func swapPeers(all, removed, added []Guard) []Guard {
	for i, g := range all {
		all[i].Peers = exchange(g.Peers, peersOf(removed, g), peersOf(added, g), Peer.Compare)
	}
	return all
}

// peersOf returns the peers of that guard of some which guards the same as g.
func peersOf(some []Guard, g Guard) []Peer {
	for _, o := range some {
		if o.guards(g) {
			return o.Peers
		}
	}
	return nil
}

func diffGuards(p *plan, have, want []Guard) {
	diffTablesBy(p, have, want, Guard.id, func(h, w Guard) {
		if h.guards(w) {
			had, wanted := trim(h.Peers, w.Peers)
			diff(p, h.members(had), w.members(wanted), func(m Member) Member { return m }, drop)
		} else {
			p.set = append(p.set, Op{Verb: Replace, New: w, Old: h})
		}
	})
}

// Member is a peer as an object in the kernel, which comes and goes by itself: an element in the sets of a guard.
type Member struct {
	Net string // of the guard
	Peer
}

// Members are the guard's peers as objects.
func (g Guard) Members() []Member { return g.members(g.Peers) }

func (g Guard) members(peers []Peer) []Member {
	all := make([]Member, len(peers))
	for i, p := range peers {
		all[i] = Member{g.Net, p}
	}
	return all
}

// ProtocolIPIP is what an outer IP header says of an IPv4 packet in it (RFC 2003).
const ProtocolIPIP = 4

// Places in a VXLAN packet, in bytes from the beginning of the UDP header: 8 of UDP, 8 of VXLAN (RFC 7348), 14 of Ethernet.
const (
	VNIOffset       = 8 + 4
	EtherTypeOffset = 8 + 8 + 12
	innerIPOffset   = 8 + 8 + 14
)

// InnerSourceOffset is the place of the inner packet's source address (RFC 791, RFC 8200), in bytes from the end of the outer IP header.
func (t Tunnel) InnerSourceOffset(f Family) int {
	inner := innerIPOffset
	if t.IPIP {
		inner = 0
	}
	if f == IPv4 {
		return inner + 12
	}
	return inner + 8
}

// EtherType is what says in an Ethernet header that a packet of the family follows.
func EtherType(f Family) uint16 {
	if f == IPv4 {
		return 0x0800
	}
	return 0x86dd
}

// fragmentInside matches what is a fragment still after connection tracking has put fragments together.
const fragmentInside = "ip6 nexthdr != udp ip6 nexthdr != tcp exthdr frag exists"

func (g Guard) command(verb Verb, _ Object) string {
	f := nftFamily(g.Family)
	table := f + " " + TableOf(GuardTable, g.Net)
	if verb == Delete {
		return "nft delete table " + table
	}
	var b strings.Builder
	fmt.Fprintf(&b, "nft '%sadd table %s;", ifElse(verb == Replace, "delete table "+table+"; ", ""), table)
	source := fmt.Sprintf("@th,%d,%d", 8*g.Tunnel().InnerSourceOffset(g.Family), g.Family.Bits())
	g.addSet(&b, table, GuardPeers, fmt.Sprintf("type %s_addr", g.Family), func(p Peer) string {
		return ifElse(p.Subnet.IsValid(), "", p.element())
	})
	if g.Bits > 0 {
		// nft(8) knows no type for an address at such a place but that of a number.
		g.addSet(&b, table, GuardSources, fmt.Sprintf("typeof %s saddr . %s", f, source), func(p Peer) string {
			return ifElse(p.Subnet.IsValid(), p.element(), "")
		})
	}
	for _, name := range []string{CountStrangers, CountForged, CountInjected} {
		fmt.Fprintf(&b, " add counter %s %s;", table, name)
	}
	usual, rest := g.inputRules(source)
	toTunnel, ofTunnel, others := g.tunnelRules()
	for _, chain := range []struct {
		name, hook, port, nested string
		rules                    []string
	}{
		{GuardInput, "input priority raw", GuardIncoming, CountStrangers, slices.Concat([]string{usual}, others, rest)},
		{GuardForward, "forward priority raw", GuardForwarded, CountInjected, append(others,
			fmt.Sprintf("%s saddr %s counter name %s drop", f, g.Network, CountInjected),
			fmt.Sprintf("ct status snat,dnat counter name %s drop", CountInjected),
			fmt.Sprintf("%s counter name %s drop", unrouted, CountInjected),
		)},
	} {
		fmt.Fprintf(&b, " add chain %s %s;", table, chain.port)
		for _, rule := range chain.rules {
			fmt.Fprintf(&b, " add rule %s %s %s;", table, chain.port, rule)
		}
		fmt.Fprintf(&b, " add chain %s %s { type filter hook %s; policy accept; };", table, chain.name, chain.hook)
		fmt.Fprintf(&b, " add rule %s %s %s jump %s;", table, chain.name, toTunnel, chain.port)
		if g.Family == IPv6 {
			fmt.Fprintf(&b, " add rule %s %s %s counter name %s drop;", table, chain.name, fragmentInside, chain.nested)
		}
	}
	fmt.Fprintf(&b, " add chain %s %s { type nat hook postrouting priority -199; policy accept; };", table, GuardPost)
	if !g.IPIP {
		fmt.Fprintf(&b, " add rule %s %s %s @th,%d,24 != %d accept;", table, GuardPost, ofTunnel, 8*VNIOffset, g.VNI)
	}
	fmt.Fprintf(&b, " add rule %s %s %s iif != 0 iifname != %q snat to %s saddr'", table, GuardPost, ofTunnel, g.Link, f)
	return b.String()
}

// tunnelRules are what may be a packet of the tunnel, found with the fewest comparisons, what is one in full, and what of the former is none
// and passes. Where the VNI cannot be read, as in a fragment, it counts as ours.
func (g Guard) tunnelRules() (to, of string, others []string) {
	if g.IPIP {
		protocol := fmt.Sprintf("meta l4proto %d", ProtocolIPIP)
		return protocol, protocol, nil
	}
	return fmt.Sprintf("th dport %d", g.Port), fmt.Sprintf("udp dport %d", g.Port),
		[]string{"meta l4proto != udp accept", fmt.Sprintf("@th,%d,24 != %d accept", 8*VNIOffset, g.VNI)}
}

// GuestKinds are the kinds of interfaces behind which containers and virtual machines of this host are (ip-link(8), TYPES). One may be an
// underlay too.
func GuestKinds() []string { return []string{"bridge", "veth", "tun"} }

// inputRules are what decides about a packet that comes in of the tunnel: at once, if it comes the usual way, and what of the rest is ours. None
// comes as a peer's through an interface of guests that does not lead there.
func (g Guard) inputRules(source string) (usual string, rest []string) {
	f := nftFamily(g.Family)
	accept := fmt.Sprintf("%s saddr @%s accept", f, GuardPeers)
	var last []string
	if g.Bits > 0 {
		ones := Last(netip.PrefixFrom(g.Family.LinkLocal().Addr(), 0))
		mask := netip.PrefixFrom(ones, g.Bits).Masked().Addr()
		accept = fmt.Sprintf("%s saddr . (%s & 0x%s) @%s accept", f, source, hex.EncodeToString(mask.AsSlice()), GuardSources)
		if !g.IPIP {
			accept = fmt.Sprintf("@th,%d,16 %#x %s", 8*EtherTypeOffset, EtherType(g.Family), accept)
		}
		last = []string{fmt.Sprintf("counter name %s drop", CountForged)}
	}
	for _, kind := range GuestKinds() {
		rest = append(rest, fmt.Sprintf("meta iifkind %q %s counter name %s drop", kind, unrouted, CountInjected))
	}
	rest = append(rest, accept, fmt.Sprintf("%s saddr != @%s counter name %s drop", f, GuardPeers, CountStrangers))
	return fmt.Sprintf("iifname %q %s", g.Uplink, accept), append(rest, last...)
}

// addSet writes a set with those peers for which element is not empty.
func (g Guard) addSet(b *strings.Builder, table, name, typ string, element func(Peer) string) {
	fmt.Fprintf(b, " add set %s %s { %s;", table, name, typ)
	first := true
	for _, p := range g.Peers {
		if e := element(p); e != "" {
			fmt.Fprintf(b, "%s %s", ifElse(first, " elements = {", ","), e)
			first = false
		}
	}
	fmt.Fprintf(b, "%s };", ifElse(first, "", " };"))
}

// element is the peer as nft(8) writes an element of its set.
func (p Peer) element() string {
	if !p.Subnet.IsValid() {
		return p.Addr.String()
	}
	return p.Addr.String() + " . 0x" + hex.EncodeToString(p.Subnet.Addr().AsSlice())
}

func (m Member) command(verb Verb, _ Object) string {
	return fmt.Sprintf("nft '%s element %s %s %s { %s }'", ifElse(verb == Delete, "delete", "add"), nftFamily(FamilyOf(m.Addr)),
		TableOf(GuardTable, m.Net), ifElse(m.Subnet.IsValid(), GuardSources, GuardPeers), m.element())
}
