//go:build linux

package lab_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"tulle/internal/lab"
	"tulle/internal/netns/netnstest"
	"tulle/ip"
)

const (
	etherLen  = 14
	vxlanLen  = 8
	vxlanPort = 8472
	// longest is a frame as the lab's underlay carries it, in bytes.
	longest = etherLen + 1500
)

// offloadsOff has the kernel finish checksums and cut segments before a link gets the packets, as for a network card that can do neither.
func offloadsOff(t *testing.T, do func(func() error) error, link string) {
	t.Helper()
	if err := do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, command := range []uint32{unix.ETHTOOL_SGRO, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_STXCSUM, unix.ETHTOOL_SRXCSUM, unix.ETHTOOL_SSG} {
			value := struct{ command, on uint32 }{command: command} // linux/ethtool.h, struct ethtool_value
			request := struct {                                     // netdevice(7), struct ifreq
				name [unix.IFNAMSIZ]byte
				data uintptr
				_    [16]byte
			}{data: uintptr(unsafe.Pointer(&value))}
			copy(request.name[:], link)
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
			runtime.KeepAlive(&value)
			if errno != 0 {
				return fmt.Errorf("ethtool command %#x: %w", command, errno)
			}
		}
		return nil
	}); err != nil {
		t.Fatalf("switch off offloads of %s: %v", link, err)
	}
}

// capture looks at the frames of containers that come and go by a link.
type capture struct {
	network ip.Dual[netip.Prefix] // of the containers

	mu   sync.Mutex
	last time.Time      // that one was looked at
	good map[string]int // packets whose checksums all recompute, by what they are
	bad  []string
}

// startCapture looks at the uplink of a host until the end of the test.
func startCapture(t *testing.T, l *lab.Lab, host *lab.Host) *capture {
	t.Helper()
	c := &capture{network: l.Config.Network, good: map[string]int{}}
	var file *os.File
	if err := host.Do(func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), "capture")
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 256<<20) // without, some frames are not looked at
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: link.Index})
	}); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for frame := make([]byte, 1<<17); ; {
			n, err := file.Read(frame)
			if err != nil {
				return
			}
			c.look(frame[:n])
		}
	}()
	t.Cleanup(func() { file.Close(); <-read })
	return c
}

// result is what was seen, once no more comes: looking takes longer than sending.
func (c *capture) result() (good map[string]int, bad []string) {
	const quiet, most = 300 * time.Millisecond, 20 * time.Second
	eventually(most, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return time.Since(c.last) > quiet
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.good), c.bad
}

