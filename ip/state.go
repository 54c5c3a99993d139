package ip

import (
	"net/netip"
	"strings"
)

// Protocol marks the routes that Tulle installs (rtnetlink(7), rtm_protocol); the number is free in iproute2's rt_protos.
const Protocol = 84

// ProtocolRA marks routes that the kernel learnt from router advertisements (rtnetlink(7), RTPROT_RA).
const ProtocolRA = 9

// State is what Tulle owns, or should own, in one network namespace.
// The zero State is empty. Order within a slice carries no meaning; Sort gives the canonical one.
type State struct {
	Guards      []Guard
	Links       []Link
	Sysctls     []Sysctl
	Addrs       []Addr
	FDB         []FDB
	Neighbors   []Neighbor
	Routes      []Route
	Unreachable []UnreachableRoute
	Tables      []Table
	Openings    []Opening
	Leftovers   []Leftover
}

// Addr is an address on one of Tulle's links.
type Addr struct {
	Link   string
	Prefix netip.Prefix
}

// FDB is a permanent forwarding entry of a VXLAN device: frames for MAC go to the host at Dst.
type FDB struct {
	Link string
	MAC  MAC
	Dst  netip.Addr
}

// Neighbor is a permanent ARP or NDP entry on one of Tulle's links.
type Neighbor struct {
	Link string
	IP   netip.Addr
	MAC  MAC
}

// Route is a unicast route in the main table.
type Route struct {
	Dst      netip.Prefix
	Via      netip.Addr // zero if the destination is on the link
	Link     string
	Metric   uint32
	Protocol uint8
	OnLink   bool // Via needs no route of its own
	MTU      int  `json:",omitzero"` // bytes of the largest packet that takes it whole (ip-route(8), mtu); 0: that of the link
}

// Sysctl is one setting below /proc/sys, its key written with slashes because device names may hold dots.
type Sysctl struct {
	Key   string
	Value string
	Link  string // the link that it lives and dies with; empty for a host-wide setting

	Optional bool // packets flow without it as well
}

// UnreachableRoute answers what is for a prefix, and takes no other route, with an ICMP error (ip-route(8), unreachable). It is a route of the last metric
// in the main table.
type UnreachableRoute struct{ Dst netip.Prefix }

// LastMetric is that of a route which any other to the same prefix comes before.
const LastMetric = 1<<32 - 1

// ForwardingSetting lets a host forward packets of a family. Written anew, IPv4's sets the forwarding of each link to the same, and IPv6's takes
// away the default routes that router advertisements brought, except where accept_ra is 2 (ip-sysctl).
func ForwardingSetting(f Family) Sysctl {
	if f == IPv4 {
		return Sysctl{Key: "net/ipv4/ip_forward", Value: "1"}
	}
	return Sysctl{Key: "net/ipv6/conf/all/forwarding", Value: "1"}
}

// EachLink stands for all links, in the key and as the link of a setting.
const EachLink = "*"

// LinkSetting is a setting of a link, named as in ip-sysctl: net.ipv4.conf.LINK.NAME.
func LinkSetting(f Family, link, name, value string) Sysctl {
	return Sysctl{Key: "net/" + strings.ToLower(f.String()) + "/conf/" + link + "/" + name, Value: value, Link: link}
}

// Of is the setting of each link for one of them.
func (s Sysctl) Of(link string) Sysctl {
	s.Key, s.Link = strings.Replace(s.Key, "/"+EachLink+"/", "/"+link+"/", 1), link
	return s
}

// Leftover is a packet filter object that a flanneld left behind. It is only ever read and deleted, never wanted.
type Leftover Place // without a chain: the whole table

// Sort puts every slice in canonical order.
func (s *State) Sort() {
	for _, l := range layers() {
		l.sort(s)
	}
}

// Equal reports whether s and t hold the same objects in the same order.
func (s State) Equal(t State) bool {
	for _, l := range layers() {
		if !l.equal(&s, &t) {
			return false
		}
	}
	return true
}

// Clone returns a copy that shares nothing which Exchange changes.
func (s State) Clone() State {
	for _, l := range layers() {
		l.clone(&s)
	}
	return s
}

// Add appends everything in t to s.
func (s *State) Add(t State) {
	for _, l := range layers() {
		l.add(s, &t)
	}
}

// Except returns a state without what is of one network.
func (s State) Except(part Part) State {
	for _, l := range layers() {
		l.except(&s, part)
	}
	return s
}

// Sum returns everything that is in any of the states, sorted: what several networks want of one host. What they share, such as a host's settings,
// is in it once. The sum of one sorted state is that state itself.
func Sum(states ...State) State {
	if len(states) == 1 {
		return states[0]
	}
	var sum State
	for _, s := range states {
		sum.Add(s)
	}
	sum.Sort()
	for _, l := range layers() {
		l.dedupe(&sum)
	}
	return sum
}

// String prints s as the commands that would create it on an empty host, one per line.
func (s State) String() string {
	plan := Diff(State{}, s)
	for _, l := range s.Leftovers {
		plan = append(plan, Op{Verb: Add, New: l})
	}
	return plan.String()
}

// String prints the plan as the ip(8), bridge(8), sysctl(8) and nft(8) commands that an operator could run, one per line.
func (p Plan) String() string {
	var b strings.Builder
	for _, op := range p {
		b.WriteString(op.String())
		b.WriteByte('\n')
	}
	return b.String()
}
