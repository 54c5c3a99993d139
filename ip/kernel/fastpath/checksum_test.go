//go:build linux

package fastpath_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"tulle/ip"
)

// Where no hardware computes checksums or cuts segments, every packet between hosts is right as it is.
func TestChecksums(t *testing.T) { holds(t, kinds(), checksums) }

func checksums(w *world) error {
	a, b := w.hosts[0], w.hosts[1]
	for _, h := range []*host{a, b} {
		h.offloadsOff(uplink, bridge)
		w.underlay.offloadsOff(fmt.Sprint("to-h", h.number))
		for _, c := range h.containers {
			h.offloadsOff(c.port)
			c.offloadsOff("eth0")
		}
		if w.config.backend == "vxlan" {
			h.offloadsOff(h.want.Links[0].Name)
		}
	}
	there, back := startStream(a.containers[0], b.containers[0]), startStream(b.containers[0], a.containers[0])
	for _, s := range []*stream{there, back} {
		must(w.t, s.awaitFast())
	}
	conn, err := connect(a.containers[1], b.containers[1], 0, netip.AddrPort{}, 0)
	must(w.t, err)
	captured := w.underlay.capture("to-h1")
	before := traffic(a, b)
	if err := errors.Join(transfer(conn.client, conn.server, 4<<20), transfer(conn.server, conn.client, 4<<20)); err != nil {
		return err
	}
	there.awaitSent(1000)
	fast := func(t ip.FastTraffic) (fast, slow uint64) { return t.FastPackets, t.SlowPackets }
	if err := before.mostlyFast(fast, true, true); err != nil {
		return err
	}
	frames := captured()
	inner := 0
	for _, frame := range frames {
		n, err := checkFrame(frame)
		if err != nil {
			return fmt.Errorf("%w: %x", err, frame)
		}
		inner += n
	}
	if inner < 4000 {
		return fmt.Errorf("of %d frames, %d hold packets of containers, want thousands", len(frames), inner)
	}
	for _, c := range []*container{a.containers[0], a.containers[1], b.containers[0], b.containers[1]} {
		if errs := c.checksumErrors(); errs != "" {
			return fmt.Errorf("container %s has counted %s", c.addr, errs)
		}
	}
	return errors.Join(there.stop().kept(), back.stop().kept())
}

// offloadsOff switches off what hardware would do (ethtool(8)).
func (n *node) offloadsOff(links ...string) {
	n.t.Helper()
	const setTxChecksum, setTSO, setGSO, setGRO = 0x17, 0x1f, 0x24, 0x2c // ETHTOOL_STXCSUM and so on, in linux/ethtool.h
	must(n.t, n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, link := range links {
			for _, command := range []uint32{setTSO, setGSO, setGRO, setTxChecksum} {
				value := [2]uint32{command, 0}
				request := struct {
					name [unix.IFNAMSIZ]byte
					data unsafe.Pointer
					_    [16]byte
				}{data: unsafe.Pointer(&value)}
				copy(request.name[:], link)
				_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
				if errno != 0 && errno != unix.EOPNOTSUPP {
					return fmt.Errorf("switch off offload %#x of %s: %w", command, link, errno)
				}
			}
		}
		return nil
	}))
}

// capture collects the frames of a link until the function that it returns is called.
func (n *node) capture(link string) func() [][]byte {
	n.t.Helper()
	e := n.ether(link, unix.ETH_P_ALL)
	must(n.t, unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	var frames [][]byte
	var work sync.WaitGroup
	work.Go(func() {
		for buffer := make([]byte, 1<<17); ; {
			k, err := e.file.Read(buffer)
			if err != nil {
				return
			}
			frames = append(frames, append([]byte{}, buffer[:k]...))
		}
	})
	return func() [][]byte {
		e.file.Close()
		work.Wait()
		return frames
	}
}

// checkFrame recomputes all checksums of a frame, and returns how many packets of containers it holds.
func checkFrame(frame []byte) (inner int, err error) {
	const ethernet = 14
	if len(frame) < ethernet {
		return 0, nil
	}
	packet := frame[ethernet:]
	var header, length int
	var protocol byte
	var ends []byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		header, length, protocol, ends = int(packet[0]&0xf)*4, int(binary.BigEndian.Uint16(packet[2:])), packet[9], packet[12:20]
		if sum16(packet[:header]) != 0xffff {
			return 0, errors.New("the IP header has a wrong checksum")
		}
	case 0x86dd:
		header, length, protocol, ends = 40, 40+int(binary.BigEndian.Uint16(packet[4:])), packet[6], packet[8:40]
	default:
		return 0, nil
	}
	if length > len(packet) {
		return 0, fmt.Errorf("an IP packet says that it has %d bytes, and has %d", length, len(packet))
	}
	payload := packet[header:length]
	pseudo := append(append([]byte{}, ends...), 0, protocol, byte(len(payload)>>8), byte(len(payload)))
	right := sum16(append(pseudo, payload...)) == 0xffff
	from, _ := netip.AddrFromSlice(ends[:len(ends)/2])
	if strings.HasPrefix(from.String(), "10.244.") || strings.HasPrefix(from.String(), "fd10:244:") {
		inner++
	}
	switch {
	case protocol == unix.IPPROTO_TCP && !right:
		return 0, errors.New("TCP has a wrong checksum")
	case protocol != unix.IPPROTO_UDP:
		return inner, nil
	case int(binary.BigEndian.Uint16(payload[4:])) != len(payload):
		return 0, errors.New("UDP has another length than IP")
	}
	none := binary.BigEndian.Uint16(payload[6:]) == 0 && len(ends) == 8 // which IPv4 allows
	if !right && !none {
		return 0, errors.New("UDP has a wrong checksum")
	}
	if binary.BigEndian.Uint16(payload[2:]) == 8472 {
		return checkFrame(payload[8+8:])
	}
	return inner, nil
}

// sum16 is the ones' complement sum (RFC 1071).
func sum16(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		sum += uint32(v) << (8 * (1 - i%2))
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// checksumErrors tells of packets that were wrong as they arrived (proc_net(5)).
func (n *node) checksumErrors() (found string) {
	n.t.Helper()
	must(n.t, n.Do(func() error {
		// Of IPv6, a counter a line; of IPv4, names in one line and values in the next.
		six, err := os.ReadFile("/proc/thread-self/net/snmp6")
		if err != nil {
			return err
		}
		found = strings.Join(regexp.MustCompile(`\w*InCsumErrors\s+[1-9]\d*`).FindAllString(string(six), -1), ", ")
		four, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		lines := strings.Split(string(four), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for k, name := range names {
				if name == "InCsumErrors" && values[k] != "0" {
					found += names[0] + values[k]
				}
			}
		}
		return nil
	}))
	return found
}
