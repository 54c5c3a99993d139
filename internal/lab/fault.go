//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// The faults below are what an operator, a tool or the kernel does behind the
// daemon's back. Each fails if it finds nothing to break.

// VXLANLinks are the names of the host's VXLAN devices.
func (h *Host) VXLANLinks() ([]string, error) {
	links, err := h.Netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links of %s: %w", h, err)
	}
	var names []string
	for _, link := range links {
		if link.Type() == "vxlan" {
			names = append(names, link.Attrs().Name)
		}
	}
	return names, nil
}

// LinkMAC returns the MAC of a link.
func (h *Host) LinkMAC(name string) (net.HardwareAddr, error) {
	link, err := h.Netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find link %s of %s: %w", name, h, err)
	}
	return link.Attrs().HardwareAddr, nil
}

// SetLink sets a link up or down.
func (h *Host) SetLink(name string, up bool) error {
	link, err := h.Netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s of %s: %w", name, h, err)
	}
	set := h.Netlink.LinkSetDown
	if up {
		set = h.Netlink.LinkSetUp
	}
	if err := set(link); err != nil {
		return fmt.Errorf("set link %s of %s up=%t: %w", name, h, up, err)
	}
	return nil
}

// DeleteLink deletes a link.
func (h *Host) DeleteLink(name string) error {
	link, err := h.Netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s of %s: %w", name, h, err)
	}
	if err := h.Netlink.LinkDel(link); err != nil {
		return fmt.Errorf("delete link %s of %s: %w", name, h, err)
	}
	return nil
}

// RoutesTo lists the host's routes to the subnet of peer.
func (h *Host) RoutesTo(peer *Host, family ip.Family) ([]netlink.Route, error) {
	subnet, err := peer.ReadSubnetFile()
	if err != nil {
		return nil, err
	}
	filter := &netlink.Route{Dst: ipNet(subnet.Gateway.Of(family).Masked())}
	routes, err := h.Netlink.RouteListFiltered(netlinkFamily(family), filter, netlink.RT_FILTER_DST)
	if err != nil {
		return nil, fmt.Errorf("list routes of %s: %w", h, err)
	}
	return routes, nil
}

// DeleteRoutesTo deletes the host's routes to the subnet of peer.
func (h *Host) DeleteRoutesTo(peer *Host, family ip.Family) error {
	routes, err := h.RoutesTo(peer, family)
	if err != nil {
		return err
	}
	if len(routes) == 0 {
		return fmt.Errorf("delete %s route from %s to %s: there is none", family, h, peer)
	}
	for _, route := range routes {
		if err := h.Netlink.RouteDel(&route); err != nil {
			return fmt.Errorf("delete %s route from %s to %s: %w", family, h, peer, err)
		}
	}
	return nil
}

// DeleteNeighboursOn deletes the permanent neighbours on a link.
func (h *Host) DeleteNeighboursOn(link string, family ip.Family) error {
	return h.deleteNeighbours(link, netlinkFamily(family))
}

// DeleteFDBOn deletes the forwarding entries of a VXLAN link.
func (h *Host) DeleteFDBOn(link string) error {
	return h.deleteNeighbours(link, unix.AF_BRIDGE)
}

func (h *Host) deleteNeighbours(name string, family int) error {
	link, err := h.Netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s of %s: %w", name, h, err)
	}
	neighbours, err := h.Netlink.NeighList(link.Attrs().Index, family)
	if err != nil {
		return fmt.Errorf("list neighbours of %s: %w", h, err)
	}
	permanent := slices.DeleteFunc(neighbours, func(n netlink.Neigh) bool {
		return n.State&unix.NUD_PERMANENT == 0
	})
	if len(permanent) == 0 {
		return fmt.Errorf("delete neighbours on %s of %s: there are none", name, h)
	}
	for _, neighbour := range permanent {
		if err := h.Netlink.NeighDel(&neighbour); err != nil {
			return fmt.Errorf("delete neighbour %s on %s of %s: %w", neighbour.IP, name, h, err)
		}
	}
	return nil
}

// Tables lists the names of the host's nftables tables, each after its family:
// "ip", "ip6" or "inet".
func (h *Host) Tables() ([]string, error) {
	conn, err := h.nftables()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables of %s: %w", h, err)
	}
	var names []string
	for _, table := range tables {
		names = append(names, tableFamily(table.Family)+" "+table.Name)
	}
	return names, nil
}

// FlushTable removes all rules from the tables of that name, in all families.
func (h *Host) FlushTable(name string) error {
	conn, err := h.nftables()
	if err != nil {
		return err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return fmt.Errorf("list nftables of %s: %w", h, err)
	}
	found := false
	for _, table := range tables {
		if table.Name == name {
			conn.FlushTable(table)
			found = true
		}
	}
	if !found {
		return fmt.Errorf("flush nftables %s of %s: there is none", name, h)
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("flush nftables %s of %s: %w", name, h, err)
	}
	return nil
}

// Rules counts the rules in the nftables tables of that name, in all families.
func (h *Host) Rules(name string) (int, error) {
	conn, err := h.nftables()
	if err != nil {
		return 0, err
	}
	chains, err := conn.ListChains()
	if err != nil {
		return 0, fmt.Errorf("list nftables of %s: %w", h, err)
	}
	count := 0
	for _, chain := range chains {
		if chain.Table.Name != name {
			continue
		}
		rules, err := conn.GetRules(chain.Table, chain)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return 0, fmt.Errorf("list nftables of %s: %w", h, err)
		}
		count += len(rules)
	}
	return count, nil
}

func (h *Host) nftables() (*nftables.Conn, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(h.ns.FD()))
	if err != nil {
		return nil, fmt.Errorf("open nftables of %s: %w", h, err)
	}
	return conn, nil
}

func tableFamily(family nftables.TableFamily) string {
	switch family {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	default:
		return fmt.Sprintf("family %d", family)
	}
}

func netlinkFamily(family ip.Family) int {
	if family == ip.IPv4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// AddRoute adds a route to the host.
func (h *Host) AddRoute(to netip.Prefix, via netip.Addr) error {
	if err := h.Netlink.RouteAdd(&netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("add route of %s to %s via %s: %w", h, to, via, err)
	}
	return nil
}
