//go:build linux

package fastpath_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// repeatTime is when TCP sends again at the earliest what begins or ends a connection (RFC 6298, section 2): what takes less has lost nothing.
const repeatTime = 900 * time.Millisecond

// A connection that is opened again from the same port at once, while the server or the client has kept that of the one before (TIME-WAIT, RFC 9293) and connection
// tracking has not seen all of its end, is as new.
func TestReopenedConnection(t *testing.T) { holds(t, kinds(), reopened) }

func reopened(w *world) error {
	const times, size = 4, 10_000
	a, b := w.hosts[0], w.hosts[1]
	from, to := a.containers[0], b.containers[0]
	for _, h := range w.hosts {
		h.dropInvalid()
	}
	waits := map[string]int{}
	for _, end := range []struct {
		name string
		do   func(c connection) error
	}{
		{"the server", func(c connection) error { return endsAfter(c.server, c.client) }},
		{"the client", func(c connection) error { return endsAfter(c.client, c.server) }},
		{"a reset by the client", func(c connection) error {
			if err := errors.Join(c.client.SetLinger(0), c.client.Close()); err != nil {
				return err
			}
			if _, err := c.server.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				return fmt.Errorf("it ends with %w, want a reset", err)
			}
			return c.server.Close()
		}},
	} {
		for i := range times {
			name := fmt.Sprintf("connection %d of those ended by %s", i+1, end.name)
			began := time.Now()
			c, err := connect(from, to, servicePort, netip.AddrPort{}, clientPort)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for _, ends := range [][2]*net.TCPConn{{c.client, c.server}, {c.server, c.client}} {
				if err := transfer(ends[0], ends[1], size); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			if took := time.Since(began); took > repeatTime {
				return fmt.Errorf("%s: to open and use it takes %v, want %v", name, took, repeatTime)
			}
			if err := c.awaitFast(a, b); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if err := end.do(c); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for _, host := range []*container{from, to} {
				if host.waits(w.family) {
					waits[end.name]++
				}
			}
		}
	}
	if waits["the server"] == 0 || waits["the client"] == 0 {
		return fmt.Errorf("so often a side that ended a connection waited: %v, want each at least once", waits)
	}
	return nil
}

// endsAfter ends a connection at one side, and then at the other: the first then keeps its port.
func endsAfter(first, second *net.TCPConn) error {
	for _, c := range [][2]*net.TCPConn{{first, second}, {second, first}} {
		if err := c[0].CloseWrite(); err != nil {
			return err
		}
		began := time.Now()
		if n, err := c[1].Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			return fmt.Errorf("%d bytes and %w come at its end", n, err)
		}
		if took := time.Since(began); took > repeatTime {
			return fmt.Errorf("its end takes %v, want %v", took, repeatTime)
		}
	}
	return errors.Join(second.Close(), first.Close())
}

// waits reports whether the container keeps the port of a connection that has ended.
func (c *container) waits(f ip.Family) (found bool) {
	c.t.Helper()
	must(c.t, c.Do(func() error {
		sockets, err := netlink.SocketDiagTCP(uint8(ip.Dual[int]{V4: unix.AF_INET, V6: unix.AF_INET6}.Of(f)))
		for _, s := range sockets {
			found = found || s.State == netlink.TCP_TIME_WAIT
		}
		return err
	}))
	return found
}

// awaitFast uses a connection until packets of both directions are fast on both hosts: the client's and the server's.
func (c connection) awaitFast(client, server *host) error {
	from, to := c.ends()
	var failed error
	fast := func() bool {
		for _, ends := range [][2]*net.TCPConn{{c.client, c.server}, {c.server, c.client}} {
			if failed = transfer(ends[0], ends[1], 1000); failed != nil {
				return true
			}
		}
		for _, h := range []*host{client, server} {
			if h.engine == nil {
				continue
			}
			there, hasThere := h.flow(h == server, unix.IPPROTO_TCP, from, to)
			back, hasBack := h.flow(h == client, unix.IPPROTO_TCP, to, from)
			if !hasThere || !hasBack || min(there.Packets, back.Packets) == 0 {
				return false
			}
		}
		return true
	}
	if !eventually(healTimeout, fast) {
		return fmt.Errorf("the packets between %s and %s do not take the fast path both ways", from, to)
	}
	return failed
}

// dropInvalid drops what connection tracking does not understand.
func (h *host) dropInvalid() {
	h.nft(h.world.family, "table FAMILY invalid {\n\tchain forward { type filter hook forward priority 0; ct state invalid drop\n\t}\n}\n")
}

// varied are worlds that differ in all that they can.
func varied() []config {
	return []config{{backend: "vxlan", family: ip.IPv4}, {backend: "host-gw", family: ip.IPv6}}
}

