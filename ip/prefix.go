package ip

import (
	"math/big"
	"net/netip"
)

// Last returns the highest address of p.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// Contains reports whether inner lies wholly inside outer. Prefixes of different families never contain each other.
func Contains(outer, inner netip.Prefix) bool {
	return outer.IsValid() && inner.IsValid() && outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// Number returns addr as an unsigned integer.
func Number(addr netip.Addr) *big.Int { return new(big.Int).SetBytes(addr.AsSlice()) }

// AddrOf returns the address of family f whose number is n; false if n does not fit.
func AddrOf(f Family, n *big.Int) (netip.Addr, bool) {
	if n.Sign() < 0 || n.BitLen() > f.Bits() {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(n.FillBytes(make([]byte, f.Bits()/8)))
}

// Host returns the prefix that holds only addr.
func Host(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }

// ComparePrefix orders prefixes by address, then by length; IPv4 comes first.
func ComparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
