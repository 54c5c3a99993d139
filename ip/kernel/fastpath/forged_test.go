//go:build linux

package fastpath_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"tulle/internal/netns/netnstest"
	"tulle/ip"
	"tulle/subnet"
)

// A rule about what a container sends in the name of another holds, while the other's flow is fast.
func TestNeighbourForges(t *testing.T) { holds(t, kinds(), neighbourForges) }

func neighbourForges(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	witness := a.witness(udpOfLength(forgedLength), "drop") // without the rule, they would take the way of the stream's themselves
	s := startStream(a.containers[0], b.containers[0])
	must(w.t, s.awaitFast())
	forger := a.containers[1]
	e, gateway := forger.ether("eth0", 0), a.link(bridge).Attrs().HardwareAddr
	for _, mac := range []net.HardwareAddr{forger.mac, a.containers[0].mac} {
		before := witness.count(w.family)
		s.between(forgedNumber, func() { e.send(gateway, mac, s.forgedPacket()) })
		if !eventually(healTimeout, func() bool { return witness.count(w.family) == before+forgedNumber }) {
			return fmt.Errorf("of %d forged packets from %s, %d are forwarded as others are", forgedNumber, mac, witness.count(w.family)-before)
		}
	}
	if n := s.ofLength(forgedLength); n > 0 {
		return fmt.Errorf("%d forged packets arrive in spite of a rule that drops them", n)
	}
	return s.stop().kept()
}

// Frames that are not for this host are not taken, although the uplink hears them.
func TestFramesOfOthers(t *testing.T) { holds(t, kinds(), framesOfOthers) }

func framesOfOthers(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	must(w.t, a.netlink.SetPromiscOn(a.link(uplink)))
	s := startStream(b.containers[0], a.containers[0])
	must(w.t, s.awaitFast())
	e := w.underlay.ether("to-h1", 0)
	packet := w.outer(b.tunnel(a), s.forgedPacket())
	s.between(forgedNumber, func() {
		e.send(net.HardwareAddr{2, 0, 0, 0, 0, 0x99}, b.link(uplink).Attrs().HardwareAddr, packet)
	})
	must(w.t, s.awaitMore(100))
	if n := s.ofLength(forgedLength); n > 0 {
		return fmt.Errorf("%d of %d packets arrive that were in frames for another host", n, forgedNumber)
	}
	return s.stop().kept()
}

// What no peer may send is never fast. The plain path decides what becomes of it, and counts it.
func TestPeerForges(t *testing.T) {
	for _, f := range forgeries() {
		t.Run(f.name, func(t *testing.T) {
			holds(t, f.kinds(), f.held)
		})
	}
}

// forgery is a packet to the first host, of the flow of a stream that comes there from the second. The third is another peer.
type forgery struct {
	name      string
	backend   string // zero: any
	from      func(*world) *node
	change    func(*world, *tunnel)
	forwarded bool // by the plain path, where a rule drops it
	counted   func(ip.Drops) uint64
}

// kinds are those of worlds where it can be.
func (f forgery) kinds() []config {
	return with(some(kinds(), func(c config) bool { return f.backend == "" || f.backend == c.backend }), func(c *config) { c.hosts = 3 })
}

func forgeries() []forgery {
	second := func(w *world) *node { return w.hosts[1].node }
	third := func(w *world) *node { return w.hosts[2].node }
	return []forgery{
		{"from no peer", "vxlan", (*world).stranger, func(w *world, t *tunnel) { t.from = strangerAddr(w.family) }, false, func(d ip.Drops) uint64 { return d.Strangers }},
		{"from another peer", "vxlan", third, func(w *world, t *tunnel) { t.from = w.hosts[2].addr }, false, func(d ip.Drops) uint64 { return d.Forged }},
		{"from another peer by its own device", "vxlan", third, func(w *world, t *tunnel) { t.from, t.src = w.hosts[2].addr, w.hosts[2].mac }, false, func(d ip.Drops) uint64 { return d.Forged }},
		{"from another peer", "host-gw", third, nil, true, nil},
		{"with another VNI", "vxlan", second, func(_ *world, t *tunnel) { t.vni = 2 }, false, nil},
		{"to another MAC", "vxlan", second, func(_ *world, t *tunnel) { t.dst[5] = 0x99 }, false, nil},
		{"from another MAC", "vxlan", second, func(_ *world, t *tunnel) { t.src[5] = 0x99 }, true, nil},
	}
}

func strangerAddr(f ip.Family) netip.Addr { return nth(underlayPrefix(f), 66) }

