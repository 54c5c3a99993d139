package fastpath

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"tulle/ip/kernel/notify"
)

// Causes of another epoch, beside those of the loop.
const (
	causeRules    = "nftables"
	causeLinks    = "links"
	causeNeighbor = "neighbours"
	causeOverflow = "overflow" // notifications were lost
)

// watch raises the epoch whenever something has changed that decides what becomes of packets, and has the loop look at links that came or went.
func (f *FastPath) watch(ctx context.Context) error {
	for {
		err := f.watchOnce(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.note(err)
		f.note(f.raise(causeOverflow))
		f.relook()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// relook has the loop compare what hangs where.
func (f *FastPath) relook() {
	f.mu.Lock()
	f.stale = true
	f.mu.Unlock()
	signal(f.wake)
}

func (f *FastPath) watchOnce(ctx context.Context) error {
	var routes, rules *notify.Socket
	err := f.ns.Do(func() (err error) {
		if routes, err = notify.Listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_TC); err != nil {
			return err
		}
		rules, err = notify.Listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		if errors.Is(err, unix.EPROTONOSUPPORT) { // a kernel without nf_tables
			return nil
		}
		return err
	})
	for _, s := range []*notify.Socket{routes, rules} {
		if s != nil {
			defer s.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("watch for changes: %w", err)
	}
	w := newWatcher(f)
	if err := f.ns.Do(w.fill); err != nil {
		return fmt.Errorf("watch for changes: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.receive(ctx, routes, gather, w.changed) })
	if rules != nil {
		g.Go(func() error {
			return f.receive(ctx, rules, gatherRules, func(m []byte, typ uint16) (string, error) {
				if typ == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
					return causeRules, nil
				}
				return "", nil
			})
		})
	}
	return g.Wait()
}

// gather is for how long notifications are left to come together after the first: a container that comes or goes makes some twenty, a lease that changes six.
const gather = 30 * time.Millisecond

// gatherRules is the same for generations of nftables, which are to bite soon.
const gatherRules = 10 * time.Millisecond

// receive reads notifications, and raises the epoch for causes that changed names.
func (f *FastPath) receive(ctx context.Context, s *notify.Socket, pause time.Duration, changed func(m []byte, typ uint16) (string, error)) error {
	cause := ""
	return s.Run(ctx, pause, func(datagram []byte) error {
		if datagram == nil {
			return errors.New("the kernel dropped notifications")
		}
		messages, err := syscall.ParseNetlinkMessage(datagram)
		if err != nil {
			return err
		}
		for _, m := range messages {
			why, err := changed(m.Data, m.Header.Type)
			if err != nil {
				return err
			}
			cause = cmp.Or(why, cause)
		}
		return nil
	}, func() {
		if cause != "" {
			f.note(f.raise(cause))
			cause = ""
		}
	})
}

// watcher knows what was, so that news of what is as it was does not count: neighbours are confirmed all day.
type watcher struct {
	f         *FastPath
	links     map[int]watched
	neighbors map[neighbor]string
	entries   map[entry]int // of bridges: the port by MAC
}

// watched is what of a link flows depend on.
type watched struct {
	veth   bool // it may be a container's
	tunnel bool // what is known of those behind it is what tulled wants of peers, which the programs are told
	up     bool
	master int
	mtu    int
	mac    string
}

type neighbor struct {
	link int
	ip   string
}

type entry struct {
	master int
	vlan   int
	mac    string
}

func newWatcher(f *FastPath) *watcher {
	return &watcher{f: f, links: map[int]watched{}, neighbors: map[neighbor]string{}, entries: map[entry]int{}}
}

// fill reads what there is.
func (w *watcher) fill() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		w.links[l.Attrs().Index] = watchedOf(l)
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6, unix.AF_BRIDGE} {
		dump := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
		dump.AddData(&netlink.Ndmsg{Family: family})
		var wrong error
		err := dump.ExecuteIter(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH, func(m []byte) bool {
			_, wrong = w.heard(m, false)
			return wrong == nil
		})
		if err := cmp.Or(err, wrong); err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // what has changed meanwhile is told
			return err
		}
	}
	return nil
}

func watchedOf(l netlink.Link) watched {
	a := l.Attrs()
	return watched{l.Type() == "veth", l.Type() == "vxlan", a.Flags&net.FlagUp != 0, a.MasterIndex, a.MTU, string(a.HardwareAddr)}
}

// readWatched reads these from a message about a link (rtnetlink(7)), of which there are a dozen for each container that comes or goes.
func readWatched(m []byte) (index int, w watched) {
	index = int(int32(binary.NativeEndian.Uint32(m[4:])))
	w.up = binary.NativeEndian.Uint32(m[8:])&unix.IFF_UP != 0
	for typ, value := range notify.Attributes(m[unix.SizeofIfInfomsg:]) {
		switch {
		case typ == unix.IFLA_MASTER && len(value) == 4:
			w.master = int(binary.NativeEndian.Uint32(value))
		case typ == unix.IFLA_MTU && len(value) == 4:
			w.mtu = int(binary.NativeEndian.Uint32(value))
		case typ == unix.IFLA_ADDRESS:
			w.mac = string(value)
		case typ == unix.IFLA_LINKINFO:
			for typ, value := range notify.Attributes(value) {
				if typ == unix.IFLA_INFO_KIND {
					kind := strings.TrimRight(string(value), "\x00")
					w.veth, w.tunnel = kind == "veth", kind == "vxlan"
				}
			}
		}
	}
	return index, w
}

// changed returns for what cause the epoch is to be raised; empty: none.
func (w *watcher) changed(m []byte, typ uint16) (string, error) {
	switch typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return w.link(m, typ == unix.RTM_DELLINK)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if changed, err := w.heard(m, typ == unix.RTM_DELNEIGH); err != nil || changed {
			return causeNeighbor, err
		}
	case unix.RTM_NEWQDISC, unix.RTM_DELQDISC, unix.RTM_NEWTFILTER, unix.RTM_DELTFILTER:
		w.f.relook()
		return causeLinks, nil
	}
	return "", nil
}

