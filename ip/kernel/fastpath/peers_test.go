//go:build linux

package fastpath_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tulle/ip"
	"tulle/ip/kernel/fastpath"
)

// A peer changes its tunnel's MAC or its address. Its packets go right as soon as the engines are told, however long admissions last, and if nobody tells
// them once the admissions have ended.
func TestPeersChange(t *testing.T) {
	for name, change := range map[string]struct {
		backend string // zero: any
		do      func(*host)
	}{
		"MAC of its tunnel": {"vxlan", func(b *host) { b.mac = ip.MAC{2, 0x42, 0, 0, 0, 0x77} }},
		"address": {"", func(b *host) {
			b.addr = nth(underlayPrefix(b.world.family), 102)
			b.address(uplink, netip.PrefixFrom(b.addr, underlayPrefix(b.world.family).Bits()))
		}},
	} {
		worlds := func() []config {
			return some(kinds(), func(c config) bool { return change.backend == "" || change.backend == c.backend })
		}
		t.Run(name+"/told", func(t *testing.T) {
			lasting := with(worlds(), func(c *config) { c.open = lasting(c.open) })
			holds(t, lasting, func(w *world) error { return peerChanges(w, change.do, true) })
		})
		t.Run(name+"/not told", func(t *testing.T) {
			holds(t, worlds(), func(w *world) error { return peerChanges(w, change.do, false) })
		})
	}
}

// lasting opens an engine whose admissions last.
func lasting(open func(fastpath.Config) (*fastpath.FastPath, error)) func(fastpath.Config) (*fastpath.FastPath, error) {
	if open == nil {
		open = fastpath.Open
	}
	return func(cfg fastpath.Config) (*fastpath.FastPath, error) {
		cfg.Life = time.Minute
		return open(cfg)
	}
}

func peerChanges(w *world, change func(*host), told bool) error {
	a, b := w.hosts[0], w.hosts[1]
	streams := []*stream{startStream(a.containers[0], b.containers[0]), startStream(b.containers[0], a.containers[0])}
	for _, s := range streams {
		must(w.t, s.awaitFast())
	}
	change(b)
	if told {
		w.converge()
	} else {
		for range 5 { // the kernels alone
			b.pass()
			a.pass()
		}
	}
	var latest [2]uint64 // of the packets that may be lost
	for i, s := range streams {
		latest[i] = s.sent.Load() + uint64(healLimit/streamPeriod)
	}
	whole := make([]uint64, len(streams))
	for i, s := range streams {
		var err error
		if whole[i], err = s.awaitWhole(); err != nil {
			return err
		}
	}
	if !told {
		w.converge()
		for _, s := range streams {
			if err := s.awaitFast(); err != nil {
				return err
			}
		}
	}
	for i, s := range streams {
		if r := s.stop(); r.lastLost >= min(whole[i], latest[i]) || r.Twice > 0 {
			return fmt.Errorf("packets shall arrive from the %dth on, and all of a second did from the %dth: %s", latest[i], whole[i], r)
		}
	}
	return nil
}

// The MAC of a peer's uplink changes, which it tells all others.
func TestUplinkOfPeerChanges(t *testing.T) {
	holds(t, kinds(), func(w *world) error {
		a, b := w.hosts[0], w.hosts[1]
		b.set("net/ipv4/conf/"+uplink+"/arp_notify", "1")
		b.set("net/ipv6/conf/"+uplink+"/ndisc_notify", "1")
		streams := []*stream{startStream(a.containers[0], b.containers[0]), startStream(b.containers[0], a.containers[0])}
		for _, s := range streams {
			must(w.t, s.awaitFast())
		}
		must(w.t, b.netlink.LinkSetHardwareAddr(b.link(uplink), net.HardwareAddr{2, 0x30, 0, 0, 0, 0x77}))
		var errs []error
		for _, s := range streams {
			errs = append(errs, s.awaitMore(10), s.awaitFast())
		}
		for _, s := range streams {
			if r := s.stop(); r.Lost > int(2*ruleLimit/streamPeriod) {
				errs = append(errs, fmt.Errorf("%s: %s", s.from, r))
			}
		}
		return errors.Join(errs...)
	})
}

