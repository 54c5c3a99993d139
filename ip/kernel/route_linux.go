package kernel

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/notify"
)

// encodeRoute adds the request for a route (rtnetlink(7), struct rtmsg).
//
// A deletion names all that is known of the route: the kernel takes metric 0 for any metric, and the protocol keeps it
// from taking another program's route, or ours, for the one that is meant.
func encodeRoute(b *batch, verb ip.Verb, r ip.Route, link uint32) {
	typ, flags, scope := uint16(unix.RTM_NEWROUTE), uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE), uint8(unix.RT_SCOPE_UNIVERSE)
	switch {
	case verb == ip.Delete:
		typ, flags, scope = unix.RTM_DELROUTE, 0, unix.RT_SCOPE_NOWHERE
	case !r.Via.IsValid() && r.Dst.Addr().Is4():
		scope = unix.RT_SCOPE_LINK
	}
	header := []byte{
		addressFamily(ip.FamilyOf(r.Dst.Addr())), uint8(r.Dst.Bits()), 0, 0,
		unix.RT_TABLE_MAIN, r.Protocol, scope, unix.RTN_UNICAST,
	}
	var routeFlags uint32
	if r.OnLink && verb != ip.Delete {
		routeFlags = unix.RTNH_F_ONLINK
	}
	b.begin(typ, flags, binary.NativeEndian.AppendUint32(header, routeFlags)...)
	b.attrAddr(unix.RTA_DST, r.Dst.Addr())
	b.attrUint32(unix.RTA_PRIORITY, r.Metric)
	if link != 0 {
		b.attrUint32(unix.RTA_OIF, link)
	}
	switch {
	case !r.Via.IsValid():
	case ip.FamilyOf(r.Via) == ip.FamilyOf(r.Dst.Addr()):
		b.attrAddr(unix.RTA_GATEWAY, r.Via)
	default:
		via := binary.NativeEndian.AppendUint16(nil, uint16(addressFamily(ip.FamilyOf(r.Via))))
		b.attr(unix.RTA_VIA, append(via, r.Via.AsSlice()...)...)
	}
	if r.MTU != 0 {
		var metric batch
		metric.attrUint32(unix.RTAX_MTU, uint32(r.MTU))
		b.attr(unix.RTA_METRICS, metric.buf...)
	}
}

// encodeUnreachable adds the request for an unreachable route.
func encodeUnreachable(b *batch, verb ip.Verb, d ip.UnreachableRoute) {
	typ, flags := uint16(unix.RTM_NEWROUTE), uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if verb == ip.Delete {
		typ, flags = unix.RTM_DELROUTE, 0
	}
	b.begin(typ, flags, addressFamily(ip.FamilyOf(d.Dst.Addr())), uint8(d.Dst.Bits()), 0, 0,
		unix.RT_TABLE_MAIN, ip.Protocol, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNREACHABLE, 0, 0, 0, 0)
	b.attrAddr(unix.RTA_DST, d.Dst.Addr())
	b.attrUint32(unix.RTA_PRIORITY, ip.LastMetric)
}

// routeObject is RTA_NH_ID (linux/rtnetlink.h).
const routeObject = 30

// hop is where a route leads.
type hop struct {
	via    netip.Addr
	link   uint32
	onLink bool
	object uint32 // a nexthop object, instead of the others or beside them
	dead   bool   // of several: its link is down, and the kernel uses the others
}

// routeMessage is what the kernel says about a route.
type routeMessage struct {
	dst      netip.Prefix
	src      netip.Prefix // of the packets that it is for; only IPv6 has it
	tos      uint8        // of those; only IPv4
	typ      uint8
	table    uint32
	protocol uint8
	metric   uint32
	mtu      uint32 // bytes; 0: it names none
	source   netip.Addr
	hop      hop
	hops     []hop // of a multipath route, instead of hop
}

// parseRoute parses what is said about a route of a family that we know.
func parseRoute(m message) (r routeMessage, ok bool) {
	if m.typ != unix.RTM_NEWROUTE && m.typ != unix.RTM_DELROUTE || len(m.data) < unix.SizeofRtMsg {
		return r, false
	}
	family, ok := familyOf(m.data[0])
	flags := binary.NativeEndian.Uint32(m.data[8:])
	if !ok || flags&unix.RTM_F_CLONED != 0 && m.flags&unix.NLM_F_MULTI != 0 {
		return r, false
	}
	r.tos = m.data[3]
	r.table, r.protocol, r.typ = uint32(m.data[4]), m.data[5], m.data[7]
	r.hop.onLink = flags&unix.RTNH_F_ONLINK != 0
	dst := netip.IPv4Unspecified()
	if family == ip.IPv6 {
		dst = netip.IPv6Unspecified()
	}
	for typ, value := range notify.Attributes(m.data[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_DST:
			dst = toAddr(value)
		case unix.RTA_SRC:
			r.src = netip.PrefixFrom(toAddr(value), int(m.data[2]))
		case unix.RTA_TABLE:
			r.table = binary.NativeEndian.Uint32(value)
		case unix.RTA_PRIORITY:
			r.metric = binary.NativeEndian.Uint32(value)
		case unix.RTA_PREFSRC:
			r.source = toAddr(value)
		case unix.RTA_METRICS:
			for metric, value := range notify.Attributes(value) {
				if metric == unix.RTAX_MTU && len(value) == 4 {
					r.mtu = binary.NativeEndian.Uint32(value)
				}
			}
		case unix.RTA_MULTIPATH:
			r.hops = parseHops(value)
		default:
			r.hop.parse(typ, value)
		}
	}
	r.dst = netip.PrefixFrom(dst, int(m.data[1]))
	return r, r.dst.IsValid()
}

