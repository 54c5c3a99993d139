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

// RoutesTo lists the host's routes to the subnet of peer.
func (h *Host) RoutesTo(peer *Host, family ip.Family) ([]netlink.Route, error) {
	env, err := peer.ReadSubnetFile()
	if err != nil {
		return nil, err
	}
	filter := &netlink.Route{Dst: ipNet(env.Subnets.Of(family))}
	routes, err := h.Netlink.RouteListFiltered(netlinkFamily(family), filter, netlink.RT_FILTER_DST)
	if err != nil {
		return nil, fmt.Errorf("list routes of %s: %w", h, err)
	}
	return routes, nil
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

// Peers lists the addresses that the host lets VXLAN packets in from.
func (h *Host) Peers() ([]netip.Addr, error) {
	conn, err := h.nftables()
	if err != nil {
		return nil, err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables of %s: %w", h, err)
	}
	var peers []netip.Addr
	for _, table := range tables {
		if table.Name != ip.GuardTable {
			continue
		}
		elements, err := conn.GetSetElements(&nftables.Set{Table: table, Name: ip.GuardPeers})
		if err != nil && !errors.Is(err, unix.ENOENT) { // the table may have gone since
			return nil, fmt.Errorf("list peers of %s: %w", h, err)
		}
		for _, e := range elements {
			addr, _ := netip.AddrFromSlice(e.Key)
			peers = append(peers, addr)
		}
	}
	slices.SortFunc(peers, netip.Addr.Compare)
	return peers, nil
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
