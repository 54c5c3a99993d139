//go:build linux

package lab

import (
	"fmt"
	"net/netip"

	"tulle/ip"
)

// Path is how traffic travels from one host to a container.
type Path string

// The ways that traffic travels.
const (
	// PathLocal is to a container of the same host.
	PathLocal Path = "local"
	// PathDirect is through a plain route, via the address of the other host.
	PathDirect Path = "direct"
	// PathVXLAN is through a VXLAN device.
	PathVXLAN Path = "vxlan"
	// PathIPIP is through an IPIP device.
	PathIPIP Path = "ipip"
	// PathNone is where the kernel has no route but the default one.
	PathNone Path = "none"
)

// pathOf asks the kernel of host from for its route to a container.
func pathOf(from *Host, to *Container, family ip.Family) (Path, error) {
	if from == to.Host {
		return PathLocal, nil
	}
	routes, err := from.Netlink.RouteGet(to.Addr.Of(family).AsSlice())
	if err != nil {
		return PathNone, fmt.Errorf("look up route from %s to %s: %w", from, to, err)
	}
	for _, route := range routes {
		link, err := from.Netlink.LinkByIndex(route.LinkIndex)
		if err != nil {
			return PathNone, fmt.Errorf("look up route from %s to %s: %w", from, to, err)
		}
		gateway, _ := netip.AddrFromSlice(route.Gw)
		switch {
		case link.Type() == "vxlan":
			return PathVXLAN, nil
		case link.Type() == "ipip":
			return PathIPIP, nil
		case gateway.Unmap() == to.Host.Addr.Of(family):
			return PathDirect, nil
		}
	}
	return PathNone, nil
}
