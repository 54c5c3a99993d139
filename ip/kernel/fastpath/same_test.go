//go:build linux

package fastpath_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// What is not usual about packets of a fast flow becomes of them as without the fast path.
func TestNotAccelerated(t *testing.T) {
	for _, c := range kinds() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			c.containerMTU = (&world{config: c, t: t, network: networkOf(t, c)}).mtu() + 50
			plain := c
			plain.engines = -1
			want, got := newWorld(t, plain).oddities(), newWorld(t, c).oddities()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("without the fast path (-) and with it (+):\n%s", diff)
			}
		})
	}
}

// oddities sends unusual packets, and returns what becomes of them.
func (w *world) oddities() map[string]string {
	t, from, to := w.t, w.hosts[0].containers[0], w.hosts[1].containers[0]
	results := map[string]string{}
	s := startStream(from, to)
	must(t, s.awaitFast())
	// Packets of a row are told by their length.
	send := func(name string, length, number int, do func(payload []byte) error) {
		t.Helper()
		arrived := func() int { return s.ofLength(length) }
		if err := do(make([]byte, length)); err != nil {
			results[name] = err.Error()
			return
		}
		eventually(drainTime, func() bool { return arrived() >= number })
		must(t, s.awaitMore(20)) // what comes twice, or should not
		results[name] = fmt.Sprintf("%d of %d%s", arrived(), number, s.headerOf(length))
	}
	plainly := func(payload []byte) error {
		_, err := s.outgoing.WriteToUDPAddrPort(payload, s.to)
		return err
	}
	device := w.containerMTU - 50
	headers := ip.Dual[int]{V4: 28, V6: 48}.Of(w.family)
	for name, length := range map[string]int{"empty": 0, "of two bytes": 2, "usual": 200, "largest of the device": device - headers, "two fragments": w.containerMTU, "many fragments": 65000} {
		send(name, length, 1, plainly)
	}
	results["larger than the device"] = w.larger(s, w.containerMTU-headers)
	for i, ttl := range []int{1, 2, 3, 64, 255} {
		send(fmt.Sprint("ttl ", ttl), 300+i, 1, s.withHeader(unix.IP_TTL, unix.IPV6_HOPLIMIT, ttl))
	}
	for i, tos := range []int{0, 1, 2, 3, 0xb8, 0xbb} {
		send(fmt.Sprintf("tos %#x", tos), 320+i, 1, s.withHeader(unix.IP_TOS, unix.IPV6_TCLASS, tos))
	}
	send("segments", 200, 11, func(payload []byte) error {
		control := controlMessage(unix.IPPROTO_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, uint16(len(payload))))
		_, _, err := s.outgoing.WriteMsgUDPAddrPort(make([]byte, 10*len(payload)), control, s.to)
		return err
	})
	raw := func(parts func(packet []byte) [][]byte) func([]byte) error {
		return func(payload []byte) error {
			for _, part := range parts(netnstest.UDP(s.from, s.to, payload)) {
				netnstest.SendIP(t, from.Do, part)
			}
			return nil
		}
	}
	send("options", 340, 1, raw(func(packet []byte) [][]byte { return [][]byte{withOptions(packet)} }))
	send("fragments", 341, 1, raw(func(packet []byte) [][]byte { return netnstest.Fragments(packet, 64, 80) }))
	send("usual, raw", 342, 1, raw(func(packet []byte) [][]byte { return [][]byte{packet} }))
	results["the stream"] = fmt.Sprint(s.stop().kept())
	results["ICMP"] = fmt.Sprint(ping(from, to))
	results["neighbours"] = fmt.Sprint(greet(listen(from, 0), listen(w.hosts[0].containers[1], 0)))
	results["connections"] = fmt.Sprint(w.connections())
	return results
}

// headerOf is what the IP headers of packets of a length said.
func (s *stream) headerOf(length int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.arrivals {
		if a.length == length {
			return "," + a.header
		}
	}
	return ""
}

