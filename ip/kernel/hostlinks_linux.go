package kernel

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/notify"
)

// hostLinks tells which links matter: those in scope, those that have an address by which more than their neighbours reach them, and those that packets
// are led over, since IPv4 routes vanish with their link without a notification. Links of containers come and go all day.
//
// It is locked while links and routes are read, and while the kernel is asked: a change is either in what that yields, or looked at afterwards.
type hostLinks struct {
	mu       sync.Mutex
	last     *linkReading    // nil: every link matters
	answered map[uint32]bool // links that packets take by the kernel's answers
}

// linkReading is what was read of links and of routes over them.
type linkReading struct {
	networks  []netip.Prefix
	named     map[string]bool   // what is read by the link's name
	own       map[uint32]string // links in scope
	states    map[uint32]linkState
	addressed map[uint32]bool
	led       map[uint32]bool           // links of routes; 0 stands for all
	objects   map[uint32][]netip.Prefix // where routes by a nexthop object, or by a group that it is in, lead to
}

// linkState is what a snapshot tells of a link of others, and what the kernel's answers depend on.
type linkState struct {
	name, altNames     string
	mtu, master, flags uint32
	xdp                bool // a program hangs there
}

// carrier is what a bridge of containers gets with the first of them, and loses with the last. The kernel may pass over routes by links without it (ip-sysctl, ignore_routes_with_linkdown).
const carrier = unix.IFF_RUNNING | unix.IFF_LOWER_UP

func stateOf(link netlink.Link) linkState {
	attrs := link.Attrs()
	return linkState{
		name: attrs.Name, altNames: strings.Join(attrs.AltNames, " "), mtu: uint32(attrs.MTU), master: uint32(attrs.MasterIndex),
		flags: attrs.RawFlags & (unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_NOARP | carrier), xdp: attrs.Xdp != nil && attrs.Xdp.Attached,
	}
}

func newLinkReading(scope ip.Scope, own map[uint32]string) linkReading {
	l := linkReading{slices.Clone(scope.Networks), map[string]bool{}, own, map[uint32]linkState{}, map[uint32]bool{}, map[uint32]bool{}, map[uint32][]netip.Prefix{}}
	for _, name := range scope.Links {
		l.named[name] = true
	}
	for _, s := range scope.Sysctls {
		l.named[s.Link] = true
	}
	return l
}

// add takes in a link and its addresses.
func (l *linkReading) add(link netlink.Link, addrs []ip.InterfaceAddr) {
	index := uint32(link.Attrs().Index)
	l.states[index] = stateOf(link)
	l.addressed[index] = slices.ContainsFunc(addrs, func(a ip.InterfaceAddr) bool { return l.reaches(a.Prefix) })
}

// reaches reports whether an address is of use beyond its link. IPv6 gives every link one that is not.
func (l *linkReading) reaches(p netip.Prefix) bool {
	return !p.Addr().Is6() || !p.Addr().IsLinkLocalUnicast() || slices.ContainsFunc(l.networks, p.Overlaps)
}

// lead takes in a route over links. Those that the kernel makes for an address go with it; and one to a single host that has not been asked for is of a container.
func (l *linkReading) lead(r routeMessage, hops []hop, matters bool) {
	if id := r.hop.object; id != 0 {
		l.objects[id] = append(l.objects[id], r.dst)
	}
	if r.typ != unix.RTN_UNICAST || r.protocol == unix.RTPROT_KERNEL || r.dst.IsSingleIP() && !matters {
		return
	}
	for _, h := range hops {
		l.led[h.link] = true // 0, if a nexthop object is named without its link
	}
}

// read reads links and routes.
func (h *hostLinks) read(into *linkReading, read func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = nil
	if err := read(); err != nil {
		return err
	}
	for index := range h.answered {
		if _, ok := into.states[index]; !ok {
			delete(h.answered, index)
		}
	}
	h.last = into
	return nil
}

