package xtables

import (
	"encoding/binary"
	"math"

	"tulle/ip"
)

// Extensions that look at ports: struct xt_udp and xt_tcp (linux/netfilter/xt_tcpudp.h) and xt_multiport_v1 (linux/netfilter/xt_multiport.h).
const (
	udpMatch       = "udp"
	tcpMatch       = "tcp"
	multiportMatch = "multiport"

	udpSize    = 10 // bytes
	udpInverse = 8
	tcpSize    = 12
	tcpOption  = 8
	tcpFlags   = 9
	tcpInverse = 11

	multiportRevision = 1
	multiportSize     = 48
	multiportCount    = 1
	multiportPorts    = 2
	multiportRanges   = 32 // whether a port is the first of a range, for each
	multiportInverse  = 47
	mostMultiports    = 15

	toDestination = 1 // XT_MULTIPORT_DESTINATION
)

// portsOf returns the destination ports that an extension asks for, nil for all; false if it asks for something else, or for more.
func portsOf(m []byte) ([]ip.Ports, bool) {
	info := m[extensionHeader:]
	switch name, revision := extensionTitle(m), m[extensionRev]; {
	case name == udpMatch && revision == 0 && len(info) >= udpSize:
		return PortsOf(pair(info), pair(info[4:]), info[udpInverse])
	case name == tcpMatch && revision == 0 && len(info) >= tcpSize && info[tcpOption] == 0 && info[tcpFlags] == 0:
		return PortsOf(pair(info), pair(info[4:]), info[tcpInverse])
	case name == multiportMatch && revision == multiportRevision:
		return MultiportsOf(info)
	}
	return nil, false
}

func pair(b []byte) [2]uint16 {
	return [2]uint16{binary.NativeEndian.Uint16(b), binary.NativeEndian.Uint16(b[2:])}
}

// PortsOf reads what the extensions udp and tcp ask for: the first and last port of source and destination, and what of these is inverted. It returns nil for all
// ports, and false if there is more to it.
func PortsOf(src, dst [2]uint16, inverse uint8) ([]ip.Ports, bool) {
	if src != [2]uint16{0, math.MaxUint16} || inverse != 0 {
		return nil, false
	}
	if dst == [2]uint16{0, math.MaxUint16} {
		return nil, true
	}
	return []ip.Ports{{First: dst[0], Last: dst[1]}}, true
}

// MultiportsOf reads what the first revision of the extension multiport asks for, and returns false if that is not destination ports alone.
func MultiportsOf(info []byte) ([]ip.Ports, bool) {
	if len(info) < multiportSize || info[0] != toDestination || info[multiportInverse] != 0 || info[multiportCount] > mostMultiports {
		return nil, false
	}
	var all []ip.Ports
	for i := 0; i < int(info[multiportCount]); i++ {
		port := binary.NativeEndian.Uint16(info[multiportPorts+2*i:])
		p := ip.Ports{First: port, Last: port}
		if info[multiportRanges+i] != 0 && i+1 < int(info[multiportCount]) {
			i++
			p.Last = binary.NativeEndian.Uint16(info[multiportPorts+2*i:])
		}
		all = append(all, p)
	}
	return all, len(all) > 0
}