// Where only replies may come from a host, they are fast, and connections from there are none.
func TestOnlyReplies(t *testing.T) { holds(t, varied(), onlyReplies) }

func onlyReplies(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	client, server := a.containers[0], b.containers[0]
	for _, h := range w.hosts {
		h.nft(w.family, fmt.Sprintf("table FAMILY replies {\n\tchain forward { type filter hook forward priority 0; FAMILY saddr %s FAMILY daddr %s ct state != established drop\n\t}\n}\n", server.addr, client.addr))
	}
	conn, err := connect(client, server, 0, netip.AddrPort{}, 0)
	must(w.t, err)
	if err := conn.awaitFast(a, b); err != nil {
		return err
	}
	echo(server)
	if err := talk(dial(client, clientPort, netip.AddrPortFrom(server.addr, servicePort))); err != nil {
		return err
	}
	from, to := netip.AddrPortFrom(client.addr, clientPort), netip.AddrPortFrom(server.addr, servicePort)
	for _, h := range []*host{a, b} {
		if f, ok := h.flow(h == a, unix.IPPROTO_UDP, to, from); !ok || f.Packets < 1000 {
			return fmt.Errorf("replies are not fast on host %d: %s", h.number, show(f))
		}
	}
	s := startUnheard(server, client, listen(server, 0), listen(client, 0))
	ctx, cancel := context.WithTimeout(w.t.Context(), silence)
	defer cancel()
	err = server.Do(func() error {
		opened, err := (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(client.addr, servicePort).String())
		if err == nil {
			err = errors.Join(errors.New("the server opens a connection to the client"), opened.Close())
		} else if isTimeout(err) { // and is not refused
			err = nil
		}
		return err
	})
	s.awaitSent(1000)
	if n := s.stop().Sent - s.report(nil).Lost; n > 0 {
		err = errors.Join(err, fmt.Errorf("%d packets come from the server that are no replies", n))
	}
	return errors.Join(err, conn.awaitFast(a, b))
}

// A connection at rest goes on at once although connection tracking has forgotten it meanwhile.
func TestForgottenConnection(t *testing.T) { holds(t, varied(), forgotten) }

func forgotten(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	for _, h := range w.hosts {
		h.dropInvalid()
	}
	conn, err := connect(a.containers[0], b.containers[0], 0, netip.AddrPort{}, 0)
	must(w.t, err)
	if err := conn.awaitFast(a, b); err != nil {
		return err
	}
	from, to := conn.ends()
	if !eventually(healTimeout, func() bool {
		_, out := a.flow(false, unix.IPPROTO_TCP, from, to)
		_, in := b.flow(true, unix.IPPROTO_TCP, from, to)
		return !out && !in
	}) {
		return errors.New("a connection at rest stays fast")
	}
	for _, h := range w.hosts {
		must(w.t, h.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
	}
	began := time.Now()
	if err := transfer(conn.server, conn.client, 100); err != nil {
		return err
	}
	// What is lost is repeated after 200 ms at the earliest.
	if took := time.Since(began); took > 180*time.Millisecond {
		return fmt.Errorf("after its rest, a packet takes %v", took)
	}
	return conn.awaitFast(a, b)
}

// Connection tracking does not forget a fast flow, of which it sees one packet a second, although nothing answers.
func TestOneWayIsTracked(t *testing.T) { holds(t, varied(), oneWayIsTracked) }

func oneWayIsTracked(w *world) error {
	const timeout = 2 // seconds
	for _, h := range w.hosts {
		h.set("net/netfilter/nf_conntrack_udp_timeout", fmt.Sprint(timeout))
	}
	s := startStream(w.hosts[0].containers[0], w.hosts[1].containers[0])
	must(w.t, s.awaitFast())
	for end := time.Now().Add(2 * timeout * time.Second); time.Now().Before(end); s.awaitSent(100) {
		for _, h := range w.hosts {
			if !h.tracks(s.from, s.to) {
				return fmt.Errorf("host %d has forgotten the packets from %s to %s after %d", h.number, s.from, s.to, s.sent.Load())
			}
		}
	}
	return errors.Join(s.awaitFast(), s.stop().kept())
}

// tracks reports whether connection tracking knows packets of UDP.
func (h *host) tracks(from, to netip.AddrPort) (found bool) {
	h.t.Helper()
	must(h.t, h.Do(func() error {
		family := ip.Dual[int]{V4: unix.AF_INET, V6: unix.AF_INET6}.Of(h.world.family)
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.InetFamily(family))
		for _, f := range flows {
			at := f.Forward
			found = found || at.Protocol == unix.IPPROTO_UDP && at.SrcPort == from.Port() && at.DstPort == to.Port() && at.SrcIP.Equal(from.Addr().AsSlice()) && at.DstIP.Equal(to.Addr().AsSlice())
		}
		return err
	}))
	return found
}
