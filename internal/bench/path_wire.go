//go:build linux

package bench

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"tulle/internal/lab"
	"tulle/ip"
)

// wire joins the two hosts of a path, as a cable does. What is measured leaves out the bridge of the lab's segment, which would cost all paths the same.
const (
	wire    = "wire0"
	wireMTU = 1500
)

// wireAddr is the address of host n, 0 or 1, which those of all paths have: each pair is for itself.
func wireAddr(f ip.Family, n byte) netip.Addr {
	if f == ip.IPv4 {
		return netip.AddrFrom4([4]byte{172, 31, 0, 1 + n})
	}
	return netip.AddrFrom16([16]byte{0xfd, 0x31, 15: 1 + n})
}

func addWire(a, b *lab.Host, f ip.Family) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = wire, wireMTU
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: wire, PeerNamespace: netlink.NsFd(b.Namespace().FD()), PeerMTU: wireMTU}
	if err := a.Netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("join %s and %s: %w", a, b, err)
	}
	for n, h := range []*lab.Host{a, b} {
		link, err := h.Netlink.LinkByName(wire)
		if err != nil {
			return fmt.Errorf("join %s and %s: %w", a, b, err)
		}
		// Duplicate address detection would take a second or two.
		if err := h.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/"+wire+"/accept_dad", []byte("0"), 0) }); err != nil {
			return fmt.Errorf("set up %s of %s: %w", wire, h, err)
		}
		bits := 24
		if f == ip.IPv6 {
			bits = 64
		}
		addr := wireAddr(f, byte(n))
		address := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, addr.BitLen())}}
		if f == ip.IPv6 {
			address.Flags = unix.IFA_F_NODAD
		}
		if err := h.Netlink.AddrAdd(link, address); err != nil {
			return fmt.Errorf("add %s to %s of %s: %w", addr, wire, h, err)
		}
		if err := h.Netlink.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s of %s up: %w", wire, h, err)
		}
	}
	return nil
}

// segmentInSoftware has the kernel cut what leaves by a link into packets of its MTU, as for a network card that cannot, and put together what comes. Otherwise
// veth links carry packets of 64 KB.
func segmentInSoftware(h *lab.Host, link string) error {
	features := map[string]bool{
		"tx-tcp-segmentation": false, "tx-tcp6-segmentation": false, "tx-tcp-ecn-segmentation": false, "tx-tcp-mangleid-segmentation": false,
		"tx-udp-segmentation": false, "tx-udp_tnl-segmentation": false, "tx-udp_tnl-csum-segmentation": false,
		"rx-gro": true,
	}
	err := h.Do(func() error {
		family, err := netlink.GenlFamilyGet("ethtool")
		if err != nil {
			return err
		}
		request := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
		request.AddData(&nl.Genlmsg{Command: unix.ETHTOOL_MSG_FEATURES_SET, Version: 1})
		header := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_HEADER|unix.NLA_F_NESTED, nil)
		header.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_NAME, nl.ZeroTerminated(link))
		request.AddData(header)
		wanted := nl.NewRtAttr(unix.ETHTOOL_A_FEATURES_WANTED|unix.NLA_F_NESTED, nil)
		bits := wanted.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS|unix.NLA_F_NESTED, nil)
		for name, on := range features {
			bit := bits.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS_BIT|unix.NLA_F_NESTED, nil)
			bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_NAME, nl.ZeroTerminated(name))
			if on {
				bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_VALUE, nil)
			}
		}
		request.AddData(wanted)
		_, err = request.Execute(unix.NETLINK_GENERIC, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("switch off segmentation offloads of %s of %s: %w", link, h, err)
	}
	return nil
}