// ask asks about packets, and remembers over which links answers lead.
func (h *hostLinks) ask(s *socket, names map[uint32]string, noARP map[string]bool, questions []ip.Question) (answers []ip.Answer, known bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return ask(s, names, noARP, questions, h.answered)
}

// concerns reports whether a notification of a link, an address or the settings of a link may be about something that a snapshot or an answer would show
// differently from the last one.
func (h *hostLinks) concerns(m message) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.last == nil:
		return true
	case m.typ == unix.RTM_NEWADDR || m.typ == unix.RTM_DELADDR:
		return h.last.concernsAddr(m)
	case m.typ == unix.RTM_NEWNETCONF || m.typ == unix.RTM_DELNETCONF:
		return h.concernsNetconf(m)
	}
	return h.concernsLink(m)
}

// leads reports whether packets are led over a link.
func (h *hostLinks) leads(index uint32) bool {
	return h.last.led[index] || h.last.led[0] || h.answered[index]
}

func (h *hostLinks) matters(index uint32) bool {
	return h.last.own[index] != "" || h.last.addressed[index] || h.leads(index)
}

func (h *hostLinks) concernsLink(m message) bool {
	if len(m.data) < unix.SizeofIfInfomsg {
		return true
	}
	if m.data[0] == unix.AF_BRIDGE {
		return false // a port's part in its bridge; whose port a link is, is told of the link, too
	}
	index := binary.NativeEndian.Uint32(m.data[4:])
	switch {
	case h.last.own[index] != "" || h.last.named[linkName(m)]:
		return true
	case !h.matters(index):
		return false
	case m.typ == unix.RTM_DELLINK:
		return true
	}
	link, err := netlink.LinkDeserialize(nil, m.data)
	if err != nil {
		return true
	}
	return h.last.states[index] != stateOf(link)
}

// concernsObject reports whether a notification of a nexthop object may be about where packets are led: routes by it change with it, and those of IPv4 are
// not always told then, nor when they go with it.
func (h *hostLinks) concernsObject(m message, matters func(netip.Prefix) bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	o, ok := parseObject(m)
	if h.last == nil || !ok || h.last.own[o.link] != "" {
		return true
	}
	return slices.ContainsFunc(h.last.objects[o.id], func(dst netip.Prefix) bool { return dst.Bits() == 0 || matters(dst) })
}

func linkName(m message) string {
	for typ, value := range notify.Attributes(m.data[unix.SizeofIfInfomsg:]) {
		if typ == unix.IFLA_IFNAME {
			return text(value)
		}
	}
	return ""
}

func (l *linkReading) concernsAddr(m message) bool {
	if len(m.data) < unix.SizeofIfAddrmsg || l.own[binary.NativeEndian.Uint32(m.data[4:])] != "" {
		return true
	}
	named := false
	for typ, value := range notify.Attributes(m.data[unix.SizeofIfAddrmsg:]) {
		// Where both are told, the second is that of the other end.
		if addr := toAddr(value); (typ == unix.IFA_LOCAL || typ == unix.IFA_ADDRESS) && addr.IsValid() {
			if named = true; l.reaches(netip.PrefixFrom(addr, int(m.data[1]))) {
				return true
			}
		}
	}
	return !named
}

// Of a notification about settings (linux/netconf.h).
const (
	netconfHeader = 4 // the size of struct netconfmsg, padded, in bytes
	netconfLink   = 1 // NETCONFA_IFINDEX; negative for those of all links, and for what new ones get
)

func (h *hostLinks) concernsNetconf(m message) bool {
	if len(m.data) < netconfHeader {
		return true
	}
	for typ, value := range notify.Attributes(m.data[netconfHeader:]) {
		if typ == netconfLink && len(value) == 4 {
			index := binary.NativeEndian.Uint32(value)
			return int32(index) < 0 || h.matters(index)
		}
	}
	return true
}
