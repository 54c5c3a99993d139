//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"

	"tulle/internal/netns"
	"tulle/ip"
)

// The underlay of 3 hosts on 2 segments, every box a network namespace:
//
//	┌───────────────────────── router ──────────────────────────┐
//	│  etcd                                                     │
//	│  seg1 172.30.1.254                 seg2 172.30.2.254      │
//	│       fd30:0:0:1::fe                    fd30:0:0:2::fe    │
//	└───┬────────────────┬─────────────────────────┬────────────┘
//	    │ eth0           │ eth0                    │ eth0
//	┌── h1 172.30.1.1 ┐┌─ h2 172.30.1.2 ┐     ┌── h3 172.30.2.3 ┐
//	│  tulled         ││  tulled        │     │  tulled         │
//	│  cni0           ││  cni0          │     │  cni0           │
//	└───┬────────┬────┘└──┬────────┬────┘     └───┬────────┬────┘
//	    │ eth0   │        │        │              │        │
//	  h1/c1    h1/c2    h2/c1    h2/c2          h3/c1    h3/c2
const (
	uplink      = "eth0"
	underlayMTU = 1500
	maxHosts    = 250
	maxSegments = 250
)

var defaultNetwork = ip.Dual[netip.Prefix]{
	V4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244}), 16),
	V6: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x10, 0x02, 0x44}), 48),
}

// segmentPrefix is the network of segment s, counted from 1.
func segmentPrefix(family ip.Family, s int) netip.Prefix {
	if family == ip.IPv4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 30, byte(s)}), 24)
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x30, 7: byte(s)}), 64)
}

// routerAddr is the router's address in segment s.
func routerAddr(family ip.Family, s int) netip.Addr { return nth(segmentPrefix(family, s).Addr(), 254) }

// RouterAddr is the router's address in a segment, which is outside the overlay.
func (l *Lab) RouterAddr(family ip.Family, segment int) netip.Addr {
	return routerAddr(family, segment)
}

// nth returns the address n after addr.
func nth(addr netip.Addr, n int64) netip.Addr {
	sum := new(big.Int).Add(ip.Number(addr), big.NewInt(n))
	if after, ok := ip.AddrOf(ip.FamilyOf(addr), sum); ok {
		return after
	}
	return netip.Addr{}
}

// localMAC is a locally administered unicast address with the given tail.
func localMAC(tail ...byte) net.HardwareAddr {
	mac := net.HardwareAddr{0x02, 0, 0, 0, 0, 0}
	copy(mac[6-len(tail):], tail)
	return mac
}

// pins is where namespaces are pinned, empty if they are not.
func (l *Lab) pins() string {
	if !l.Config.Detach {
		return ""
	}
	return filepath.Join(l.Config.Dir, "ns")
}

func (l *Lab) build(ctx context.Context) (err error) {
	if err := l.saveState(); err != nil {
		return err
	}
	if l.router, err = newNode("router", l.pins()); err != nil {
		return permissionHint(err)
	}
	if err := l.mountBPF(); err != nil {
		return err
	}
	if err := l.router.setSysctls(map[string]string{
		"ipv4/ip_forward":          "1",
		"ipv6/conf/all/forwarding": "1",
		"ipv4/conf/all/rp_filter":  "0",
	}); err != nil {
		return err
	}
	for s := 1; s <= l.Config.Segments; s++ {
		if err := l.addSegment(s); err != nil {
			return err
		}
	}
	if err := l.addEtcd(); err != nil {
		return err
	}
	for index := 1; index <= l.Config.Hosts; index++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := l.addHost(index); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) addSegment(s int) error {
	bridge, err := l.router.addBridge(segmentBridge(s), underlayMTU, localMAC(0xff, byte(s)))
	if err != nil {
		return err
	}
	for _, family := range l.Config.Families {
		prefix := netip.PrefixFrom(routerAddr(family, s), segmentPrefix(family, s).Bits())
		if err := l.router.addAddress(bridge, prefix); err != nil {
			return err
		}
	}
	return nil
}

func segmentBridge(s int) string { return fmt.Sprintf("seg%d", s) }

func (l *Lab) addHost(index int) error {
	host := l.newHost(index)
	var err error
	if host.node, err = newNode(host.Name, l.pins()); err != nil {
		return err
	}
	l.Hosts = append(l.Hosts, host)
	// A new namespace may inherit IPv4 settings of this machine. Forwarding is
	// for tulled to switch on.
	if err := host.setSysctls(map[string]string{
		"ipv4/ip_forward":              "0",
		"ipv4/conf/all/rp_filter":      "0",
		"ipv4/conf/default/rp_filter":  "0",
		"ipv6/conf/default/accept_ra":  "0",
		"ipv6/conf/default/forwarding": "0",
		"ipv6/conf/all/forwarding":     "0",
	}); err != nil {
		return err
	}
	return l.join(host.node, host.Segment, host.Addr)
}

// join gives n an eth0 on a segment, with those addresses and the router as
// its way to the other segments.
func (l *Lab) join(n *node, segment int, addresses ip.Dual[netip.Addr]) error {
	bridge, err := l.router.Netlink.LinkByName(segmentBridge(segment))
	if err != nil {
		return fmt.Errorf("find bridge of segment %d: %w", segment, err)
	}
	link, err := l.router.plug(bridge, n.name, n, underlayMTU)
	if err != nil {
		return err
	}
	for _, family := range l.Config.Families {
		addr := addresses.Of(family)
		if !addr.IsValid() {
			continue
		}
		if err := n.addAddress(link, netip.PrefixFrom(addr, segmentPrefix(family, segment).Bits())); err != nil {
			return err
		}
		if err := n.addDefaultRoute(routerAddr(family, segment)); err != nil {
			return err
		}
	}
	return nil
}

// demolish removes all links and namespaces. Links go first: the kernel takes
// namespaces apart later, in the background, and until then their links would
// be in the way of new ones with the same names.
func (l *Lab) demolish() error {
	var errs []error
	for _, n := range l.nodes() {
		if link, err := n.Netlink.LinkByName(uplink); err == nil {
			errs = append(errs, n.Netlink.LinkDel(link))
		}
	}
	for _, n := range l.nodes() {
		errs = append(errs, n.close())
		if pins := l.pins(); pins != "" {
			errs = append(errs, netns.Unpin(pinPath(pins, n.name)))
		}
	}
	l.Hosts, l.Etcd.Members, l.router = nil, nil, nil
	return errors.Join(errs...)
}