// However often the daemon is started again and all peers have changed, there is room for them soon; of more than there is room for, as many as possible are fast.
func TestRoomForPeers(t *testing.T) {
	const room = 32768
	for name, peers := range map[string][]int{ // at each start
		"again and again": {10_000, 10_000, 10_000, 10_000, 10_000},
		"too many":        {room + 1000},
		"fewer again":     {room + 1000, room - 1000},
	} {
		t.Run(name, func(t *testing.T) {
			holds(t, one(), func(w *world) error {
				h := w.hosts[0]
				for start, n := range peers {
					must(w.t, h.engine.stop())
					h.engine = h.start(w.open)
					want := h.fastPath()
					want.Peers = ip.FastPeersOf(slices.Concat(h.crowd(n, start), want.Peers.Sorted())...)
					h.engine.Want(want)
					known := 0
					if !eventually(healTimeout, func() bool {
						var err error
						known, err = h.engine.Subnets()
						must(w.t, err)
						short := strings.Contains(h.engine.State().Partly, "there is room for")
						return known == min(want.Peers.Len(), room) && short == (want.Peers.Len() > room)
					}) {
						return fmt.Errorf("of %d subnets the programs know %d, and the state says %s", want.Peers.Len(), known, show(h.engine.State()))
					}
					if failed := h.engine.State().Failed; failed != "" {
						return errors.New(failed)
					}
				}
				if h.engine.State().Partly != "" {
					return nil
				}
				s := startStream(h.containers[0], w.hosts[1].containers[0])
				must(w.t, s.awaitFast())
				return s.stop().kept()
			})
		})
	}
}

// crowd is peers that nobody stands behind, each time on other machines.
func (h *host) crowd(n, number int) []ip.FastPeer {
	peers := make([]ip.FastPeer, n)
	link := h.fastPath().Devices[0].Name
	for i := range peers {
		peers[i] = ip.FastPeer{
			Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(64 + i>>14), byte(i >> 6), byte(i << 2)}), 30), Link: link,
			Remote: netip.AddrFrom4([4]byte{172, 31, byte(number), 1}), MAC: ip.MAC{2, 3, 4, byte(number), byte(i >> 8), byte(i)},
		}
	}
	return peers
}

// Peers that come and go end no flows of others: the programs are told of them, and go by nothing else that the kernel knows of a tunnel.
func TestPeersComeAndGo(t *testing.T) {
	holds(t, some(kinds(), func(c config) bool { return c.backend == "vxlan" }), func(w *world) error {
		h := w.hosts[0]
		s := startStream(h.containers[0], w.hosts[1].containers[0])
		must(w.t, s.awaitFast())
		device := h.fastPath().Devices[0].Name
		peer := ip.Dual[string]{V4: "10.244.77.0", V6: "fd10:244:0:77::"}.Of(w.family)
		ended := h.engine.State().Raised["neighbours"]
		for i := range 60 {
			mac := fmt.Sprintf("02:42:00:00:01:%02x", i)
			h.run("", "ip", "neigh", "replace", peer, "lladdr", mac, "dev", device, "nud", "permanent")
			h.run("", "bridge", "fdb", "replace", mac, "dev", device, "dst", w.hosts[1].addr.String())
			h.run("", "bridge", "fdb", "del", mac, "dev", device)
		}
		h.run("", "ip", "neigh", "del", peer, "dev", device)
		s.awaitSent(1000)
		if n := h.engine.State().Raised["neighbours"] - ended; n > 5 { // what the containers themselves ask for
			return fmt.Errorf("all admissions have ended %d times, while a peer changed 60 times", n)
		}
		return s.stop().kept()
	})
}
