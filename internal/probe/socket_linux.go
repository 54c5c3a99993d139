package probe

import (
	"golang.org/x/sys/unix"

	"tulle/ip"
)

// forbidFragments has the socket send with DF what the link takes, whatever the kernel has learnt of the path or a route says (RFC 8899): else nobody would
// find out that the path has become wider.
func forbidFragments(fd int, f ip.Family) error {
	if f == ip.IPv4 {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
}
