package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/xtables"
)

// Watch calls notify once as soon as it sees changes, because some may have come before, and then after each change.
// Of the settings below /proc/sys the kernel announces forwarding alone. The error is ctx's own if it ended.
func (k *Kernel) Watch(ctx context.Context, notify func(ip.Actor)) error {
	group, ctx := errgroup.WithContext(ctx)
	var watches []*watch
	err := k.inside(func() error {
		links, err := listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
			unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
			unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_TC)
		if err != nil {
			return err
		}
		watches = append(watches, &watch{links, k.concerns})
		rules, err := listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		if unsupported(err) {
			return nil
		}
		watches = append(watches, &watch{rules, func(m message) bool { return m.port == 0 || m.port != k.nft.port.Load() }})
		return err
	})
	for _, w := range watches {
		defer w.file.Close()
	}
	if err != nil {
		return fmt.Errorf("watch kernel: %w", err)
	}
	notify(ip.Actor{})
	group.Go(func() error { return k.watchLegacy(ctx, notify) })
	for _, w := range watches {
		group.Go(func() error { return w.run(ctx, notify) })
	}
	return group.Wait()
}

// watchLegacy watches for uses of iptables-legacy, our own among them, as long as it has tables in this namespace. If
// there is no way to watch, the changes are left to the resync.
func (k *Kernel) watchLegacy(ctx context.Context, notify func(ip.Actor)) error {
	_ = xtables.Watch(ctx, func() {
		if k.legacy.exists(k) {
			notify(ip.Actor{})
		}
	})
	<-ctx.Done()
	return ctx.Err()
}

// watch is a subscription to notifications.
type watch struct {
	file     *os.File
	concerns func(message) bool
}

// listen joins multicast groups of a netlink protocol in the network namespace of the calling thread.
func listen(protocol int, groups ...int) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "netlink")
	growBuffers(fd)
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, g := range groups {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("join netlink groups: %w", err), file.Close())
	}
	return file, nil
}

func (w *watch) run(ctx context.Context, notify func(ip.Actor)) error {
	defer context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })()
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, receiveSize)
	for {
		var n int
		var receiveErr error
		err := raw.Read(func(fd uintptr) bool {
			n, _, receiveErr = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(receiveErr, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(receiveErr, unix.ENOBUFS):
			notify(ip.Actor{}) // the kernel dropped some
		case errors.Is(receiveErr, unix.EINTR):
		case err != nil || receiveErr != nil:
			return fmt.Errorf("watch kernel: %w", errors.Join(err, receiveErr))
		default:
			if m, ok := w.first(buf[:n]); ok {
				notify(m.actor())
			}
		}
	}
}

// first returns the first message of a datagram that is of interest.
func (w *watch) first(datagram []byte) (message, bool) {
	for m := range messages(datagram) {
		if w.concerns(m) {
			return m, true
		}
	}
	return message{}, false
}

// concerns reports whether a notification of rtnetlink is about something that we did not do ourselves and that a
// snapshot might show.
func (k *Kernel) concerns(m message) bool {
	switch m.typ {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return m.port != k.route.port && k.concernsRoute(m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return m.port != k.route.port && k.concernsNeighbor(m)
	case unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWTCLASS, unix.RTM_DELTCLASS, unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER, unix.RTM_NEWCHAIN, unix.RTM_DELCHAIN:
		t, ok := parseTC(m)
		own := k.ownLinks.Load()
		return ok && own != nil && (*own)[t.link] != ""
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		return m.port != k.route.port && k.hostLinks.concerns(m)
	}
	return m.port != k.route.port
}

// concernsRoute lets through what a snapshot or an answer to a question could show: Tulle's routes and those over its links, default
// routes, those that name an MTU, and what overlaps the networks or covers an address that matters. A routing daemon changes thousands of others.
func (k *Kernel) concernsRoute(m message) bool {
	if len(m.data) >= unix.SizeofRtMsg && binary.NativeEndian.Uint32(m.data[8:])&unix.RTM_F_CLONED != 0 {
		return false
	}
	r, ok := parseRoute(m)
	own := k.ownLinks.Load()
	if !ok || own == nil || r.protocol == ip.Protocol || r.dst.Bits() == 0 || r.mtu != 0 {
		return true
	}
	hops := r.hops
	if hops == nil {
		hops = []hop{r.hop}
	}
	for _, h := range hops {
		if h.link == 0 && r.typ == unix.RTN_UNICAST || (*own)[h.link] != "" { // a nexthop object may be named without its link
			return true
		}
	}
	return k.destinations.touchedBy(r.dst)
}

// concernsNeighbor lets through the neighbours and forwarding entries of our links, and of those only the permanent
// ones, those that a process takes away and, since the kernel first takes the permanence off it, any that is deleted. The
// rest is the host's daily life. A deletion names nobody; before it, and with the process, the neighbour is told to be invalid.
func (k *Kernel) concernsNeighbor(m message) bool {
	n, ok := parseNeighbor(m)
	if own := k.ownLinks.Load(); !ok || own != nil && (*own)[n.link] == "" {
		return false
	}
	if n.family == unix.AF_BRIDGE && !n.dst.IsValid() {
		return false // no snapshot shows it; older kernels tell of each forwarding entry a second time without where it leads
	}
	if m.port == 0 && k.echoes.expected(m.typ, n) {
		return false
	}
	invalidated := n.state == unix.NUD_FAILED && m.port != 0
	return n.state&unix.NUD_PERMANENT != 0 || invalidated || m.typ == unix.RTM_DELNEIGH && n.family != unix.AF_BRIDGE
}
