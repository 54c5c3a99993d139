package netnstest

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// Frame is an Ethernet frame with an IP packet in it, which may come from anybody.
func Frame(src, dst net.HardwareAddr, packet []byte) []byte {
	frame := append(append([]byte{}, dst...), src...)
	if packet[0]>>4 == 4 {
		return append(append(frame, 0x08, 0x00), packet...)
	}
	return append(append(frame, 0x86, 0xdd), packet...)
}

// UDP is an IP packet with a UDP datagram in it, all its checksums right (RFC 768, RFC 791, RFC 8200).
func UDP(from, to netip.AddrPort, payload []byte) []byte {
	const protocol, hops, header = 17, 64, 8
	src, dst := from.Addr().AsSlice(), to.Addr().AsSlice()
	size := uint16(header + len(payload))

	udp := binary.BigEndian.AppendUint16(nil, from.Port())
	udp = binary.BigEndian.AppendUint16(udp, to.Port())
	udp = binary.BigEndian.AppendUint16(udp, size)
	udp = append(append(udp, 0, 0), payload...)
	pseudo := append(append(append([]byte{}, src...), dst...), 0, protocol, byte(size>>8), byte(size))
	sum := checksum(append(pseudo, udp...))
	if sum == 0 {
		sum = 0xffff // 0 would mean that there is none
	}
	binary.BigEndian.PutUint16(udp[6:], sum)

	if to.Addr().Is4() {
		return ipv4(protocol, src, dst, udp)
	}
	ip := append([]byte{0x60, 0, 0, 0, byte(size >> 8), byte(size), protocol, hops}, append(src, dst...)...)
	return append(ip, udp...)
}

// IPIP is an IPv4 packet with another packet in it (RFC 2003).
func IPIP(from, to netip.Addr, packet []byte) []byte {
	return ipv4(4, from.AsSlice(), to.AsSlice(), packet)
}

func ipv4(protocol byte, src, dst, payload []byte) []byte {
	const hops = 64
	total := 20 + len(payload)
	ip := append([]byte{0x45, 0, byte(total >> 8), byte(total), 0, 0, 0, 0, hops, protocol, 0, 0}, append(src, dst...)...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	return append(ip, payload...)
}

// VXLAN is the payload of a UDP datagram with a frame in it (RFC 7348).
func VXLAN(vni uint32, frame []byte) []byte {
	return append([]byte{0x08, 0, 0, 0, byte(vni >> 16), byte(vni >> 8), byte(vni), 0}, frame...)
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		sum += uint32(v) << (8 * (1 - i%2))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
