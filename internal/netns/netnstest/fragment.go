package netnstest

import (
	"encoding/binary"
	"hash/crc32"
)

// Fragments cuts an IP packet after each of the sizes, which are bytes of its payload and multiples of 8 (RFC 791, RFC 8200).
func Fragments(packet []byte, sizes ...int) [][]byte {
	const fragmentHeader, more = 44, 1
	v4 := packet[0]>>4 == 4
	header := 40
	if v4 {
		header = 20
	}
	var parts [][]byte
	payload, offset := packet[header:], 0
	for i := 0; len(payload) > 0; i++ {
		size := len(payload)
		if i < len(sizes) {
			size = min(size, sizes[i])
		}
		part := append([]byte{}, packet[:header]...)
		rest := uint16(0)
		if size < len(payload) {
			rest = more
		}
		if v4 {
			binary.BigEndian.PutUint16(part[2:], uint16(header+size))
			binary.BigEndian.PutUint16(part[4:], 4711)
			binary.BigEndian.PutUint16(part[6:], uint16(offset/8)|rest<<13)
			binary.BigEndian.PutUint16(part[10:], 0)
			binary.BigEndian.PutUint16(part[10:], checksum(part))
		} else {
			binary.BigEndian.PutUint16(part[4:], uint16(8+size))
			next := part[6]
			part[6] = fragmentHeader
			part = append(part, next, 0)
			part = binary.BigEndian.AppendUint16(part, uint16(offset)|rest)
			part = binary.BigEndian.AppendUint32(part, crc32.ChecksumIEEE(packet)) // packets differ in it
		}
		parts = append(parts, append(part, payload[:size]...))
		payload, offset = payload[size:], offset+size
	}
	return parts
}

// WithOptions returns an IPv6 packet with n destination options headers of eight bytes before its payload (RFC 8200, PadN).
func WithOptions(packet []byte, n int) []byte {
	const header, destinationOptions = 40, 60
	out := append([]byte{}, packet[:header]...)
	for i := range n {
		next := byte(destinationOptions)
		if i == n-1 {
			next = packet[6]
		}
		out = append(out, next, 0, 1, 4, 0, 0, 0, 0)
	}
	out[6] = destinationOptions
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)+len(packet)-2*header))
	return append(out, packet[header:]...)
}

// Nested returns an IPv6 packet as fragments of fragments: cut between two headers, so that neither part shows the port, and each part in a fragment of its own.
func Nested(packet []byte) (parts [][]byte) {
	for _, part := range Fragments(WithOptions(packet, 2), 8) {
		parts = append(parts, Fragments(part)...)
	}
	return parts
}
