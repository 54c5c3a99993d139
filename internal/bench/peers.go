//go:build linux

package bench

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"tulle/ip"
	"tulle/subnet"
	"tulle/subnet/flannel"
)

// The address plan: room for 65,000 hosts, each with a subnet of the overlay and an address of the underlay.
var (
	overlay = ip.Dual[netip.Prefix]{V4: netip.MustParsePrefix("10.0.0.0/8"), V6: netip.MustParsePrefix("fd10::/40")}
	// underlay is on link, since host-gw wants a flat network.
	underlay = ip.Dual[netip.Prefix]{V4: netip.MustParsePrefix("100.64.0.0/10"), V6: netip.MustParsePrefix("fd64::/64")}
)

// MaxPeers is how many peers the address plan has room for.
const MaxPeers = 60_000

// MaxOdd is how many leases of another size there may be beside them.
const MaxOdd = 1000

// peer is a simulated host: number 0 and up.
type peer struct {
	number   int
	half     bool // it has half a subnet
	backend  string
	families []ip.Family
}

// subnets leaves the lower part of the overlay to the host under test.
func (p peer) subnets() subnet.Subnets {
	var s subnet.Subnets
	n := uint16(p.number + 4096)
	for _, f := range p.families {
		if f == ip.IPv4 {
			s.V4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n)}), p.bits(24))
		} else {
			a := overlay.V6.Addr().As16()
			binary.BigEndian.PutUint16(a[6:], n)
			s.V6 = netip.PrefixFrom(netip.AddrFrom16(a), p.bits(64))
		}
	}
	return s
}

func (p peer) bits(whole int) int {
	if p.half {
		return whole + 1
	}
	return whole
}

func (p peer) public() ip.Dual[netip.Addr] {
	var d ip.Dual[netip.Addr]
	n := uint32(p.number + 256)
	for _, f := range p.families {
		if f == ip.IPv4 {
			a := underlay.V4.Addr().As4()
			binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+n)
			d.V4 = netip.AddrFrom4(a)
		} else {
			a := underlay.V6.Addr().As16()
			binary.BigEndian.PutUint32(a[12:], n)
			d.V6 = netip.AddrFrom16(a)
		}
	}
	return d
}

// key is where the peer's lease is in etcd.
func (p peer) key() string { return "subnets/" + subnet.KeyOf(p.subnets()) }

// value is what the key holds. Each generation has another MAC address.
func (p peer) value(generation byte) (string, error) {
	return flannel.EncodeLease(p.subnets(), p.attrs(generation))
}

func (p peer) mac(f ip.Family, generation byte) ip.MAC {
	return ip.MAC{2, generation, byte(f), 0, byte(p.number >> 8), byte(p.number)}
}

func (p peer) attrs(generation byte) subnet.Attrs {
	a := subnet.Attrs{Public: p.public(), BackendType: p.backend, Node: fmt.Sprintf("peer-%d", p.number), Instance: "bench"}
	if p.backend != "vxlan" {
		return a
	}
	for _, f := range p.families {
		a.BackendData.Set(f, fmt.Appendf(nil, `{"VNI":1,"VtepMAC":%q}`, p.mac(f, generation)))
	}
	return a
}
