package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// applyLink makes, changes or deletes a link.
func (k *Kernel) applyLink(verb ip.Verb, want, have ip.Link) error {
	if verb == ip.Add {
		return k.addLink(want)
	}
	if verb == ip.Delete {
		want = have
	}
	link, err := k.links.LinkByName(want.Name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return unix.ENODEV
	}
	if err == nil && verb == ip.Delete {
		return k.links.LinkDel(link)
	}
	if err == nil && want.MAC != have.MAC {
		err = k.links.LinkSetHardwareAddr(link, want.MAC[:])
	}
	if err == nil && want.MTU != have.MTU {
		err = k.links.LinkSetMTU(link, want.MTU)
	}
	if err == nil && want.Master != have.Master {
		err = k.setMaster(link, want.Master)
	}
	if err == nil && want.NoARP != have.NoARP {
		set := k.links.LinkSetARPOn
		if want.NoARP {
			set = k.links.LinkSetARPOff
		}
		err = set(link)
	}
	if err == nil && want.Up != have.Up {
		set := k.links.LinkSetDown
		if want.Up {
			set = k.links.LinkSetUp
		}
		err = k.occupied(want, set(link)) // the port is opened only now
	}
	return err
}

func (k *Kernel) setMaster(link netlink.Link, name string) error {
	if name == "" {
		return k.links.LinkSetNoMaster(link)
	}
	master, err := k.links.LinkByName(name)
	if err != nil {
		return err
	}
	return k.links.LinkSetMaster(link, master)
}

// addLink makes a device. Its MAC is set here and not later because udev leaves alone only what was given at
// creation; it is bound to no other device, so it survives the uplink, and needs its MTU told.
func (k *Kernel) addLink(l ip.Link) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = l.Name
	if !l.MAC.IsZero() {
		attrs.HardwareAddr = l.MAC[:]
	}
	attrs.MTU = l.MTU
	if l.Up {
		attrs.Flags |= net.FlagUp
	}
	link, err := newLink(attrs, l.Kind)
	if err != nil {
		return err
	}
	return k.occupied(l, k.links.LinkAdd(link))
}

// occupied adds to the error of a VXLAN device who else has its VNI or its port: the kernel names none.
func (k *Kernel) occupied(l ip.Link, err error) error {
	want, isVXLAN := l.Kind.(ip.VXLAN)
	if !isVXLAN || !errors.Is(err, unix.EADDRINUSE) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	links, listErr := retry(k.links.LinkList)
	if listErr != nil {
		return err
	}
	for _, link := range links {
		if v, ok := link.(*netlink.Vxlan); ok && v.Name != l.Name && v.Port == int(want.Port) && (v.VxlanId == int(want.VNI) || errors.Is(err, unix.EADDRINUSE)) {
			return fmt.Errorf("%w: the device %s has VNI %d on UDP port %d: stop what made it and run ip link del %s, or give this network another VNI and Port with tulle config set",
				err, v.Name, v.VxlanId, v.Port, ip.ShellWord(v.Name))
		}
	}
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w: UDP port %d is taken by a program, which ss -ulnp sport = :%d names: stop it, or give this network another Port with tulle config set", err, want.Port, want.Port)
	}
	return err
}

// encodeAddr adds the request for an address (rtnetlink(7), struct ifaddrmsg).
func encodeAddr(b *batch, verb ip.Verb, a ip.Addr, link uint32) {
	typ, flags := uint16(unix.RTM_NEWADDR), uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if verb == ip.Delete {
		typ, flags = unix.RTM_DELADDR, 0
	}
	addr := a.Prefix.Addr()
	header := []byte{addressFamily(ip.FamilyOf(addr)), uint8(a.Prefix.Bits()), 0, unix.RT_SCOPE_UNIVERSE}
	b.begin(typ, flags, binary.NativeEndian.AppendUint32(header, link)...)
	b.attrAddr(unix.IFA_LOCAL, addr)
	b.attrAddr(unix.IFA_ADDRESS, addr)
	if addr.Is6() {
		b.attrUint32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	}
}