func (w *watcher) link(m []byte, gone bool) (string, error) {
	if len(m) < unix.SizeofIfInfomsg {
		return "", nil
	}
	index, now := readWatched(m)
	before, known := w.links[index]
	bridge := m[0] == unix.AF_BRIDGE // a port joins or leaves
	switch {
	case gone && !bridge:
		delete(w.links, index)
		// Another link may get its number.
		if err := w.f.objects.Stations.Delete(uint32(index)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return "", fmt.Errorf("forget a container's MAC: %w", err)
		}
	case bridge:
	case known && before == now:
		return "", nil
	default:
		w.links[index] = now
	}
	if w.links[index].veth || before.veth {
		signal(w.f.arrivals)
	} else {
		w.f.relook()
	}
	if !known || !w.matters(index) {
		return "", nil // no flow has used it
	}
	return causeLinks, nil
}

// matters reports whether flows depend on a link.
func (w *watcher) matters(link int) bool {
	relevant := w.f.relevant.Load()
	return relevant == nil || (*relevant)[link]
}

// heard takes in a message about a neighbour, or a forwarding entry, and reports whether flows may have gone by something else. Peers come and go all the time in large
// networks: that ends no flows of others.
func (w *watcher) heard(m []byte, gone bool) (changed bool, err error) {
	if len(m) < unix.SizeofNdMsg || w.links[int(int32(binary.NativeEndian.Uint32(m[4:])))].tunnel { // ndm_ifindex
		return false, nil
	}
	n, err := netlink.NeighDeserialize(m)
	if err != nil {
		return false, err
	}
	return w.neighbor(n, gone) && w.matters(n.LinkIndex), nil
}

// neighbor takes in what is known of a neighbour, or of a forwarding entry of a bridge, and reports whether flows may have gone by something else.
func (w *watcher) neighbor(n *netlink.Neigh, gone bool) bool {
	if n.Family == unix.AF_BRIDGE {
		e := entry{n.MasterIndex, n.Vlan, string(n.HardwareAddr)}
		before, known := w.entries[e]
		if gone {
			delete(w.entries, e)
			return known && before == n.LinkIndex
		}
		w.entries[e] = n.LinkIndex
		return known && before != n.LinkIndex
	}
	k := neighbor{n.LinkIndex, string(n.IP)}
	before, known := w.neighbors[k]
	const unresolved = netlink.NUD_INCOMPLETE | netlink.NUD_FAILED
	if gone || n.State&unresolved != 0 || len(n.HardwareAddr) == 0 {
		delete(w.neighbors, k)
		return known
	}
	w.neighbors[k] = string(n.HardwareAddr)
	return known && before != string(n.HardwareAddr)
}
