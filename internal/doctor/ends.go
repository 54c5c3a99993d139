package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Member is a host of the network, by its lease.
type Member struct {
	Node    string // node id; empty: it has none, as under flanneld, and cannot be asked
	Lease   string // key
	Subnets []netip.Prefix
	Public  []netip.Addr
}

// Named is what a word of the command line means: an end of the chain, and what its host calls it.
type Named struct {
	End
	Of     string // a container; empty: the host
	Member *Member
}

// Resolve finds what a word means: a node id, an address of a host or of a container, or HOST/CONTAINER, or else a container of this host, which may not be
// there.
func Resolve(word string, members []Member, here string) (Named, error) {
	find := func(is func(Member) bool) *Member {
		if i := slices.IndexFunc(members, is); i >= 0 {
			return &members[i]
		}
		return nil
	}
	byNode := func(node string) *Member { return find(func(m Member) bool { return m.Node != "" && m.Node == node }) }
	named := Named{End: End{Name: word, Host: here}, Of: word}
	if addr, err := netip.ParseAddr(word); err == nil {
		addr = addr.Unmap().WithZone("")
		named.Addr, named.Of = addr, ""
		named.Member = find(func(m Member) bool { return slices.Contains(m.Public, addr) })
		if named.Member == nil {
			named.Member = find(func(m Member) bool { return holds(m.Subnets, addr) })
			named.Container, named.Of = named.Member != nil && !gateway(named.Member.Subnets, addr), addr.String()
			if !named.Container {
				named.Of = ""
			}
		}
		if named.Member == nil {
			return named, fmt.Errorf("%s is no address of a host of the network, and in the subnet of none: tulle leases list shows them", addr)
		}
		named.Host = named.Member.Node
		return named, nil
	}
	host, container, both := strings.Cut(word, "/")
	if m := byNode(host); m != nil || both {
		if m == nil && host != here {
			return named, fmt.Errorf("no host of the network has the node id %.64q: tulle leases list shows them", host)
		}
		named.Host, named.Of, named.Container, named.Member = host, container, both, m
		if both && container == "" {
			return named, fmt.Errorf("%.64q names no container: want HOST/CONTAINER", word)
		}
		return named, nil
	}
	if word == here {
		named.Of = ""
		return named, nil
	}
	named.Container, named.Member = true, byNode(here)
	return named, nil
}

func holds(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// gateway reports whether an address is the host's own in one of its subnets: the bridge's, or that of the tunnel's device.
func gateway(subnets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(subnets, func(p netip.Prefix) bool {
		return a == p.Masked().Addr() || a == p.Masked().Addr().Next()
	})
}

// Inside is the address by which packets to a host cross the network, of the given family if there is one: its bridge's.
func (m Member) Inside(is6 bool) netip.Addr {
	for _, p := range m.Subnets {
		if p.Addr().Is6() == is6 {
			return p.Masked().Addr().Next()
		}
	}
	if len(m.Subnets) > 0 {
		return m.Subnets[0].Masked().Addr().Next()
	}
	return netip.Addr{}
}

// AddrOf is the address by which packets to a container cross the network, of the given family if there is one.
func (f Facts) AddrOf(c Container, is6 bool) (addr netip.Addr) {
	var inside []netip.Prefix
	for _, n := range f.Networks() {
		inside = append(inside, n.Prefixes...)
	}
	for _, p := range c.Addrs {
		switch a := p.Addr(); {
		case !holds(inside, a):
		case a.Is6() == is6:
			return a
		case !addr.IsValid():
			addr = a
		}
	}
	return addr
}
