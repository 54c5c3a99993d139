//go:build linux

package fastpath_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
	"tulle/ip/kernel/fastpath"
)

// A container that gets the interface number of one that is gone gets none of its packets, once its end is known: the kernel gives a number again only after
// it has given all others.
func TestVethIsReused(t *testing.T) { holds(t, kinds(), vethIsReused) }

func vethIsReused(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	gone := a.containers[0]
	s := startStream(b.containers[0], gone)
	must(w.t, s.awaitFast())
	port := attrs(gone.port, w.mtu())
	port.Index = a.link(gone.port).Attrs().Index
	known := a.linkChanges()
	a.unplug(gone)
	if a.engine != nil && !eventually(healTimeout, func() bool { return a.linkChanges() > known }) {
		return fmt.Errorf("the engine does not hear of the end of %s", gone.port)
	}
	c := a.plugAs(port, nth(a.subnet, 9))
	if index := a.link(c.port).Attrs().Index; index != port.Index {
		w.t.Fatalf("the new veth has number %d, want %d", index, port.Index)
	}
	strange := c.taken("eth0", w.family, gone.addr)
	s.awaitSent(3000)
	if n := strange.Load(); n > 0 {
		return fmt.Errorf("%d packets come to another container than they are for", n)
	}
	fresh := startStream(b.containers[0], c)
	must(w.t, fresh.awaitFast())
	return fresh.stop().kept()
}

// linkChanges is how often changes of links, and of what is known of those behind them, have ended all admissions of the host.
func (h *host) linkChanges() uint64 {
	if h.engine == nil {
		return 0
	}
	raised := h.engine.State().Raised
	return raised["links"] + raised["neighbours"]
}

// Containers that come and go all the time get no programs, for each costs more than it saves; the first that stays does.
func TestShortLivedContainers(t *testing.T) {
	var mu sync.Mutex
	told := map[int]bool{}
	has := func(link int) bool {
		mu.Lock()
		defer mu.Unlock()
		return told[link]
	}
	c := kinds()[0]
	c.engines = 1
	c.open = func(cfg fastpath.Config) (*fastpath.FastPath, error) {
		return fastpath.OpenTold(cfg, func(link uint32) {
			mu.Lock()
			defer mu.Unlock()
			told[int(link)] = true
		})
	}
	holds(t, []config{c}, func(w *world) error {
		h := w.hosts[0]
		const (
			calm  = 3 * time.Second        // until there have been looks enough
			short = 800 * time.Millisecond // less than between two of them
			alive = 8
		)
		type life struct {
			*container
			link int
			from time.Time
		}
		var lives []life
		began, seen, attached := time.Now(), 0, 0
		for i := 0; seen < 50; i++ {
			if time.Since(began) > 2*time.Minute {
				return fmt.Errorf("%d containers in two minutes have lived for less than %v, want 50", seen, short)
			}
			now := time.Now()
			c := h.plug(fmt.Sprint("short", i), nth(h.subnet, 100+i%100))
			lives = append(lives, life{c, h.link(c.port).Attrs().Index, now})
			if len(lives) <= alive {
				continue
			}
			ended := lives[0]
			lives = lives[1:]
			h.unplug(ended.container)
			if ended.from.Sub(began) < calm || time.Since(ended.from) > short {
				continue
			}
			if seen++; has(ended.link) {
				attached++
			}
		}
		for _, l := range lives {
			h.unplug(l.container)
		}
		if attached > seen/10 {
			return fmt.Errorf("%d of %d containers that lived for less than %v got programs", attached, seen, short)
		}
		stays := h.plug("stays", nth(h.subnet, 200))
		index := h.link(stays.port).Attrs().Index
		if !eventually(healTimeout, func() bool { return has(index) }) {
			return errors.New("the container that stays got no programs")
		}
		h.awaitOn()
		return nil
	})
}

// A container that takes the address of one that is gone gets its packets, and nobody else does.
func TestContainerIsReplaced(t *testing.T) { holds(t, kinds(), containerIsReplaced) }

