// Package hostgw carries traffic between hosts unencapsulated, by plain routes over an underlay that all hosts share.
package hostgw

import (
	"fmt"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

// Name is the backend's name in the network configuration and in leases.
const Name = "host-gw"

// HostGW is the backend.
type HostGW struct{ families []ip.Family }

// New makes the backend; it has no options.
func New(n subnet.Network) (backend.Backend, []string, error) {
	warnings, err := backend.DecodeOptions(n.Backend, &struct{}{})
	if err != nil {
		return nil, nil, err
	}
	return &HostGW{families: n.Families()}, warnings, nil
}

// Scope owns no link and asks how every peer is reached.
func (h *HostGW) Scope(leases []*subnet.Lease) ip.Scope {
	var s ip.Scope
	for _, f := range h.families {
		s.Paths = append(s.Paths, backend.Publics(leases, f)...)
	}
	return s
}

// MTU is the uplink's: nothing is added to a packet.
func (h *HostGW) MTU(uplink ip.Uplink) (int, error) { return uplink.MTU, nil }

// Advertise publishes the uplink's addresses. An address of a NAT cannot serve as a gateway and is refused.
func (h *HostGW) Advertise(host backend.Host, _ subnet.Attrs) (subnet.Attrs, error) {
	up := host.Uplink
	for _, f := range h.families {
		if up.Public.Of(f) != up.Addr.Of(f) {
			return subnet.Attrs{}, fmt.Errorf("public address %s is not on %s (%s): host-gw routes go to the interface itself; drop the flag or use the vxlan backend",
				up.Public.Of(f), up.Link, up.Addr.Of(f))
		}
	}
	return subnet.Attrs{Public: up.Public, BackendType: Name}, nil
}

// Plan wants one route per peer, through the peer.
func (h *HostGW) Plan(host backend.Host, _ subnet.Lease, peers []*subnet.Lease) (ip.State, []subnet.Problem) {
	var s ip.State
	var problems []subnet.Problem
	for _, f := range h.families {
		for _, peer := range peers {
			if !peer.Subnets.Of(f).IsValid() {
				continue
			}
			route, err := h.route(host, *peer, f)
			if err != nil {
				problems = append(problems, subnet.Problem{Key: subnet.KeyOf(peer.Subnets), Reason: err.Error()})
				continue
			}
			s.Routes = append(s.Routes, route)
		}
	}
	return s, problems
}

func (h *HostGW) route(host backend.Host, peer subnet.Lease, f ip.Family) (ip.Route, error) {
	public, err := backend.Reach(host, peer, f, Name)
	if err != nil {
		return ip.Route{}, err
	}
	route, direct := host.DirectRoute(peer.Subnets.Of(f), public)
	switch path, ok := host.Paths[public]; {
	case !ok:
		return ip.Route{}, fmt.Errorf("this host has no route to its public address %s", public)
	case path.NoARP:
		return ip.Route{}, fmt.Errorf("its public address %s is reached over %s, which resolves no addresses, as a VPN: host-gw needs all hosts on one L2; use vxlan, or name another interface with --iface",
			public, path.Link)
	case !direct:
		return ip.Route{}, fmt.Errorf("its public address %s lies behind the gateway %s: host-gw needs all hosts on one L2; use vxlan with DirectRouting", public, path.Gateway)
	}
	return route, nil
}
