//go:build linux

package traffic

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// What is measured is the kernel's path, so sockets block and each has a thread of its own: the runtime's poller would add system calls and switches
// of goroutines to every packet, on every path alike, and so make all look the same.

// receiveBuffer takes what arrives while the receiver waits for its turn on a core, in bytes.
const receiveBuffer = 8 << 20

func newSocket(to netip.AddrPort, kind int) (fd int, err error) {
	domain := unix.AF_INET
	if to.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	if kind == unix.SOCK_STREAM {
		err = setUpTCP(fd)
	} else if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		// More than the system's limit needs CAP_NET_ADMIN. What is lost for want of room is counted as lost.
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func setUpTCP(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("set TCP_NODELAY: %w", err)
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, Congestion); err != nil {
		return fmt.Errorf("set congestion control %s (sysctl net.ipv4.tcp_allowed_congestion_control lists those for users other than root): %w", Congestion, err)
	}
	// A kernel may take the option and use another all the same, such as one that is set by route.
	if is, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err != nil || is != Congestion {
		return errors.Join(fmt.Errorf("congestion control is %q, not %q", is, Congestion), err)
	}
	return nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func addrPort(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr), uint16(s.Port))
	}
	return netip.AddrPort{}
}

// read waits for something to read; 0 is the end.
func read(fd int, buffer []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buffer)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func write(fd int, data []byte) (int, error) {
	for {
		n, err := unix.Write(fd, data)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