func containerIsReplaced(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	gone, other := a.containers[0], a.containers[1]
	s := startStream(b.containers[0], gone)
	must(w.t, s.awaitFast())
	strange := other.taken("eth0", w.family, gone.addr)
	a.unplug(gone)
	c := a.plug("port3", gone.addr)
	incoming := listenAt(c.node, s.to)
	// What a container sends first tells its host where the address is now.
	hello := dial(c, 0, netip.AddrPortFrom(nth(a.subnet, 1), 9))
	begin := time.Now()
	var arrived time.Time
	if !eventually(healTimeout, func() bool {
		_, _ = hello.Write([]byte("?"))
		must(w.t, incoming.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		control := make([]byte, 128)
		_, n, _, _, err := incoming.ReadMsgUDPAddrPort(make([]byte, 64), control)
		arrived = arrivalTime(control[:n])
		return err == nil
	}) {
		return fmt.Errorf("no packet comes to the container that has the address now")
	}
	if d := arrived.Sub(begin); d > changeLimit {
		return fmt.Errorf("the first packet comes to the container after %v, want %v", d, changeLimit)
	}
	s.awaitSent(1000)
	if n := strange.Load(); n > 0 {
		return fmt.Errorf("%d packets come to another container than they are for", n)
	}
	return nil
}

// A bridge that has not heard of a container for long sends what is for it to all its ports. The container gets it all the same.
func TestSilentReceiver(t *testing.T) { holds(t, kinds(), silentReceiver) }

func silentReceiver(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	a.run("", "ip", "link", "set", bridge, "type", "bridge", "ageing_time", "100") // hundredths of a second
	strange := a.containers[1].taken("eth0", w.family, a.containers[0].addr)
	s := startStream(b.containers[0], a.containers[0])
	s.awaitSent(8000)
	if err := s.stop().kept(); err != nil {
		return err
	}
	if n := strange.Load(); n > 0 {
		return fmt.Errorf("%d packets come to another container than they are for", n)
	}
	return nil
}

// Where a program of somebody else writes to what the fast path marks packets by, flows stay on the plain path, and the state says why.
func TestForeignProgram(t *testing.T) {
	for name, c := range map[string]struct {
		kinds []config
		hang  func(*host, string)
	}{
		"tcx": {one(), func(h *host, link string) { h.hang(link, ebpf.AttachTCXIngress, tcOK) }},
		"tc":  {kinds(), func(h *host, link string) { h.filter(link, netlink.HANDLE_MIN_INGRESS, tcOK) }},
	} {
		t.Run(name+" on a container", func(t *testing.T) {
			holds(t, c.kinds, func(w *world) error {
				return foreignProgram(w, c.hang, w.hosts[0].containers[0].port)
			})
		})
		t.Run(name+" on the uplink", func(t *testing.T) {
			holds(t, c.kinds, func(w *world) error { return foreignProgram(w, c.hang, uplink) })
		})
	}
}

func foreignProgram(w *world, hang func(*host, string), link string) error {
	a, b := w.hosts[0], w.hosts[1]
	from, to := a.containers[0], b.containers[0]
	if link == uplink { // what it does there concerns what comes in
		from, to = to, from
	}
	hang(a, link)
	if err := w.staysSlow(from, to); err != nil {
		return err
	}
	if !eventually(healTimeout, func() bool { return strings.Contains(a.engine.State().Partly, link) }) {
		return fmt.Errorf("the state does not tell of %s: %s", link, show(a.engine.State()))
	}
	return w.staysSlow(from, to)
}

// staysSlow is an error unless the first host forwards all packets of a stream.
func (w *world) staysSlow(from, to *container, ports ...uint16) error {
	witness := w.hosts[0].witness(udpOfLength(streamLength))
	s := startStream(from, to, ports...)
	s.awaitSent(3000)
	r := s.stop()
	if n := witness.count(w.family); n < r.Sent {
		return fmt.Errorf("%d of %d packets from %s to %s are forwarded as others are, want all", n, r.Sent, s.from, s.to)
	}
	return r.kept()
}

// A container whose link has a queueing discipline keeps to it.
func TestShapedContainer(t *testing.T) {
	holds(t, kinds(), func(w *world) error {
		a, b := w.hosts[0], w.hosts[1]
		port := a.containers[0].port
		first := startStream(b.containers[0], a.containers[0])
		must(w.t, first.awaitFast())
		must(w.t, first.stop().kept())
		a.run("", "tc", "qdisc", "add", "dev", port, "root", "tbf", "rate", "1gbit", "burst", "1mb", "latency", "100ms")
		if !eventually(healTimeout, func() bool { s := a.engine.State(); return s.Ports == 1 && strings.Contains(s.Partly, port) }) {
			return fmt.Errorf("the state does not tell of %s: %s", port, show(a.engine.State()))
		}
		if err := w.staysSlow(b.containers[0], a.containers[0]); err != nil {
			return err
		}
		a.run("", "tc", "qdisc", "del", "dev", port, "root")
		s := startStream(b.containers[0], a.containers[0])
		if err := s.awaitFast(); err != nil {
			return err
		}
		return s.stop().kept()
	})
}

// Connections whose packets helpers of connection tracking read are never fast.
func TestPortsOfHelpers(t *testing.T) {
	holds(t, kinds(), func(w *world) error {
		a, b := w.hosts[0], w.hosts[1]
		for _, ports := range [][]uint16{{69, 0}, {5060, 0}, {0, 69}, {0, 5060}} {
			if err := w.staysSlow(a.containers[0], b.containers[0], ports...); err != nil {
				return err
			}
		}
		conn, err := connect(a.containers[1], b.containers[1], 21, netip.AddrPort{}, 0)
		must(w.t, err)
		must(w.t, transfer(conn.client, conn.server, 16<<20))
		client, server := conn.ends()
		for _, h := range []*host{a, b} {
			if f, ok := h.flow(h == b, unix.IPPROTO_TCP, client, server); ok {
				return fmt.Errorf("a flow is fast on host %d: %s", h.number, show(f))
			}
		}
		return nil
	})
}

// Where connection tracking minds the sequence numbers of TCP, of which it sees few on the fast path, TCP stays on the plain path and lives.
func TestStrictConntrack(t *testing.T) {
	holds(t, with(kinds(), func(c *config) { c.strict = true }), strictConntrack)
}

func strictConntrack(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	for _, h := range []*host{a, b} {
		h.nft(w.family, `table FAMILY strict {
	chain forward { type filter hook forward priority 0; ct state invalid drop
	}
}
`)
		if !eventually(healTimeout, func() bool { return strings.Contains(h.engine.State().Partly, "nf_conntrack_tcp_be_liberal") }) {
			return fmt.Errorf("the state does not tell why TCP is slow: %s", show(h.engine.State()))
		}
	}
	s := startStream(a.containers[0], b.containers[0])
	if err := s.awaitFast(); err != nil {
		return err
	}
	conn, err := connect(a.containers[0], b.containers[0], 0, netip.AddrPort{}, 0)
	must(w.t, err)
	for _, ends := range [][2]*net.TCPConn{{conn.client, conn.server}, {conn.server, conn.client}} {
		if err := transfer(ends[0], ends[1], 64<<20); err != nil {
			return err
		}
	}
	for _, h := range []*host{a, b} {
		flows, err := h.engine.Flows()
		must(w.t, err)
		for _, f := range flows {
			if f.Protocol == unix.IPPROTO_TCP {
				return fmt.Errorf("a flow is fast on host %d: %s", h.number, show(f))
			}
		}
		h.set(liberalSetting, "1")
	}
	if err := s.stop().kept(); err != nil {
		return err
	}
	client, server := conn.ends()
	if !eventually(healTimeout, func() bool {
		must(w.t, transfer(conn.client, conn.server, 1<<20))
		_, out := a.flow(false, unix.IPPROTO_TCP, client, server)
		_, in := b.flow(true, unix.IPPROTO_TCP, client, server)
		return out && in && !strings.Contains(a.engine.State().Partly, "liberal")
	}) {
		return fmt.Errorf("the connection stays slow once it may be fast: %s", show(a.engine.State()))
	}
	return transfer(conn.server, conn.client, 64<<20)
}

// Excluded prefixes are never fast, and no longer from the moment on that they are excluded.
func TestExclude(t *testing.T) {
	holds(t, kinds(), func(w *world) error {
		a, b := w.hosts[0], w.hosts[1]
		for name, excluded := range map[string]netip.Prefix{"destination": ip.Host(b.containers[0].addr), "source": ip.Host(a.containers[0].addr)} {
			witness := a.witness(udpOfLength(streamLength))
			s := startStream(a.containers[0], b.containers[0])
			if err := s.awaitFast(); err != nil {
				return err
			}
			refused := a.engine.State().Refused["excluded"]
			a.exclude = []netip.Prefix{excluded}
			a.converge()
			if !eventually(healTimeout, func() bool {
				_, fast := a.flow(false, unix.IPPROTO_UDP, s.from, s.to)
				return !fast && a.engine.State().Refused["excluded"] > refused
			}) {
				return fmt.Errorf("a flow stays fast whose %s is excluded", name)
			}
			slow, sent := witness.count(w.family), s.sent.Load()
			s.awaitSent(3000)
			must(w.t, s.awaitMore(1))
			sent = s.sent.Load() - sent // before the count, which takes a while on a busy machine
			if slow := witness.count(w.family) - slow; slow < int(sent)-100 {
				return fmt.Errorf("%d of %d packets are slow whose %s is excluded", slow, sent, name)
			}
			other := startStream(a.containers[1], b.containers[1])
			if err := other.awaitFast(); err != nil {
				return err
			}
			a.exclude = nil
			a.converge()
			if err := s.awaitFast(); err != nil {
				return err
			}
			for _, s := range []*stream{s, other} {
				if err := s.stop().kept(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
