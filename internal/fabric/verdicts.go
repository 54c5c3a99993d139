package fabric

import (
	"maps"
	"slices"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

// verdicts are the last ones, and what they were about: most passes see the same leases, and judging ten thousand takes as long as reading the kernel.
type verdicts struct {
	network *subnet.Network
	leases  []*subnet.Lease
	self    subnet.Self
	usable  []*subnet.Lease
	refused []subnet.Problem

	over []subnet.Problem // the leases for which newcomers leave this host out
}

// judge is subnet.Judge. What it returns must not be changed.
func (v *verdicts) judge(n *subnet.Network, leases []*subnet.Lease, self subnet.Self) ([]*subnet.Lease, []subnet.Problem) {
	same := v.network == n && v.self.Node == self.Node && v.self.Instance == self.Instance && v.self.Subnets == self.Subnets && slices.Equal(v.self.Underlay, self.Underlay)
	if !same || !slices.Equal(v.leases, leases) {
		*v = verdicts{network: n, leases: leases, self: self}
		v.usable, v.refused = subnet.Judge(*n, leases, self)
		v.over = subnet.Outranked(*n, leases, self.Subnets)
	}
	return v.usable, v.refused
}

// advertised is what the backend last had this host announce, and from what: most passes see the same leases.
type advertised struct {
	leases  []*subnet.Lease
	self    *subnet.Lease
	stored  *subnet.Network
	uplink  ip.Uplink
	links   []ip.Link
	lacks   map[string]bool
	earlier subnet.Attrs
	attrs   subnet.Attrs
	err     error
}

// advertise is the backend's Advertise.
func (ad *advertised) advertise(b backend.Backend, host backend.Host, earlier subnet.Attrs) (subnet.Attrs, error) {
	same := ad.leases != nil && ad.self == host.Self && ad.stored == host.Stored && ad.uplink == host.Uplink && slices.Equal(ad.links, host.Links) && maps.Equal(ad.lacks, host.Lacks) && ad.earlier.Equal(earlier)
	if !same || !slices.Equal(ad.leases, host.Leases) {
		*ad = advertised{leases: host.Leases, self: host.Self, stored: host.Stored, uplink: host.Uplink, links: host.Links, lacks: host.Lacks, earlier: earlier}
		ad.attrs, ad.err = b.Advertise(host, earlier)
	}
	return ad.attrs, ad.err
}
