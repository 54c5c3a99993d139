//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"

	"tulle/internal/netns"
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

// MaxForeignRoutes is how many routes per second one loop certainly changes, MaxVethChurn how many veth pairs one makes and deletes.
const (
	MaxForeignRoutes = 5000
	MaxVethChurn     = 100
)

// besides measures the load while another program makes changes that concern no peer, so many per second for a while, or as many as it can.
func (w *world) besides(ctx context.Context, perSecond int, change func(i int) error) (*Load, error) {
	measure, err := w.load(ctx)
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticker.Stop()
	changes := 0
	for end := time.After(w.config.Idle); ; changes++ {
		if err := change(changes); err != nil {
			return nil, err
		}
		select {
		case <-ticker.C:
			continue
		case <-end:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		break
	}
	load, err := measure()
	load.Others = float64(changes) / load.Seconds
	return &load, err
}

// foreignRoutes adds and deletes routes as a routing daemon does, outside of the network and of the peers' underlay.
func (w *world) foreignRoutes(ctx context.Context, c *Control) error {
	if w.config.ForeignRoutes == 0 {
		return nil
	}
	change, err := w.routeChanger()
	if err != nil {
		return err
	}
	c.Foreign, err = w.besides(ctx, w.config.ForeignRoutes, change)
	return err
}

// routeChanger returns what adds a route, and then deletes it.
func (w *world) routeChanger() (change func(i int) error, err error) {
	eth0, err := w.host.Netlink.LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	const bgp = 186 // of /etc/iproute2/rt_protos
	return func(i int) error {
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
		return nil
	}, nil
}

// vethChurn has containers come and go, on the bridge that has the lease.
func (w *world) vethChurn(ctx context.Context, c *Control) (err error) {
	if w.config.VethChurn == 0 {
		return nil
	}
	if err := w.addBridge(ctx); err != nil {
		return err
	}
	container, err := netns.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, container.Close()) }() // and what is left in it goes
	change, err := w.vethChanger(container)
	if err != nil {
		return err
	}
	c.Veths, err = w.besides(ctx, w.config.VethChurn, change)
	return err
}

// addBridge makes the bridge of containers, and waits until the daemon has counted what it changed for that.
func (w *world) addBridge(ctx context.Context) error {
	before, err := w.daemonCounters(ctx)
	if err != nil {
		return err
	}
	if err := w.lab.StartContainers(ctx); err != nil {
		return err
	}
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(10 * time.Second); ; {
		now, err := w.daemonCounters(ctx)
		if err != nil || now[changesTotal] > before[changesTotal] {
			return err
		}
		select {
		case <-ticker.C:
		case <-deadline:
			return errors.New("tulled does not take in the bridge of containers")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// vethsAlive is how many containers there are at a time.
const vethsAlive = 10

// vethChanger returns what makes a veth pair as Docker does, with one end in a namespace, and deletes one.
func (w *world) vethChanger(container *netns.Namespace) (change func(i int) error, err error) {
	n := w.host.Netlink
	bridge, err := n.LinkByName("cni0")
	if err != nil {
		return nil, err
	}
	veth := func(i int) *netlink.Veth {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = fmt.Sprintf("veth%d", i), bridge.Attrs().MTU
		return &netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("ceth%d", i)}
	}
	return func(i int) error {
		end, inside := veth(i), netlink.NewLinkAttrs()
		inside.Name = end.PeerName
		if err := n.LinkAdd(end); err != nil {
			return fmt.Errorf("add %s: %w", end.Name, err)
		}
		err := errors.Join(n.LinkSetMaster(end, bridge), n.LinkSetNsFd(&netlink.Veth{LinkAttrs: inside}, container.FD()), n.LinkSetUp(end))
		if i >= vethsAlive {
			err = errors.Join(err, n.LinkDel(veth(i-vethsAlive)))
		}
		if err != nil {
			return fmt.Errorf("plug %s: %w", end.Name, err)
		}
		return nil
	}, nil
}
