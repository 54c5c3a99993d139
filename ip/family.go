package ip

import "net/netip"

// Family is an IP version.
type Family uint8

// The two families. The values are the version numbers in the IP header (RFC 791, RFC 8200).
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families lists both families, IPv4 first.
func Families() [2]Family { return [2]Family{IPv4, IPv6} }

// FamilyOf returns the family of a valid address; an IPv4-mapped IPv6 address counts as IPv6.
func FamilyOf(addr netip.Addr) Family {
	if addr.Is4() {
		return IPv4
	}
	return IPv6
}

// Bits is the length of an address in bits.
func (f Family) Bits() int {
	if f == IPv4 {
		return 32
	}
	return 128
}

// Multicast is the family's multicast range (RFC 5771, RFC 4291).
func (f Family) Multicast() netip.Prefix {
	if f == IPv4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 4)
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8)
}

// LinkLocal is the family's link-local range (RFC 3927, RFC 4291).
func (f Family) LinkLocal() netip.Prefix {
	if f == IPv4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254}), 16)
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfe, 0x80}), 10)
}

// Elsewhere is an address to which no host and no network has a route of its own: it is for documentation (RFC 5737, RFC 9637).
func (f Family) Elsewhere() netip.Addr {
	if f == IPv4 {
		return netip.AddrFrom4([4]byte{203, 0, 113, 1})
	}
	return netip.AddrFrom16([16]byte{0x3f, 0xff, 0x0f, 0xff, 15: 1})
}

// All is the prefix of every address of the family.
func (f Family) All() netip.Prefix { return netip.PrefixFrom(f.Elsewhere(), 0).Masked() }

// Command is ip(8) for the family.
func (f Family) Command() string {
	if f == IPv6 {
		return "ip -6"
	}
	return "ip"
}

func (f Family) String() string {
	if f == IPv4 {
		return "ipv4"
	}
	return "ipv6"
}

// Dual holds one value per family, so that code written for one family serves both.
type Dual[T any] struct{ V4, V6 T }

// Of returns the value of family f.
func (d Dual[T]) Of(f Family) T {
	if f == IPv4 {
		return d.V4
	}
	return d.V6
}

// Set replaces the value of family f.
func (d *Dual[T]) Set(f Family, v T) {
	if f == IPv4 {
		d.V4 = v
	} else {
		d.V6 = v
	}
}

// Addrs lists the addresses that are there, IPv4 first.
func Addrs(d Dual[netip.Addr]) []netip.Addr {
	var out []netip.Addr
	for _, f := range Families() {
		if a := d.Of(f); a.IsValid() && !a.IsUnspecified() {
			out = append(out, a)
		}
	}
	return out
}
