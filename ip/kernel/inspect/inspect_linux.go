package inspect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// dumpAttempts bounds how often a list is read again because it changed meanwhile.
const dumpAttempts = 10

// Reader reads the network namespace that it was opened in, from any goroutine.
type Reader struct{ h *netlink.Handle }

// Open opens a Reader in the namespace of the calling thread.
func Open() (*Reader, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &Reader{h}, nil
}

// Close lets go of the namespace.
func (r *Reader) Close() { r.h.Close() }

// Links lists all links.
func (r *Reader) Links() ([]Link, error) {
	found, err := dump(r.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return r.h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	names := map[int]string{}
	for _, l := range found {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	links := make([]Link, len(found))
	for i, l := range found {
		links[i] = linkOf(l, names, addrs)
	}
	return links, nil
}

func linkOf(l netlink.Link, names map[int]string, addrs []netlink.Addr) Link {
	a := l.Attrs()
	link := Link{
		Index: a.Index, PeerIndex: a.ParentIndex, Name: a.Name, Kind: l.Type(), Master: names[a.MasterIndex], MTU: a.MTU, MAC: a.HardwareAddr.String(),
		Up: a.Flags&net.FlagUp != 0, Loopback: a.Flags&net.FlagLoopback != 0, NoCarrier: a.Flags&net.FlagUp != 0 && a.RawFlags&unix.IFF_LOWER_UP == 0,
		NoARP: a.RawFlags&unix.IFF_NOARP != 0, Namespace: a.NetNsID,
	}
	if s := a.Statistics; s != nil {
		link.RxDropped, link.TxDropped, link.RxErrors, link.TxErrors = s.RxDropped, s.TxDropped, s.RxErrors, s.TxErrors
	}
	if v, ok := l.(*netlink.Vxlan); ok {
		link.VNI, link.UDPPort = uint32(v.VxlanId), uint16(v.Port)
	}
	for _, one := range addrs {
		if p, ok := prefixOf(one.IPNet); ok && one.LinkIndex == a.Index && !p.Addr().IsLinkLocalUnicast() {
			link.Addrs = append(link.Addrs, p)
		}
	}
	return link
}

// Routes lists the routes of the main table.
func (r *Reader) Routes() ([]Route, error) {
	found, err := dump(func() ([]netlink.Route, error) { return r.h.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	names, err := r.names()
	if err != nil {
		return nil, err
	}
	var routes []Route
	for _, one := range found {
		if route := routeOf(one, names); !route.Dst.Addr().IsLinkLocalUnicast() && !route.Dst.Addr().IsMulticast() {
			routes = append(routes, route)
		}
	}
	return routes, nil
}

// Route asks how the kernel would send a packet to an address.
func (r *Reader) Route(dst netip.Addr) (Route, error) {
	found, err := r.h.RouteGet(dst.AsSlice())
	switch {
	case errors.Is(err, unix.ENETUNREACH):
		return Route{Kind: ip.Unrouted}, nil
	case errors.Is(err, unix.EHOSTUNREACH):
		return Route{Kind: ip.Unreachable}, nil
	case errors.Is(err, unix.EACCES):
		return Route{Kind: ip.Prohibit}, nil
	case errors.Is(err, unix.EINVAL):
		return Route{Kind: ip.Blackhole}, nil
	case err != nil:
		return Route{}, fmt.Errorf("ask for the route to %s: %w", dst, err)
	case len(found) == 0:
		return Route{Kind: ip.Unrouted}, nil
	}
	names, err := r.names()
	return routeOf(found[0], names), err
}

func (r *Reader) names() (map[int]string, error) {
	links, err := dump(r.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, nil
}

func routeOf(one netlink.Route, names map[int]string) Route {
	route := Route{Link: names[one.LinkIndex], MTU: one.MTU, Kind: kindOf(one.Type)}
	route.Via, _ = netip.AddrFromSlice(one.Gw)
	route.Source, _ = netip.AddrFromSlice(one.Src)
	route.Via, route.Source = route.Via.Unmap(), route.Source.Unmap()
	if len(one.MultiPath) > 0 && route.Link == "" {
		first := one.MultiPath[0]
		route.Link = names[first.LinkIndex]
		via, _ := netip.AddrFromSlice(first.Gw)
		route.Via = via.Unmap()
	}
	if p, ok := prefixOf(one.Dst); ok {
		route.Dst = p
	} else {
		unspecified := netip.IPv4Unspecified()
		if one.Family == unix.AF_INET6 {
			unspecified = netip.IPv6Unspecified()
		}
		route.Dst = netip.PrefixFrom(unspecified, 0)
	}
	return route
}

func kindOf(t int) ip.RouteType {
	switch t {
	case unix.RTN_LOCAL:
		return ip.Local
	case unix.RTN_BLACKHOLE:
		return ip.Blackhole
	case unix.RTN_UNREACHABLE:
		return ip.Unreachable
	case unix.RTN_PROHIBIT:
		return ip.Prohibit
	}
	return ip.Unicast
}

// Neighbors lists the entries of the neighbour tables.
func (r *Reader) Neighbors() ([]Neighbor, error) { return r.neighbors(netlink.FAMILY_ALL) }

// Stations lists the forwarding entries of VXLAN devices that say where a frame goes.
func (r *Reader) Stations() ([]Neighbor, error) {
	all, err := r.neighbors(unix.AF_BRIDGE)
	return slices.DeleteFunc(all, func(n Neighbor) bool { return !n.Dst.IsValid() }), err
}

func (r *Reader) neighbors(family int) ([]Neighbor, error) {
	found, err := dump(func() ([]netlink.Neigh, error) { return r.h.NeighList(0, family) })
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	names, err := r.names()
	if err != nil {
		return nil, err
	}
	var list []Neighbor
	for _, one := range found {
		n := Neighbor{MAC: one.HardwareAddr.String(), Link: names[one.LinkIndex], State: stateOf(one.State), Permanent: one.State&unix.NUD_PERMANENT != 0}
		addr, _ := netip.AddrFromSlice(one.IP)
		if n.Addr = addr.Unmap(); family == unix.AF_BRIDGE {
			n.Addr, n.Dst = netip.Addr{}, addr.Unmap()
		}
		list = append(list, n)
	}
	return list, nil
}

func stateOf(state int) string {
	for _, s := range []struct {
		bit  int
		name string
	}{
		{unix.NUD_PERMANENT, "PERMANENT"}, {unix.NUD_NOARP, "NOARP"}, {unix.NUD_REACHABLE, "REACHABLE"}, {unix.NUD_STALE, "STALE"}, {unix.NUD_DELAY, "DELAY"},
		{unix.NUD_PROBE, "PROBE"}, {unix.NUD_FAILED, "FAILED"}, {unix.NUD_INCOMPLETE, "INCOMPLETE"},
	} {
		if state&s.bit != 0 {
			return s.name
		}
	}
	return "NONE"
}

// NamespaceID is the number by which links here name the namespace of a descriptor; -1 if none does.
func (r *Reader) NamespaceID(fd int) (int, error) {
	id, err := r.h.GetNetNsIdByFd(fd)
	if err != nil {
		return -1, fmt.Errorf("ask for the id of a network namespace: %w", err)
	}
	return id, nil
}

// Attributes of neighbour tables, and where in them numbers are (linux/neighbour.h).
const (
	ndtaThresh3 = 4
	ndtaStats   = 7

	statsFull = 10 * 8
)

// NeighborTables tells what bounds them.
func NeighborTables() (tables ip.Dual[*Table], err error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETNEIGHTBL, unix.NLM_F_DUMP)
	request.AddData(&nl.RtGenMsg{})
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGHTBL)
	if err != nil {
		return tables, fmt.Errorf("read neighbour tables: %w", err)
	}
	for _, m := range messages {
		if len(m) < 4 || m[0] != unix.AF_INET && m[0] != unix.AF_INET6 {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[4:])
		if err != nil {
			return tables, fmt.Errorf("read neighbour tables: %w", err)
		}
		var t Table
		for _, a := range attrs {
			switch v := a.Value; a.Attr.Type &^ unix.NLA_F_NESTED {
			case ndtaThresh3:
				if len(v) >= 4 {
					t.Max = int(nl.NativeEndian().Uint32(v))
				}
			case ndtaStats:
				if len(v) >= statsFull+8 {
					t.Full = nl.NativeEndian().Uint64(v[statsFull:])
				}
			}
		}
		if t.Max == 0 {
			continue // what it says of one link alone
		}
		if m[0] == unix.AF_INET6 {
			tables.V6 = &t
		} else {
			tables.V4 = &t
		}
	}
	return tables, nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits), ok
}

// dump reads a list until no change interrupts it.
func dump[T any](list func() (T, error)) (T, error) {
	for attempt := 1; ; attempt++ {
		got, err := list()
		if attempt == dumpAttempts || !errors.Is(err, netlink.ErrDumpInterrupted) {
			return got, err
		}
	}
}