// stranger is a machine on the underlay that is no host.
func (w *world) stranger() *node {
	n := newNode(w.t)
	w.underlay.join("underlay", attrs("to-stranger", underlayMTU), n, nil, netip.PrefixFrom(strangerAddr(w.family), underlayPrefix(w.family).Bits()))
	return n
}

func (f forgery) held(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	witness := a.witness(udpOfLength(forgedLength), "drop")
	sender := f.from(w)
	s := startStream(b.containers[0], a.containers[0])
	must(w.t, s.awaitFast())
	before := a.drops()
	t := b.tunnel(a)
	if f.change != nil {
		f.change(w, &t)
	}
	s.between(forgedNumber, func() { netnstest.SendIP(w.t, sender.Do, w.outer(t, s.forgedPacket())) })
	must(w.t, s.awaitMore(100))
	want := 0
	if f.forwarded {
		want = forgedNumber
	}
	if !eventually(healTimeout, func() bool { return witness.count(w.family) == want }) {
		return fmt.Errorf("of %d packets, %d are forwarded, want %d", forgedNumber, witness.count(w.family), want)
	}
	if n := s.ofLength(forgedLength); n > 0 {
		return fmt.Errorf("%d forged packets arrive in spite of a rule that drops them", n)
	}
	if f.counted != nil && !eventually(healTimeout, func() bool { return f.counted(a.drops())-f.counted(before) == forgedNumber }) {
		return fmt.Errorf("%d of %d packets are counted", f.counted(a.drops())-f.counted(before), forgedNumber)
	}
	return s.stop().kept()
}

// drops is what the host's rules have dropped.
func (h *host) drops() ip.Drops {
	h.t.Helper()
	scope := h.backend.Scope([]*subnet.Lease{})
	scope.Networks = h.world.network.Prefixes()
	snap, err := h.kernel.Snapshot(h.t.Context(), scope)
	must(h.t, err)
	drops := snap.Drops[""]
	return drops.Of(h.world.family)
}

// A peer that sends in another's name, and did so first, does not keep the other's flow from being fast, even if the plain path lets it.
func TestPeerHoldsNoFlow(t *testing.T) {
	holds(t, unchecked(tunnels()), peerHoldsNoFlow)
}

func unchecked(kinds []config) []config {
	return with(kinds, func(c *config) { c.hosts, c.unchecked = 3, true })
}

func peerHoldsNoFlow(w *world) error {
	a, b, c := w.hosts[0], w.hosts[1], w.hosts[2]
	outgoing, incoming := listen(b.containers[0], 0), listen(a.containers[0], 0)
	t := b.tunnel(a)
	t.from, t.src = c.addr, c.mac
	forged := w.outer(t, netnstest.UDP(addrOf(outgoing), addrOf(incoming), make([]byte, forgedLength)))
	for range 10 { // until all is known that packets need on their way
		netnstest.SendIP(w.t, c.Do, forged)
		must(w.t, incoming.SetReadDeadline(time.Now().Add(healTimeout)))
		if _, err := incoming.Read(make([]byte, forgedLength)); err != nil {
			w.t.Fatalf("what another peer sends does not arrive: %v", err)
		}
		<-time.After(50 * time.Millisecond)
	}
	must(w.t, incoming.SetReadDeadline(time.Time{}))
	s := startUnheard(b.containers[0], a.containers[0], outgoing, incoming)
	forge := func(n int) {
		for range n {
			netnstest.SendIP(w.t, c.Do, forged)
			s.awaitSent(200) // a tenth of an admission's life
		}
	}
	forge(25) // longer than two lives
	before, sent := traffic(a, b), s.sent.Load()
	forge(10)
	if a.engine != nil {
		fast := a.engine.State().In.FastPackets - before.states[0].In.FastPackets
		if sent := s.sent.Load() - sent; fast < sent*9/10 {
			return fmt.Errorf("%d of %d packets are fast while another peer sends in the sender's name", fast, sent)
		}
	}
	return s.stop().kept()
}

// Rules about the outer packets hold.
func TestOuterRulesHold(t *testing.T) { holds(t, tunnels(), outerRulesHold) }

func outerRulesHold(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	first := startStream(a.containers[0], b.containers[0]) // so that all is known that packets need on their way
	must(w.t, first.awaitFast())
	must(w.t, first.stop().kept())
	a.nft(w.family, `table FAMILY outer {
	chain output { type filter hook output priority 0; udp dport 8472 drop
	}
}
`)
	s := startUnheard(a.containers[0], b.containers[0], listen(a.containers[0], 0), listen(b.containers[0], 0))
	s.awaitSent(2000)
	if r := s.stop(); r.Lost != r.Sent {
		return fmt.Errorf("%d of %d packets arrive in spite of a rule that drops what they are in", r.Sent-r.Lost, r.Sent)
	}
	return nil
}
