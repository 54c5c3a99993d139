package subnet

import (
	"net/netip"

	"tulle/ip"
)

// ReservedRange is address space that no lease may take, because hosts use it for themselves.
type ReservedRange struct {
	Prefix netip.Prefix
	Name   string
}

// ReservedRanges returns those of one family.
func ReservedRanges(f ip.Family) []ReservedRange {
	loopback := netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8) // RFC 1122, section 3.2.1.3
	if f == ip.IPv6 {
		loopback = ip.Host(netip.IPv6Loopback()) // RFC 4291, section 2.5.3
	}
	return []ReservedRange{
		{loopback, "loopback"},
		{f.LinkLocal(), "link-local"},
		{f.Multicast(), "multicast"},
	}
}