func (h *hop) parse(typ uint16, value []byte) {
	switch {
	case typ == unix.RTA_OIF && len(value) == 4:
		h.link = binary.NativeEndian.Uint32(value)
	case typ == routeObject && len(value) == 4:
		h.object = binary.NativeEndian.Uint32(value)
	case typ == unix.RTA_GATEWAY:
		h.via = toAddr(value)
	case typ == unix.RTA_VIA && len(value) > 2:
		h.via = toAddr(value[2:])
	}
}

// parseHops parses the nexthops of a multipath route (rtnetlink(7), struct rtnexthop).
func parseHops(b []byte) []hop {
	var hops []hop
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		h := hop{link: binary.NativeEndian.Uint32(b[4:]), onLink: b[2]&unix.RTNH_F_ONLINK != 0, dead: b[2]&unix.RTNH_F_DEAD != 0}
		for typ, value := range notify.Attributes(b[unix.SizeofRtNexthop:n]) {
			h.parse(typ, value)
		}
		hops = append(hops, h)
		b = b[min(notify.Align(n), len(b)):]
	}
	return hops
}

// route is r through one of its hops.
func (r routeMessage) route(h hop, names map[uint32]string) ip.Route {
	return ip.Route{
		Dst: r.dst, Via: h.via, Link: names[h.link], Metric: r.metric, Protocol: r.protocol, OnLink: h.onLink, MTU: int(r.mtu),
	}
}

// addRoute sorts a route, one of so many, into the snapshot.
func (rd *reading) addRoute(r routeMessage, of int) {
	if r.typ == unix.RTN_UNREACHABLE && r.table == unix.RT_TABLE_MAIN && r.protocol == ip.Protocol && r.metric == ip.LastMetric && rd.inNetworks(r.dst) {
		rd.Owned.Unreachable = append(rd.Owned.Unreachable, ip.UnreachableRoute{Dst: r.dst})
		return
	}
	hops := r.hops
	if hops == nil {
		hops = []hop{r.hop}
	}
	if r.typ == unix.RTN_UNICAST && !rd.inNetworks(r.dst) {
		rd.narrow(r, hops)
	}
	matters := r.dst.Bits() == 0 || rd.leads(r.dst)
	rd.links.lead(r, hops, matters)
	if r.typ != unix.RTN_UNICAST || r.table != unix.RT_TABLE_MAIN {
		if matters {
			rd.addOther(r, hops)
		}
		return
	}
	if r.dst.Bits() == 0 {
		for _, h := range hops {
			if rd.names[h.link] == "" { // it is by a nexthop object, which alone knows its interface
				hidden := r // an own variable, for it is allocated
				rd.hidden.Set(ip.FamilyOf(r.dst.Addr()), &hidden)
				continue
			}
			rd.prefer(rd.names[h.link], r.source)
			rd.Defaults = append(rd.Defaults, r.route(h, rd.names))
		}
	}
	inside := rd.inNetworks(r.dst)
	own := rd.owns(r, hops, inside)
	if !own && matters {
		rd.addOther(r, hops)
	}
	switch {
	case own:
		if len(hops) > 1 && r.dst.Addr().Is4() {
			// Tulle never makes one. The kernel replaces or deletes it only as a whole, so it is one route that
			// leads nowhere and so differs from every wanted one. The hops of an IPv6 route are routes of their own.
			hops = []hop{{}}
		}
		for _, h := range hops {
			rd.Owned.Routes = appendUpTo(rd.Owned.Routes, of, r.route(h, rd.names))
		}
	case inside:
		for _, h := range hops {
			if h.via.IsValid() {
				rd.Foreign = append(rd.Foreign, r.route(h, rd.names))
			}
		}
	}
}

// narrow takes note of the MTU that a route names. Which of several packets take is not looked at: the smallest is safe.
func (rd *reading) narrow(r routeMessage, hops []hop) {
	if r.mtu == 0 {
		return
	}
	narrowest := func(a, b ip.RouteMTU) int {
		return cmp.Or(cmp.Compare(a.Bytes, b.Bytes), ip.ComparePrefix(a.Dst, b.Dst))
	}
	for i := range rd.Interfaces {
		named, has := ip.RouteMTU{Bytes: int(r.mtu), Dst: r.dst}, &rd.Interfaces[i].RouteMTU
		over := slices.ContainsFunc(hops, func(h hop) bool { return rd.names[h.link] == rd.Interfaces[i].Name })
		if over && (has.Bytes == 0 || narrowest(named, *has) < 0) {
			*has = named
		}
	}
}

