package backend

import (
	"fmt"
	"net/netip"

	"tulle/ip"
	"tulle/subnet"
)

// LeastMTU is the smallest MTU that a family may have, in bytes (RFC 791, RFC 8200).
func LeastMTU(f ip.Family) int {
	if f == ip.IPv4 {
		return 576
	}
	return 1280
}

// Publics lists the underlay addresses of family f that the leases announce.
func Publics(leases []*subnet.Lease, f ip.Family) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(leases))
	for _, l := range leases {
		if a := l.Attrs.Public.Of(f); a.IsValid() {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// Reach returns the underlay address at which a peer of the same backend is reached in family f.
func Reach(host Host, peer subnet.Lease, f ip.Family, backend string) (netip.Addr, error) {
	public := peer.Attrs.Public.Of(f)
	switch {
	case peer.Attrs.BackendType != backend:
		return netip.Addr{}, fmt.Errorf("its backend is %.64q, this network's is %q", peer.Attrs.BackendType, backend)
	case !public.IsValid() || public.IsUnspecified():
		return netip.Addr{}, fmt.Errorf("it announces no public %s address", f)
	case host.Own[public] || public == host.Uplink.Public.Of(f) || public == host.Uplink.Addr.Of(f):
		return netip.Addr{}, fmt.Errorf("its public address %s is this host's own: end it with tulle leases release '%s', or choose that host's own with --public-ip or --iface",
			public, subnet.KeyOf(peer.Subnets))
	case !ip.BetweenHosts(public) || host.Shared[public]:
		return netip.Addr{}, fmt.Errorf("its public address %s is not the address of a host", public)
	}
	return public, nil
}
