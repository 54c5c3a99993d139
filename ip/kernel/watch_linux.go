package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/notify"
	"tulle/ip/kernel/xtables"
)

// Watch calls tell once as soon as it sees changes, because some may have come before, and then after each change.
// Of the settings below /proc/sys the kernel announces forwarding alone. The error is ctx's own if it ended.
func (k *Kernel) Watch(ctx context.Context, tell func(ip.Actor)) error {
	group, ctx := errgroup.WithContext(ctx)
	var watches []watch
	err := k.inside(func() error {
		links, err := notify.Listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
			unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
			unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_TC)
		if err != nil {
			return err
		}
		watches = append(watches, watch{links, k.concerns})
		if err := links.Join(unix.RTNLGRP_NEXTHOP); err != nil && !errors.Is(err, unix.EINVAL) { // Linux before 5.3 has no nexthop objects
			return fmt.Errorf("join netlink group: %w", err)
		}
		rules, err := notify.Listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		if unsupported(err) {
			return nil
		}
		if err != nil {
			return err
		}
		watches = append(watches, watch{rules, func(m message) bool { return m.port == 0 || m.port != k.nft.port.Load() }})
		return nil
	})
	for _, w := range watches {
		defer w.Close()
	}
	if err != nil {
		return fmt.Errorf("watch kernel: %w", err)
	}
	tell(ip.Actor{})
	group.Go(func() error { return k.watchLegacy(ctx, tell) })
	for _, w := range watches {
		group.Go(func() error {
			err := w.run(ctx, tell)
			if ctx.Err() == nil {
				err = fmt.Errorf("watch kernel: %w", err)
			}
			return err
		})
	}
	return group.Wait()
}

// watchLegacy watches for uses of iptables-legacy, our own among them, as long as it has tables in this namespace. If
// there is no way to watch, the changes are left to the resync.
func (k *Kernel) watchLegacy(ctx context.Context, tell func(ip.Actor)) error {
	_ = xtables.Watch(ctx, func() {
		if k.legacy.exists(k) {
			tell(ip.Actor{})
		}
	})
	<-ctx.Done()
	return ctx.Err()
}

// gather is for how long notifications are left to come together after some were read.
const gather = 30 * time.Millisecond

// watch is a subscription to notifications of which some concern us.
type watch struct {
	*notify.Socket
	concerns func(message) bool
}

func (w watch) run(ctx context.Context, tell func(ip.Actor)) error {
	return w.Run(ctx, gather, func(datagram []byte) error {
		if datagram == nil {
			tell(ip.Actor{})
		} else if m, ok := w.first(datagram); ok {
			tell(m.actor())
		}
		return nil
	}, func() {})
}

// first returns the first message of a datagram that is of interest.
func (w watch) first(datagram []byte) (message, bool) {
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
