//go:build linux

package lab

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// DataPlane describes what forwards between the containers of this host and of
// others, a line for each object: VXLAN devices and all that hangs on them,
// routes with a gateway, forwarding, the number of filter rules, and who is let
// in. Two texts are equal if and only if the data planes are.
func (h *Host) DataPlane() (string, error) {
	links, err := h.Netlink.LinkList()
	if err != nil {
		return "", fmt.Errorf("list links of %s: %w", h, err)
	}
	var lines []string
	names := make(map[int]string)
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
		if link.Type() != "vxlan" {
			continue
		}
		more, err := h.describeDevice(link)
		if err != nil {
			return "", err
		}
		lines = append(lines, more...)
	}
	routes, err := h.Netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, 0)
	if err != nil {
		return "", fmt.Errorf("list routes of %s: %w", h, err)
	}
	for _, route := range routes {
		if route.Gw != nil {
			lines = append(lines, fmt.Sprintf("route %s via %s dev %s metric %d proto %d", route.Dst, route.Gw, names[route.LinkIndex], route.Priority, route.Protocol))
		}
	}
	for _, route := range routes {
		if route.Type == unix.RTN_UNREACHABLE && route.Protocol == ip.Protocol {
			lines = append(lines, fmt.Sprintf("unreachable %s metric %d", route.Dst, uint32(route.Priority)))
		}
	}
	settings := []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"}
	for _, link := range links {
		if name := link.Attrs().Name; name == uplink || name == containerBridge || link.Type() == "vxlan" {
			settings = append(settings, "ipv4/conf/"+name+"/forwarding")
		}
	}
	for _, key := range settings {
		value, err := h.sysctl(key)
		if err != nil {
			return "", err
		}
		lines = append(lines, key+" "+value)
	}
	for _, table := range []string{ip.TableName, ip.GuardTable} {
		rules, err := h.Rules(table)
		if err != nil {
			return "", err
		}
		lines = append(lines, fmt.Sprintf("rules of %s %d", table, rules))
	}
	peers, err := h.Peers()
	if err != nil {
		return "", err
	}
	lines = append(lines, fmt.Sprintf("peers %s", peers))
	slices.Sort(lines)
	return strings.Join(lines, "\n"), nil
}

func (h *Host) describeDevice(link netlink.Link) ([]string, error) {
	attrs := link.Attrs()
	lines := []string{fmt.Sprintf("link %s mac %s mtu %d up %t arp %t master %d", attrs.Name, attrs.HardwareAddr, attrs.MTU,
		attrs.RawFlags&unix.IFF_UP != 0, attrs.RawFlags&unix.IFF_NOARP == 0, attrs.MasterIndex)}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		neighbours, err := h.Netlink.NeighList(attrs.Index, family)
		if err != nil {
			return nil, fmt.Errorf("list neighbours of %s: %w", h, err)
		}
		for _, n := range neighbours {
			if n.State&unix.NUD_PERMANENT != 0 {
				lines = append(lines, fmt.Sprintf("neighbour %s %d %s %s", attrs.Name, family, n.IP, n.HardwareAddr))
			}
		}
	}
	addresses, err := h.Netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", h, err)
	}
	for _, address := range addresses {
		if !address.IP.IsLinkLocalUnicast() {
			lines = append(lines, fmt.Sprintf("address %s %s", attrs.Name, address.IPNet))
		}
	}
	return lines, nil
}
