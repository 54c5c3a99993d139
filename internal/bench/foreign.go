//go:build linux

package bench

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
)

// MaxForeignRoutes is how many routes per second one loop certainly changes.
const MaxForeignRoutes = 5000

// foreignRoutes adds and deletes routes as a routing daemon does, outside of the network and of the peers' underlay.
func (w *world) foreignRoutes(ctx context.Context, c *Control) error {
	if w.config.ForeignRoutes == 0 {
		return nil
	}
	eth0, err := w.host.Netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	measure, err := w.load(ctx)
	if err != nil {
		return err
	}
	const bgp = 186 // of /etc/iproute2/rt_protos
	ticker := time.NewTicker(time.Second / time.Duration(w.config.ForeignRoutes))
	defer ticker.Stop()
	count := int(w.config.Idle.Seconds() * float64(w.config.ForeignRoutes))
	for i := range count {
		n := i / 2
		route := &netlink.Route{
			LinkIndex: eth0.Attrs().Index, Scope: netlink.SCOPE_LINK, Protocol: bgp,
			Dst: &net.IPNet{IP: net.IPv4(198, 18, byte(n>>8), byte(n)).To4(), Mask: net.CIDRMask(32, 32)},
		}
		change := w.host.Netlink.RouteAdd
		if i%2 == 1 {
			change = w.host.Netlink.RouteDel
		}
		if err := change(route); err != nil {
			return fmt.Errorf("change route %s: %w", route, err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	load, err := measure()
	c.Foreign = &load
	return err
}
