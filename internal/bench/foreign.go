//go:build linux

package bench

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
)

// MaxForeignRules is how many rules are made in a moment.
const MaxForeignRules = 20_000

// foreignRules makes a table of nftables as another program's, with rules about hosts that there are not.
func (w *world) foreignRules() error {
	if w.config.ForeignRules == 0 {
		return nil
	}
	return w.host.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Name: "foreign", Family: nftables.TableFamilyIPv4})
		chain := conn.AddChain(&nftables.Chain{
			Table: table, Name: "forward", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
		})
		for n := range w.config.ForeignRules {
			source := []byte{198, 18, byte(n >> 8), byte(n)}
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}, // the source of an IPv4 packet
				&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: source},
				&expr.Verdict{Kind: expr.VerdictDrop},
			}})
			if n%100 == 99 { // the answers to more do not fit into a socket
				if err := conn.Flush(); err != nil {
					return fmt.Errorf("add rules: %w", err)
				}
			}
		}
		return conn.Flush()
	})
}

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
