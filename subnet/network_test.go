package subnet

import (
	"net/netip"
	"strings"
	"testing"

	"tulle/ip"
)

// networkOf makes a network from the pools of its families, such as "10.5.0.0/24 /28 from 10.5.0.16 to 10.5.0.32, fc00::/48".
// Without a length a subnet is a /24 or a /64, and without bounds all are leased but the first.
func networkOf(text string) Network {
	var n Network
	for part := range strings.SplitSeq(text, ", ") {
		words := strings.Fields(part)
		network := netip.MustParsePrefix(words[0])
		f := ip.FamilyOf(network.Addr())
		pool := Pool{Network: network, SubnetLen: max(map[ip.Family]int{ip.IPv4: 24, ip.IPv6: 64}[f], network.Bits()+2)}
		words = words[1:]
		if len(words) > 0 && words[0][0] == '/' {
			pool.SubnetLen = netip.MustParsePrefix(network.Addr().String() + words[0]).Bits()
			words = words[1:]
		}
		pool.Min = ip.Last(netip.PrefixFrom(network.Addr(), pool.SubnetLen)).Next()
		pool.Max = netip.PrefixFrom(ip.Last(network), pool.SubnetLen).Masked().Addr()
		for ; len(words) > 0; words = words[2:] {
			if bound := netip.MustParseAddr(words[1]); words[0] == "from" {
				pool.Min = bound
			} else {
				pool.Max = bound
			}
		}
		n.Pools.Set(f, pool)
	}
	return n
}

// dualAddr makes the public addresses of a lease; "" stands for none.
func dualAddr(t testing.TB, v4, v6 string) ip.Dual[netip.Addr] {
	t.Helper()
	var d ip.Dual[netip.Addr]
	for f, text := range map[ip.Family]string{ip.IPv4: v4, ip.IPv6: v6} {
		if text == "" {
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			t.Fatal(err)
		}
		d.Set(f, addr)
	}
	return d
}
