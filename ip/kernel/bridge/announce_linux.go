package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Announce tells all on the link of the named interface, in the network namespace of the calling thread, that addrs are now at
// its MAC: hosts that knew another holder of one of them would go on sending there. IPv4 addresses are announced by ARP (RFC 5227, 3),
// IPv6 addresses by unsolicited neighbor advertisements (RFC 4861, 7.2.6).
func Announce(name string, addrs []netip.Addr) error {
	return withLink(name, func(_ *netlink.Handle, link netlink.Link) error {
		var errs []error
		for _, addr := range addrs {
			announce := advertise
			if addr.Is4() {
				announce = announceARP
			}
			if err := announce(link.Attrs(), addr); err != nil {
				errs = append(errs, fmt.Errorf("announce %s: %w", addr, err))
			}
		}
		return errors.Join(errs...)
	})
}

// announceARP broadcasts an ARP request (RFC 826) for the address, by the address.
func announceARP(link *netlink.LinkAttrs, addr netip.Addr) error {
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ARP))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const ethernet, request = 1, 1
	packet := binary.BigEndian.AppendUint16(nil, ethernet)
	packet = binary.BigEndian.AppendUint16(packet, unix.ETH_P_IP)
	packet = append(packet, 6, 4) // lengths of the addresses
	packet = binary.BigEndian.AppendUint16(packet, request)
	packet = append(append(packet, link.HardwareAddr...), addr.AsSlice()...)
	packet = append(append(packet, make([]byte, 6)...), addr.AsSlice()...)
	return unix.Sendto(fd, packet, 0, &unix.SockaddrLinklayer{
		Protocol: protocol, Ifindex: link.Index, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	})
}

// advertise sends a neighbor advertisement that overrides what is known (RFC 4861, 4.4) to all nodes.
func advertise(link *netlink.LinkAttrs, addr netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, link.Index),
		unix.Bind(fd, &unix.SockaddrInet6{Addr: addr.As16(), ZoneId: uint32(link.Index)}),
	)
	if err != nil {
		return err
	}
	const neighborAdvertisement, override, targetLinkLayerAddress = 136, 0x20, 2
	packet := []byte{neighborAdvertisement, 0, 0, 0, override, 0, 0, 0} // the kernel fills in the checksum
	packet = append(packet, addr.AsSlice()...)
	packet = append(packet, targetLinkLayerAddress, 1) // in units of eight bytes
	packet = append(packet, link.HardwareAddr...)
	all := netip.IPv6LinkLocalAllNodes().As16()
	return unix.Sendto(fd, packet, 0, &unix.SockaddrInet6{Addr: all, ZoneId: uint32(link.Index)})
}
