//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// floor is what the kernel itself takes for what a host with these peers needs: each object by a request of its own, from one
// loop that knows beforehand what to write.
func (w *world) floor(_ context.Context, c *Control) error {
	var took []float64
	for range w.config.Rounds {
		f := floor{world: w, handle: w.host.Netlink}
		if err := f.open(); err != nil {
			return err
		}
		began := time.Now()
		err := f.fill()
		took = append(took, time.Since(began).Seconds())
		if err := errors.Join(err, f.close()); err != nil {
			return err
		}
	}
	c.Floor = figure(took)
	return nil
}

type floor struct {
	*world
	handle *netlink.Handle
	uplink int
	device ip.Dual[int] // of the families that go over VXLAN
}

func (f *floor) open() error {
	eth0, err := f.handle.LinkByName("eth0")
	if err != nil {
		return err
	}
	f.uplink = eth0.Attrs().Index
	if f.config.Backend != "vxlan" {
		return nil
	}
	for _, family := range f.config.Families {
		device := &netlink.Vxlan{
			LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("floor%d", family), MTU: 1430},
			VxlanId:   99, Port: 9999, SrcAddr: underlay.Of(family).Addr().Next().AsSlice(), Learning: false,
		}
		if err := f.handle.LinkAdd(device); err != nil {
			return fmt.Errorf("add %s: %w", device.Name, err)
		}
		if err := f.handle.LinkSetUp(device); err != nil {
			return fmt.Errorf("set %s up: %w", device.Name, err)
		}
		f.device.Set(family, device.Index)
	}
	return nil
}

func (f *floor) fill() error {
	for n := range f.peers() {
		p := f.first(n)
		for _, family := range f.config.Families {
			if err := f.add(p, family, n); err != nil {
				return fmt.Errorf("peer %d: %w", n, err)
			}
		}
	}
	return nil
}

func (f *floor) add(p peer, family ip.Family, n int) error {
	route := &netlink.Route{
		LinkIndex: f.uplink, Dst: ipNet(p.subnets().Of(family)), Gw: p.public().Of(family).AsSlice(), Priority: n + 1,
	}
	if f.config.Backend == "vxlan" {
		route.LinkIndex, route.Gw, route.Flags = f.device.Of(family), route.Dst.IP, int(netlink.FLAG_ONLINK)
		mac := p.mac(family, 1)
		neighbor := &netlink.Neigh{
			LinkIndex: route.LinkIndex, IP: route.Gw, HardwareAddr: mac[:], State: netlink.NUD_PERMANENT, Family: netlinkFamily(family),
		}
		fdb := &netlink.Neigh{
			LinkIndex: route.LinkIndex, IP: p.public().Of(family).AsSlice(), HardwareAddr: mac[:], State: netlink.NUD_PERMANENT,
			Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF,
		}
		if err := f.handle.NeighSet(neighbor); err != nil {
			return fmt.Errorf("set neighbour: %w", err)
		}
		if err := f.handle.NeighSet(fdb); err != nil {
			return fmt.Errorf("set forwarding entry: %w", err)
		}
	}
	if err := f.handle.RouteReplace(route); err != nil {
		return fmt.Errorf("set route: %w", err)
	}
	return nil
}

// close takes everything away; the routes of a device go with it.
func (f *floor) close() error {
	var errs []error
	for _, family := range f.config.Families {
		if index := f.device.Of(family); index != 0 {
			errs = append(errs, f.handle.LinkDel(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Index: index}}))
			continue
		}
		for n := range f.peers() {
			p := f.first(n)
			errs = append(errs, f.handle.RouteDel(&netlink.Route{LinkIndex: f.uplink, Dst: ipNet(p.subnets().Of(family)), Priority: n + 1}))
		}
	}
	return errors.Join(errs...)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func netlinkFamily(f ip.Family) int {
	if f == ip.IPv4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
