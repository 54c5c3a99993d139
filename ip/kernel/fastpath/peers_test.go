//go:build linux

package fastpath_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"tulle/ip"
)

// A peer changes, and the kernels of all hosts with it. From then on no packet is lost, whatever the engine still goes by, and flows become fast
// again once it knows.
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
		t.Run(name, func(t *testing.T) {
			some := some(kinds(), func(c config) bool { return change.backend == "" || change.backend == c.backend })
			holds(t, some, func(w *world) error { return peerChanges(w, change.do) })
		})
	}
}

func peerChanges(w *world, change func(*host)) error {
	a, b := w.hosts[0], w.hosts[1]
	streams := []*stream{startStream(a.containers[0], b.containers[0]), startStream(b.containers[0], a.containers[0])}
	for _, s := range streams {
		must(w.t, s.awaitFast())
	}
	change(b)
	// The kernels first, and the engines as late as it can be.
	for range 5 {
		b.pass()
		a.pass()
	}
	changed := make([]uint64, len(streams))
	for i, s := range streams {
		if err := s.awaitMore(1); err != nil {
			return err
		}
		changed[i] = s.sent.Load()
	}
	for _, s := range streams {
		s.awaitSent(1500)
	}
	w.converge()
	for _, s := range streams {
		if err := s.awaitFast(); err != nil {
			return err
		}
	}
	for i, s := range streams {
		if r := s.stop(); r.lastLost > changed[i] || r.Twice > 0 {
			return fmt.Errorf("after the change, at packet %d: %s", changed[i], r)
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
