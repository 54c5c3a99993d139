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
		links.concerns = k.concerns
		watches = append(watches, links)
		if err := links.join(unix.RTNLGRP_NEXTHOP); err != nil && !errors.Is(err, unix.EINVAL) { // Linux before 5.3 has no nexthop objects
			return fmt.Errorf("join netlink group: %w", err)
		}
		rules, err := listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		if unsupported(err) {
			return nil
		}
		if err != nil {
			return err
		}
		rules.concerns = func(m message) bool { return m.port == 0 || m.port != k.nft.port.Load() }
		watches = append(watches, rules)
		return nil
	})
	for _, w := range watches {
		defer w.close()
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

// gather is for how long notifications are left to come together after some were read: others may cause thousands per second, and waking up costs more than
// looking at one does. What comes after silence is read at once.
const gather = 10 * time.Millisecond

// watch is a subscription to notifications.
type watch struct {
	fd       int      // the socket
	ready    *os.File // an epoll(7) that tells once that there are some, and then no more until it is armed again
	concerns func(message) bool
}

// listen joins multicast groups of a netlink protocol in the network namespace of the calling thread.
func listen(protocol int, groups ...int) (_ *watch, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	w := &watch{fd: fd}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	growBuffers(fd)
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, g := range groups {
		err = errors.Join(err, w.join(g))
	}
	if err != nil {
		return nil, fmt.Errorf("join netlink groups: %w", err)
	}
	ready, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("wait for netlink socket: %w", err)
	}
	err = unix.SetNonblock(ready, true) // so that waiting for it takes no thread
	w.ready = os.NewFile(uintptr(ready), "epoll")
	if err == nil {
		err = w.arm(unix.EPOLL_CTL_ADD)
	}
	if err != nil {
		return nil, fmt.Errorf("wait for netlink socket: %w", err)
	}
	return w, nil
}

func (w *watch) join(group int) error {
	return unix.SetsockoptInt(w.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
}

func (w *watch) close() {
	_ = unix.Close(w.fd)
	if w.ready != nil {
		_ = w.ready.Close()
	}
}

// arm has ready tell of the next notification, or of one that is there.
func (w *watch) arm(op int) error {
	raw, err := w.ready.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(ready uintptr) {
		err = unix.EpollCtl(int(ready), op, w.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(w.fd)})
	})
	return errors.Join(controlErr, err)
}

// wait returns when there are notifications.
func (w *watch) wait() error {
	raw, err := w.ready.SyscallConn()
	if err != nil {
		return err
	}
	readErr := raw.Read(func(ready uintptr) bool {
		var n int
		n, err = unix.EpollWait(int(ready), make([]unix.EpollEvent, 1), 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	return errors.Join(readErr, err)
}

func (w *watch) run(ctx context.Context, notify func(ip.Actor)) error {
	defer context.AfterFunc(ctx, func() { _ = w.ready.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, receiveSize)
	pause := time.NewTimer(gather)
	defer pause.Stop()
	for {
		err := w.wait()
		if err == nil {
			err = w.receive(ctx, buf, notify)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("watch kernel: %w", err)
		}
		pause.Reset(gather)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := w.arm(unix.EPOLL_CTL_MOD); err != nil {
			return fmt.Errorf("watch kernel: %w", err)
		}
	}
}

// receive takes all notifications that there are.
func (w *watch) receive(ctx context.Context, buf []byte, notify func(ip.Actor)) error {
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(w.fd, buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.ENOBUFS):
			notify(ip.Actor{}) // the kernel dropped some
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		default:
			if m, ok := w.first(buf[:n]); ok {
				notify(m.actor())
			}
		}
	}
	return ctx.Err()
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
		filtered := k.filteredLinks.Load()
		return ok && filtered != nil && (*filtered)[t.link] != ""
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWNETCONF, unix.RTM_DELNETCONF:
		return m.port != k.route.port && k.hostLinks.concerns(m)
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		return k.hostLinks.concernsObject(m, k.destinations.touchedBy)
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

// concernsNeighbor lets through what is done to the neighbours and forwarding entries of our links: whatever a process does, which may be to one that
// was permanent, and whatever happens to permanent ones. A deleted neighbour has been made impermanent first, and its deletion names nobody. What is
// left is what the kernel learns of neighbours, all day; it learns no forwarding entries there.
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
	if n.family == unix.AF_BRIDGE {
		return n.state&unix.NUD_PERMANENT != 0 || m.typ == unix.RTM_NEWNEIGH
	}
	return n.state&unix.NUD_PERMANENT != 0 || m.port != 0 || m.typ == unix.RTM_DELNEIGH
}
