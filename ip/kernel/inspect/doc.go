// Package inspect reads of one network namespace what tells where packets of containers are lost, and changes nothing.
package inspect

import (
	"net/netip"

	"tulle/ip"
)

// Link is a link, with what it has counted.
type Link struct {
	Index, PeerIndex                         int
	Name, Kind, Master                       string
	Up, NoCarrier, Loopback, NoARP           bool
	MTU                                      int // bytes
	MAC                                      string
	Addrs                                    []netip.Prefix // but link-local ones
	Namespace                                int            // the id of the namespace that its other end is in; -1: this one, or there is none
	VNI                                      uint32         // of a VXLAN device
	UDPPort                                  uint16
	RxDropped, TxDropped, RxErrors, TxErrors uint64 // packets
}

// Route is a route of the main table.
type Route struct {
	Dst    netip.Prefix // of length zero: the default route
	Via    netip.Addr
	Source netip.Addr
	Link   string
	Kind   ip.RouteType
	MTU    int // bytes; 0: it names none
}

// Neighbor is an entry of the neighbour tables, or, with Dst, of the forwarding table of a VXLAN device.
type Neighbor struct {
	Addr      netip.Addr
	Dst       netip.Addr
	MAC       string
	Link      string
	State     string // as ip-neighbour(8) has it
	Permanent bool
}

// Table is what a neighbour table is bounded by: gc_thresh3 (arp(7)), which holds for all namespaces together, permanent entries aside.
type Table struct {
	Max  int
	Full uint64 // how often there was no room
}

// BridgeFilter is a chain of nftables' family bridge that drops the frames of a bridge.
type BridgeFilter struct {
	Bridge, Table, Chain string
	Hook                 string // as nft(8) has it
}