func (c *capture) look(frame []byte) {
	what, err := c.check(frame)
	if what == "" {
		return
	}
	if err == nil && len(frame) > longest {
		err = fmt.Errorf("%d bytes are more than the link carries", len(frame))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = time.Now()
	if err == nil {
		c.good[what]++
	} else if len(c.bad) < 10 {
		c.bad = append(c.bad, fmt.Sprintf("%s: %v: %x", what, err, frame[:min(len(frame), 160)]))
	}
}

// check recomputes the checksums of a frame between containers, in a tunnel or not. Frames of others are nothing.
func (c *capture) check(frame []byte) (what string, err error) {
	packet, f, ok := packetIn(frame)
	if !ok {
		return "", nil
	}
	protocol, segment, err := checkIP(packet, f)
	if protocol == unix.IPPROTO_UDP && len(segment) > 8+vxlanLen+etherLen && binary.BigEndian.Uint16(segment[2:]) == vxlanPort {
		what = "vxlan over " + f.String()
		if err != nil {
			return what, fmt.Errorf("outer: %w", err)
		}
		inner, g, ok := packetIn(segment[8+vxlanLen:])
		if !ok {
			return "", nil // of the hosts' own
		}
		name, err := c.checkInner(inner, g)
		if err != nil {
			return what, fmt.Errorf("inner: %w", err)
		}
		if name == "" {
			return "", nil
		}
		return what + ", " + name, nil
	}
	return c.checkInner(packet, f)
}

func (c *capture) checkInner(packet []byte, f ip.Family) (what string, err error) {
	at := ip.Dual[int]{V4: 12, V6: 8}.Of(f)
	size := f.Bits() / 8
	for _, b := range [][]byte{packet[at : at+size], packet[at+size : at+2*size]} {
		if addr, ok := netip.AddrFromSlice(b); !ok || !c.network.Of(f).Contains(addr) {
			return "", nil
		}
	}
	protocol, _, err := checkIP(packet, f)
	name, known := map[int]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[protocol]
	if !known {
		return "", nil
	}
	return f.String() + " " + name, err
}

func packetIn(frame []byte) (packet []byte, f ip.Family, ok bool) {
	if len(frame) < etherLen {
		return nil, f, false
	}
	packet = frame[etherLen:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		return packet, ip.IPv4, len(packet) >= 20
	case unix.ETH_P_IPV6:
		return packet, ip.IPv6, len(packet) >= 40
	}
	return nil, f, false
}

// checkIP recomputes the checksum of an IPv4 header, and that of TCP or UDP.
func checkIP(packet []byte, f ip.Family) (protocol int, segment []byte, err error) {
	var pseudo []byte
	if f == ip.IPv4 {
		head, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
		if head < 20 || total < head || total > len(packet) {
			return 0, nil, fmt.Errorf("lengths %d and %d in %d bytes", head, total, len(packet))
		}
		if sum := sumOf(packet[:head]); sum != 0xffff {
			return 0, nil, fmt.Errorf("IPv4 header sums up to %#x", sum)
		}
		protocol, segment, pseudo = int(packet[9]), packet[head:total], packet[12:20]
	} else {
		total := 40 + int(binary.BigEndian.Uint16(packet[4:]))
		if total > len(packet) {
			return 0, nil, fmt.Errorf("length %d in %d bytes", total, len(packet))
		}
		protocol, segment, pseudo = int(packet[6]), packet[40:total], packet[8:40]
	}
	switch protocol {
	case unix.IPPROTO_UDP:
		if len(segment) < 8 || int(binary.BigEndian.Uint16(segment[4:])) != len(segment) {
			return protocol, segment, errors.New("length of UDP")
		}
		if binary.BigEndian.Uint16(segment[6:]) == 0 {
			if f == ip.IPv6 {
				return protocol, segment, errors.New("no UDP checksum over IPv6")
			}
			return protocol, segment, nil // RFC 768: there is none
		}
	case unix.IPPROTO_TCP:
	default:
		return protocol, segment, nil
	}
	whole := binary.BigEndian.AppendUint32(append([]byte{}, pseudo...), uint32(len(segment)))
	whole = append(binary.BigEndian.AppendUint32(whole, uint32(protocol)), segment...)
	if sum := sumOf(whole); sum != 0xffff {
		return protocol, segment, fmt.Errorf("protocol %d sums up to %#x", protocol, sum)
	}
	return protocol, segment, nil
}

// sumOf is the sum that a right checksum makes 0xffff (RFC 1071).
func sumOf(b []byte) uint32 {
	var sum uint64
	for ; len(b) > 3; b = b[4:] {
		sum += uint64(binary.BigEndian.Uint32(b))
	}
	var rest [4]byte
	copy(rest[:], b)
	sum += uint64(binary.BigEndian.Uint32(rest[:]))
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint32(sum)
}

// echoes sends datagrams of many lengths there and back, and compares what comes.
func echoes(t *testing.T, from, to *lab.Container, f ip.Family) {
	t.Helper()
	here, there := listen(t, from.Do, from.Addr.Of(f)), listen(t, to.Do, to.Addr.Of(f))
	buffer := make([]byte, 2048)
	for n := 0; n <= 1300; n++ {
		if n > 100 {
			n += 6
		}
		sent := bytes.Repeat([]byte{byte(n), byte(n >> 8), 0xa5}, n/3+1)[:n]
		for _, way := range []struct{ from, to *net.UDPConn }{{here, there}, {there, here}} {
			if _, err := way.from.WriteToUDPAddrPort(sent, addrOf(way.to)); err != nil {
				t.Fatal(err)
			}
			if err := way.to.SetReadDeadline(time.Now().Add(flowTimeout)); err != nil {
				t.Fatal(err)
			}
			if got, err := way.to.Read(buffer); err != nil || !bytes.Equal(buffer[:got], sent) {
				t.Fatalf("%s datagram of %d bytes: %d arrive: %v", f, n, got, err)
			}
		}
	}
}

// A capture finds each byte that is not as it was sent, of what checksums cover.
func TestChecksumsTell(t *testing.T) {
	c := &capture{network: ip.Dual[netip.Prefix]{V4: netip.MustParsePrefix("10.244.0.0/16"), V6: netip.MustParsePrefix("fd10:244::/48")}}
	mac := []byte{2, 0, 0, 0, 0, 1}
	for _, ends := range [][4]string{
		{"10.244.1.2:1000", "10.244.2.2:2000", "172.30.1.1:1000", "172.30.1.2:8472"},
		{"[fd10:244:0:1::2]:1000", "[fd10:244:0:2::2]:2000", "[fd30::1]:1000", "[fd30::2]:8472"},
	} {
		var at [4]netip.AddrPort
		for i, text := range ends {
			at[i] = netip.MustParseAddrPort(text)
		}
		f := ip.FamilyOf(at[0].Addr())
		plain := netnstest.Frame(mac, mac, netnstest.UDP(at[0], at[1], []byte("odd")))
		tunnelled := netnstest.Frame(mac, mac, netnstest.UDP(at[2], at[3], netnstest.VXLAN(1, plain)))
		for _, frame := range [][]byte{plain, tunnelled} {
			if what, err := c.check(frame); err != nil || !strings.HasSuffix(what, f.String()+" udp") {
				t.Errorf("%x: %q, %v", frame, what, err)
			}
			first := len(frame) - len(plain) + etherLen + ip.Dual[int]{V4: 0, V6: 8}.Of(f) // IPv6 has no checksum of all of its header
			for i := first; i < len(frame); i++ {
				frame[i] ^= 0x55
				if what, err := c.check(frame); err == nil && what != "" {
					t.Errorf("%s: byte %d of %x is wrong, and not found", what, i, frame)
				}
				frame[i] ^= 0x55
			}
		}
	}
}

// What the fast path sends and changes has right checksums where nobody else puts them in: as the kernel's, on both ends, of outer and inner headers.
func TestChecksums(t *testing.T) {
	for _, backend := range fastBackends() {
		for _, containers := range []bool{false, true} {
			name := backend.name + "/uplinks"
			if containers {
				name = backend.name + "/containers"
			}
			t.Run(name, func(t *testing.T) {
				l := backend.up(t, nil, 1)
				var captures []*capture
				for _, host := range l.Hosts {
					offloadsOff(t, host.Do, "eth0")
					if containers {
						offloadsOff(t, host.Containers[0].Do, "eth0")
						offloadsOff(t, host.Do, "vethc1")
					}
					captures = append(captures, startCapture(t, l, host))
				}
				one := l.Hosts[0].Containers[0]
				for _, peer := range l.Hosts[1:] {
					for _, f := range l.Config.Families {
						echoes(t, one, peer.Containers[0], f)
						requireFastTransfer(t, one, peer.Containers[0], f, transferSmall)
						requireFastTransfer(t, peer.Containers[0], one, f, transferSmall)
					}
				}
				for i, c := range captures {
					good, bad := c.result()
					t.Logf("%s: %v", l.Hosts[i], good)
					for _, b := range bad {
						t.Errorf("%s: %s", l.Hosts[i], b)
					}
					for _, f := range l.Config.Families {
						tcp, udp := 0, 0
						for what, n := range good {
							if strings.HasSuffix(what, f.String()+" tcp") {
								tcp += n
							} else if strings.HasSuffix(what, f.String()+" udp") {
								udp += n
							}
						}
						if tcp < 2000 || udp < 500 {
							t.Errorf("%s: of %s %d packets of TCP and %d of UDP are right, want thousands and hundreds", l.Hosts[i], f, tcp, udp)
						}
					}
				}
			})
		}
	}
}