// readLinks reads the interfaces of the host and their addresses, and which of them are ours.
func (rd *reading) readLinks(h *netlink.Handle) error {
	links, err := retry(h.LinkList)
	if err != nil {
		return err
	}
	addrs, err := retry(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	byLink := map[int][]ip.InterfaceAddr{}
	for _, a := range addrs {
		if p, ok := toPrefix(a.IPNet); ok {
			byLink[a.LinkIndex] = append(byLink[a.LinkIndex], interfaceAddr(p, a.Flags, a.Scope))
		}
	}
	for _, link := range links {
		rd.names[uint32(link.Attrs().Index)] = link.Attrs().Name
	}
	uplinks := rd.below(links)
	for _, link := range links {
		attrs := link.Attrs()
		index := uint32(attrs.Index)
		rd.links.add(link, byLink[attrs.Index])
		rd.noARP[attrs.Name] = attrs.RawFlags&unix.IFF_NOARP != 0
		rd.Interfaces = append(rd.Interfaces, ip.Interface{
			Name:      attrs.Name,
			AltNames:  attrs.AltNames,
			Kind:      link.Type(),
			MTU:       attrs.MTU,
			Up:        attrs.Flags&net.FlagUp != 0,
			Loopback:  attrs.Flags&net.FlagLoopback != 0,
			NoARP:     rd.noARP[attrs.Name],
			NoCarrier: attrs.RawFlags&(unix.IFF_UP|unix.IFF_LOWER_UP) == unix.IFF_UP,
			Addrs:     byLink[attrs.Index],
		})
		if rd.scopeLinks[attrs.Name] || uplinks[attrs.Index] || slices.ContainsFunc(byLink[attrs.Index], rd.ofContainers) {
			rd.filtered[index], rd.links.led[index] = attrs.Name, true
			rd.between[attrs.Name] = uplinks[attrs.Index] && !rd.scopeLinks[attrs.Name]
			if attrs.Xdp != nil && attrs.Xdp.Attached {
				rd.addDeviceFilter(attrs.Name, "an XDP program", "ip link show dev "+ip.ShellWord(attrs.Name))
			}
		}
		if !rd.scopeLinks[attrs.Name] {
			continue
		}
		rd.own[index] = attrs.Name
		own := parseLink(link)
		own.Master = rd.names[uint32(attrs.MasterIndex)]
		rd.Owned.Links = append(rd.Owned.Links, own)
		for _, a := range byLink[attrs.Index] {
			if rd.inNetworks(a.Prefix) {
				rd.Owned.Addrs = append(rd.Owned.Addrs, ip.Addr{Link: attrs.Name, Prefix: a.Prefix})
			}
		}
	}
	return nil
}

// ofContainers reports whether a link with an address leads to containers as a bridge does. A link for one container alone has only its own.
func (rd *reading) ofContainers(a ip.InterfaceAddr) bool {
	return rd.inNetworks(a.Prefix) && !a.Prefix.IsSingleIP()
}

// below returns the indexes of the uplinks and of the links that they are made of, through which their packets go, too.
func (rd *reading) below(links []netlink.Link) map[int]bool {
	found := map[int]bool{}
	var add func(link netlink.Link)
	add = func(upper netlink.Link) {
		found[upper.Attrs().Index] = true
		for _, link := range links {
			lower, kind := link.Attrs(), upper.Type()
			member := lower.MasterIndex == upper.Attrs().Index && (kind == "bond" || kind == "team")
			parent := lower.Index == upper.Attrs().ParentIndex && upper.Attrs().NetNsID < 0 && (kind == "vlan" || kind == "macvlan" || kind == "ipvlan")
			if (member || parent) && !found[lower.Index] {
				add(link)
			}
		}
	}
	for _, link := range links {
		if slices.Contains(rd.scope.Uplinks, link.Attrs().Name) {
			add(link)
		}
	}
	return found
}

// parseLink reads a link of ours.
func parseLink(link netlink.Link) ip.Link {
	attrs := link.Attrs()
	l := ip.Link{Name: attrs.Name, MTU: attrs.MTU, Up: attrs.Flags&net.FlagUp != 0}
	if len(attrs.HardwareAddr) == len(l.MAC) {
		l.MAC = ip.MAC(attrs.HardwareAddr)
	}
	l.Kind = parseKind(link)
	l.NoARP = attrs.RawFlags&unix.IFF_NOARP != 0 && (l.Kind == nil || l.Kind.Ethernet())
	return l
}

func interfaceAddr(p netip.Prefix, flags, scope int) ip.InterfaceAddr {
	return ip.InterfaceAddr{
		Prefix:  p,
		Dynamic: flags&unix.IFA_F_PERMANENT == 0,
		// The same bit marks a secondary address of IPv4, which is nothing special.
		Temporary:  p.Addr().Is6() && flags&unix.IFA_F_TEMPORARY != 0,
		Deprecated: flags&unix.IFA_F_DEPRECATED != 0,
		Unusable: scope == unix.RT_SCOPE_HOST || scope == unix.RT_SCOPE_NOWHERE || flags&unix.IFA_F_DADFAILED != 0 ||
			flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_OPTIMISTIC) == unix.IFA_F_TENTATIVE,
	}
}

func toPrefix(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if ok && bits == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, ones), ok && addr.BitLen() == bits
}