// prefer marks the address of an interface that a default route over it names as its source.
func (rd *reading) prefer(link string, source netip.Addr) {
	for i := range rd.Interfaces {
		for a := range rd.Interfaces[i].Addrs {
			if addr := &rd.Interfaces[i].Addrs[a]; rd.Interfaces[i].Name == link && addr.Prefix.Addr() == source {
				addr.Preferred = true
			}
		}
	}
}

// owns reports whether the route is Tulle's: by its protocol, or by the link that it goes through unless the kernel
// made it by itself.
func (rd *reading) owns(r routeMessage, hops []hop, inside bool) bool {
	if r.protocol == ip.Protocol && inside {
		return true
	}
	family := ip.FamilyOf(r.dst.Addr())
	if r.protocol == unix.RTPROT_KERNEL || r.protocol == unix.RTPROT_RA ||
		ip.Contains(family.LinkLocal(), r.dst) || ip.Contains(family.Multicast(), r.dst) {
		return false
	}
	return slices.ContainsFunc(hops, func(h hop) bool { return rd.own[h.link] != "" })
}

// readRoutes dumps both families at once: a kernel without IPv6 answers that, too.
func (rd *reading) readRoutes(s *socket) error {
	routes, err := dump(s, unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg), parseRoute)
	for _, r := range routes {
		rd.addRoute(r, len(routes))
	}
	if err != nil {
		return err
	}
	if err := rd.readObjects(s); err != nil {
		return err
	}
	if err := rd.askDefaults(s); err != nil {
		return err
	}
	slices.SortStableFunc(rd.Defaults, func(a, b ip.Route) int {
		return cmp.Or(cmp.Compare(ip.FamilyOf(a.Dst.Addr()), ip.FamilyOf(b.Dst.Addr())), cmp.Compare(a.Metric, b.Metric))
	})
	return nil
}

// askDefaults asks for the default route where the main table does not tell it: it is in another table, to which a rule leads, or by a
// nexthop object.
func (rd *reading) askDefaults(s *socket) error {
	var questions []ip.Question
	for _, f := range ip.Families() {
		shown := slices.ContainsFunc(rd.Defaults, func(r ip.Route) bool { return ip.FamilyOf(r.Dst.Addr()) == f })
		if !shown || rd.hidden.Of(f) != nil {
			questions = append(questions, ip.Question{Dst: f.Elsewhere()})
		}
	}
	answers, _, err := ask(s, rd.names, rd.noARP, questions, rd.links.led)
	for i, a := range answers {
		if a.Kind != ip.Unicast || a.Link == "" {
			continue
		}
		f := ip.FamilyOf(questions[i].Dst)
		rd.prefer(a.Link, a.Source)
		rd.Defaults = slices.Insert(rd.Defaults, 0, ip.Route{Dst: f.All(), Via: a.Gateway, Link: a.Link})
		if r := rd.hidden.Of(f); r != nil {
			if index, ok := indexOf(rd.names, a.Link); ok {
				rd.narrow(*r, []hop{{link: index}})
			}
		}
	}
	return err
}

// addOther takes note of a route that is not Tulle's and may lead packets to what matters elsewhere.
func (rd *reading) addOther(r routeMessage, hops []hop) {
	switch family := ip.FamilyOf(r.dst.Addr()); {
	case r.typ == unix.RTN_BROADCAST || r.typ == unix.RTN_MULTICAST || r.typ == unix.RTN_ANYCAST:
		return
	case ip.Contains(family.LinkLocal(), r.dst) || ip.Contains(family.Multicast(), r.dst):
		return // they come with each container
	}
	for _, h := range hops {
		rd.Others.Sum += maphash.Comparable(rd.seed, struct {
			dst, src netip.Prefix
			tos, typ uint8
			table    uint32
			protocol uint8
			metric   uint32
			source   netip.Addr
			hop      hop
		}{r.dst, r.src, r.tos, r.typ, r.table, r.protocol, r.metric, r.source, h})
	}
	if r.tos != 0 || rd.inNetworks(r.src) {
		rd.Others.Conditions = append(rd.Others.Conditions, ip.Condition{
			Family: ip.FamilyOf(r.dst.Addr()), Src: r.src, Dst: r.dst, Selector: ip.Selector{TOS: r.tos},
			What: fmt.Sprintf("the route to %s with tos %#x", r.dst, r.tos),
			Show: fmt.Sprintf("%s route show %s tos %#x table %d", ip.FamilyOf(r.dst.Addr()).Command(), r.dst, r.tos, r.table),
		})
	}
	if rd.inNetworks(r.dst) {
		rd.Others.Into = append(rd.Others.Into, r.dst)
	}
}
