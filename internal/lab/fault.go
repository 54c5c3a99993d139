//go:build linux

package lab

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// The faults below are what an operator, a tool or the kernel does behind the
// daemon's back. Each fails if it finds nothing to break.

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
