//go:build linux

package netnstest

import (
	"testing"

	"golang.org/x/sys/unix"
)

// SendIP sends a whole IP packet, whatever its source, from a namespace. It needs CAP_NET_RAW there.
func SendIP(t testing.TB, do func(func() error) error, packet []byte) {
	t.Helper()
	domain, level, option := unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL
	var to unix.Sockaddr
	if packet[0]>>4 == 4 {
		domain, level, option = unix.AF_INET, unix.IPPROTO_IP, unix.IP_HDRINCL
		to = &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])}
	} else {
		to = &unix.SockaddrInet6{Addr: [16]byte(packet[24:40])}
	}
	if err := do(func() error {
		fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return err
		}
		return unix.Sendto(fd, packet, 0, to)
	}); err != nil {
		t.Fatal(err)
	}
}
