//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"tulle/internal/netns"
	"tulle/ip"
)

// MaxForeignRules is how many rules are made in a moment.
const MaxForeignRules = 20_000

// foreignRules makes a table of nftables as another program's, with rules about hosts that there are not.
func (w *world) foreignRules() error {
	return w.host.Do(func() error { return addForwardRules(ip.IPv4, w.config.ForeignRules) })
}

// addForwardRules makes such a table in the namespace of the calling thread. More is what each rule does besides.
func addForwardRules(f ip.Family, count int, more ...expr.Any) error {
	if count == 0 {
		return nil
	}
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: "foreign", Family: nftables.TableFamilyIPv4}
	source, offset := netip.MustParseAddr("198.18.0.0").AsSlice(), uint32(12) // RFC 791
	if f == ip.IPv6 {
		table.Family = nftables.TableFamilyIPv6
		source, offset = netip.MustParseAddr("2001:db8::").AsSlice(), 8 // RFC 8200
	}
	table = conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: "forward", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	size := len(source)
	for n := range count {
		address := slices.Clone(source)
		address[size-2], address[size-1] = byte(n>>8), byte(n)
		match := []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(size)},
			&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: address},
		}
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: slices.Concat(match, more, []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})})
		if n%100 == 99 { // the answers to more do not fit into a socket
			if err := conn.Flush(); err != nil {
				return fmt.Errorf("add rules: %w", err)
			}
		}
	}
	return conn.Flush()
}

// MaxForeignRoutes is how many routes per second other programs certainly change, MaxVethChurn how many veth pairs they make and delete.
const (
	MaxForeignRoutes = 5000
	MaxVethChurn     = 100
)

// besides measures the load while other programs make changes that concern no peer, so many per second together for a while, or as many as they can.
func (w *world) besides(ctx context.Context, perSecond int, changes ...func(i int) error) (*Load, error) {
	measure, err := w.load(ctx)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeoutCause(ctx, w.config.Idle, errChangedEnough)
	defer stop()
	ticker := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticker.Stop()
	var made atomic.Int64
	programs, ctx := errgroup.WithContext(ctx)
	for _, change := range changes {
		programs.Go(func() error {
			for i := 0; ; i++ {
				select {
				case <-ticker.C:
				case <-ctx.Done():
					return context.Cause(ctx)
				}
				if err := change(i); err != nil {
					return err
				}
				made.Add(1)
			}
		})
	}
	if err := programs.Wait(); !errors.Is(err, errChangedEnough) {
		return nil, err
	}
	load, err := measure()
	load.Others = float64(made.Load()) / load.Seconds
	return &load, err
}

var errChangedEnough = errors.New("other programs have changed enough")

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
	changes, closeAll, err := w.vethChangers(container)
	if err != nil {
		return err
	}
	defer closeAll()
	c.Veths, err = w.besides(ctx, w.config.VethChurn, changes...)
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

// vethPrograms is how many programs make and delete links at once: with each deletion, one waits for some 20 ms (synchronize_net in the kernel).
const vethPrograms = 4

// vethChangers returns programs that make a container's veth pair as CNI plugins do, with one end in its namespace, and delete one, and what closes them.
func (w *world) vethChangers(container *netns.Namespace) (changes []func(i int) error, closeAll func(), err error) {
	bridge, err := w.host.Netlink.LinkByName("cni0")
	if err != nil {
		return nil, nil, err
	}
	var handles []*netlink.Handle
	closeAll = func() {
		for _, n := range handles {
			n.Close()
		}
	}
	for program := range vethPrograms {
		var n *netlink.Handle
		if err := w.host.Do(func() (err error) {
			n, err = netlink.NewHandle(unix.NETLINK_ROUTE)
			return err
		}); err != nil {
			closeAll()
			return nil, nil, err
		}
		handles = append(handles, n)
		changes = append(changes, vethChanger(n, bridge, container, program))
	}
	return changes, closeAll, nil
}

// vethsAlive is how many containers of one program there are at a time.
const vethsAlive = 3

func vethChanger(n *netlink.Handle, bridge netlink.Link, container *netns.Namespace, program int) (change func(i int) error) {
	veth := func(i int) *netlink.Veth {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.MasterIndex = fmt.Sprintf("veth%d-%d", program, i), bridge.Attrs().MTU, bridge.Attrs().Index
		return &netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("ceth%d-%d", program, i), PeerNamespace: netlink.NsFd(container.FD())}
	}
	return func(i int) error {
		end := veth(i)
		if err := n.LinkAdd(end); err != nil {
			return fmt.Errorf("add %s: %w", end.Name, err)
		}
		if err := n.LinkSetUp(end); err != nil {
			return fmt.Errorf("set %s up: %w", end.Name, err)
		}
		if i < vethsAlive {
			return nil
		}
		gone := veth(i - vethsAlive)
		if err := n.LinkDel(gone); err != nil {
			return fmt.Errorf("delete %s: %w", gone.Name, err)
		}
		return nil
	}
}
