//go:build linux

package lab_test

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tulle/internal/lab"
	"tulle/ip"
)

// A container that sends to a subnet that nobody leases is told so at once, and nothing leaves the host.
func TestUnleasedSubnetIsUnreachable(t *testing.T) {
	l := upLab(t, lab.Config{Hosts: 2, Containers: 1})
	requireMatrix(t, l)
	host := l.Hosts[0]
	run(t, host, `
		table inet watch {
			chain out {
				type filter hook postrouting priority 300
				oifname eth0 ip daddr 10.244.255.9 drop
				oifname eth0 ip6 daddr fd10:244:0:ffff::9 drop
			}
		}`, "nft", "-f", "-")
	for _, f := range ip.Families() {
		addr := ip.Dual[netip.Addr]{V4: netip.MustParseAddr("10.244.255.9"), V6: netip.MustParseAddr("fd10:244:0:ffff::9")}.Of(f)
		var err error
		if !eventually(healTimeout, func() bool {
			err = host.Containers[0].Do(func() error { return unreachable(netip.AddrPortFrom(addr, 9)) })
			return errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
		}) {
			t.Errorf("%s: %v, want that it is unreachable", addr, err)
		}
	}
	requireMatrix(t, l)
}

// unreachable sends a datagram, and waits for the error that comes back.
func unreachable(to netip.AddrPort) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	level, option := unix.IPPROTO_IP, unix.IP_RECVERR
	if to.Addr().Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	var optionErr error
	if err := raw.Control(func(fd uintptr) { optionErr = unix.SetsockoptInt(int(fd), level, option, 1) }); err != nil || optionErr != nil {
		return errors.Join(err, optionErr)
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}