// larger sends packets that the container's link takes, and the tunnel or the uplink does not, until the sender knows.
func (w *world) larger(s *stream, length int) string {
	tries, err := 0, error(nil)
	arrives := eventually(healTimeout, func() bool {
		if s.ofLength(length) > 0 {
			return true
		}
		before := s.received.Load()
		if tries++; tries > 1 {
			err = nil
		}
		_, err = s.outgoing.WriteToUDPAddrPort(make([]byte, length), s.to)
		eventually(drainTime, func() bool { return s.received.Load() > before+20 || s.ofLength(length) > 0 })
		return false
	})
	return fmt.Sprintf("arrives: %t, at once: %t, error: %v", arrives, tries == 1, err)
}

// withHeader sends a packet with a field of its header set.
func (s *stream) withHeader(v4, v6, value int) func([]byte) error {
	level, typ := unix.IPPROTO_IP, v4
	if s.to.Addr().Is6() {
		level, typ = unix.IPPROTO_IPV6, v6
	}
	return func(payload []byte) error {
		_, _, err := s.outgoing.WriteMsgUDPAddrPort(payload, controlMessage(level, typ, binary.NativeEndian.AppendUint32(nil, uint32(value))), s.to)
		return err
	}
}

// controlMessage is one for sendmsg(2).
func controlMessage(level, typ int, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(data))))
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(typ))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

// withOptions adds options without a meaning to a packet.
func withOptions(packet []byte) []byte {
	if packet[0]>>4 == 6 {
		return netnstest.WithOptions(packet, 1)
	}
	const nop = 1 // RFC 791
	out := append(append(append([]byte{}, packet[:20]...), nop, nop, nop, nop), packet[20:]...)
	out[0]++
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	return out // the kernel computes the checksum (raw(7))
}

// ping sends an ICMP echo request and awaits the reply.
func ping(from, to *container) error {
	network, protocol, request, reply := "ip4:icmp", unix.IPPROTO_ICMP, icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply)
	if to.addr.Is6() {
		network, protocol, request, reply = "ip6:ipv6-icmp", unix.IPPROTO_ICMPV6, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	var conn *icmp.PacketConn
	if err := from.Do(func() (err error) {
		conn, err = icmp.ListenPacket(network, from.addr.String())
		return err
	}); err != nil {
		return err
	}
	defer conn.Close()
	message := icmp.Message{Type: request, Body: &icmp.Echo{ID: 7, Seq: 1, Data: []byte("hello")}}
	packet, err := message.Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := conn.WriteTo(packet, &net.IPAddr{IP: to.addr.AsSlice()}); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(healTimeout)); err != nil {
		return err
	}
	for answer := make([]byte, 1500); ; {
		n, _, err := conn.ReadFrom(answer)
		if err != nil {
			return err
		}
		if got, err := icmp.ParseMessage(protocol, answer[:n]); err == nil && got.Type == reply {
			return nil
		}
	}
}

// connections opens connections, uses them and ends them, by FIN and RST.
func (w *world) connections() error {
	from, to := w.hosts[0].containers[0], w.hosts[1].containers[0]
	for i := range 20 {
		c, err := connect(from, to, 0, netip.AddrPort{}, 0)
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		if err := transfer(c.client, c.server, 100_000); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		if err := transfer(c.server, c.client, 100_000); err != nil {
			return fmt.Errorf("connection %d back: %w", i, err)
		}
		end, want := c.client.CloseWrite, io.EOF
		if i%2 == 1 {
			must(w.t, c.client.SetLinger(0))
			end, want = c.client.Close, unix.ECONNRESET
		}
		must(w.t, end())
		if _, err := c.server.Read(make([]byte, 1)); !errors.Is(err, want) {
			return fmt.Errorf("connection %d ends with %v, want %w", i, err, want)
		}
	}
	return nil
}
