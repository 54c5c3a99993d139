//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/vishvananda/netlink"

	"tulle/ip"
)

// Shutdown stops tulled and takes away all that a reboot takes: what Tulle has in the kernel, the run directory and the
// subnet file. The bridge and its containers stay, as if the host had started them again.
func (h *Host) Shutdown() error {
	if err := h.StopDaemon(); err != nil {
		return err
	}
	links, err := h.VXLANLinks()
	if err != nil {
		return err
	}
	for _, link := range links {
		if err := h.DeleteLink(link); err != nil {
			return err
		}
	}
	if err := errors.Join(h.deleteRoutes(), h.deleteTables("tulle"), os.RemoveAll(h.runDir())); err != nil {
		return err
	}
	if err := os.Remove(h.SubnetFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Reinstall is Shutdown of a host that has its disk wiped as well.
func (h *Host) Reinstall() error {
	if err := h.Shutdown(); err != nil {
		return err
	}
	return os.RemoveAll(h.stateDir())
}

// deleteRoutes deletes Tulle's routes.
func (h *Host) deleteRoutes() error {
	routes, err := h.Netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: ip.Protocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return fmt.Errorf("list routes of %s: %w", h, err)
	}
	for _, route := range routes {
		if err := h.Netlink.RouteDel(&route); err != nil {
			return fmt.Errorf("delete route to %s of %s: %w", route.Dst, h, err)
		}
	}
	return nil
}

// deleteTables deletes the nftables tables of that name, in all families.
func (h *Host) deleteTables(name string) error {
	conn, err := h.nftables()
	if err != nil {
		return err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return fmt.Errorf("list nftables of %s: %w", h, err)
	}
	for _, table := range tables {
		if table.Name == name {
			conn.DelTable(table)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("delete nftables %s of %s: %w", name, h, err)
	}
	return nil
}
