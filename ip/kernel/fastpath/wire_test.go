//go:build linux

package fastpath_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

// forgedLength is the payload of packets that are not the stream's, in bytes.
const forgedLength = 40

// forgedNumber is how many of them are sent.
const forgedNumber = 200

// forgedPacket is a UDP packet of a stream's flow that somebody else makes.
func (s *stream) forgedPacket() []byte {
	return netnstest.UDP(s.from, s.to, make([]byte, forgedLength))
}

// tunnel is what a packet between hosts is wrapped in, where it is.
type tunnel struct {
	from, to   netip.Addr // hosts
	vni        uint32
	src, dst   ip.MAC // of the inner frame
	sourcePort uint16
}

// tunnel is that of packets between two hosts.
func (h *host) tunnel(to *host) tunnel {
	return tunnel{from: h.addr, to: to.addr, vni: 1, src: h.mac, dst: to.mac, sourcePort: 50000}
}

// outer is a packet between hosts.
func (w *world) outer(t tunnel, packet []byte) []byte {
	if w.config.backend != "vxlan" {
		return packet
	}
	frame := netnstest.VXLAN(t.vni, netnstest.Frame(t.src[:], t.dst[:], packet))
	return netnstest.UDP(netip.AddrPortFrom(t.from, t.sourcePort), netip.AddrPortFrom(t.to, 8472), frame)
}

// between sends forged packets, each after a packet of the stream has arrived that was sent since the last.
func (s *stream) between(n int, send func()) {
	s.t.Helper()
	for range n {
		from := s.sent.Load() + 1 // which may be on its way already
		if !eventually(healTimeout, func() bool { return s.highest.Load() > from }) {
			s.t.Fatalf("no packet from %s to %s arrives any more", s.from, s.to)
		}
		send()
	}
}

// ether is a socket for whole frames of a link.
type ether struct {
	*node
	fd   int
	file *os.File
}

// ether opens one. Protocol 0 receives nothing.
func (n *node) ether(link string, protocol uint16) *ether {
	n.t.Helper()
	e := &ether{node: n}
	at := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
	must(n.t, n.Do(func() (err error) {
		if e.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(at)); err != nil {
			return err
		}
		e.file = os.NewFile(uintptr(e.fd), link)
		return unix.Bind(e.fd, &unix.SockaddrLinklayer{Protocol: at, Ifindex: n.link(link).Attrs().Index})
	}))
	n.t.Cleanup(func() { e.file.Close() })
	return e
}

func (e *ether) send(dst, src net.HardwareAddr, packet []byte) {
	e.t.Helper()
	_, err := e.file.Write(netnstest.Frame(src, dst, packet))
	must(e.t, err)
}

// taken counts the packets for an address that come to a link as for this node, whether it has the address or not. What a bridge sends to all its
// ports, since it does not know the MAC, is not among them.
func (n *node) taken(link string, f ip.Family, dst netip.Addr) *atomic.Int64 {
	n.t.Helper()
	e, count := n.ether(link, unix.ETH_P_ALL), &atomic.Int64{}
	raw, err := e.file.SyscallConn()
	must(n.t, err)
	offset := 14 + ip.Dual[int]{V4: 16, V6: 24}.Of(f)
	etherType, want := ip.EtherType(f), dst.AsSlice()
	go func() {
		frame := make([]byte, 2048)
		_ = raw.Read(func(fd uintptr) (done bool) { // until it is closed
			for {
				k, from, err := unix.Recvfrom(int(fd), frame, 0)
				if err != nil {
					return err != unix.EAGAIN && err != unix.EINTR
				}
				at, ok := from.(*unix.SockaddrLinklayer)
				if ok && at.Pkttype == unix.PACKET_HOST && k >= offset+len(want) && binary.BigEndian.Uint16(frame[12:]) == etherType && string(frame[offset:offset+len(want)]) == string(want) {
					count.Add(1)
				}
			}
		})
	}()
	return count
}
