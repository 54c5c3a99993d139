// Package ipip carries IPv4 traffic between hosts in IPv4 packets (RFC 2003), wire-compatible with flannel.
package ipip

import (
	"errors"
	"fmt"
	"net/netip"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

// Name is the backend's name in the network configuration and in leases.
const Name = "ipip"

// device is flannel's, so that firewalls and runbooks hold.
const device = "flannel.ipip"

// overhead is what IPIP adds to a packet in bytes: the outer IP header.
const overhead = 20

// options is the Backend object of the network configuration.
type options struct {
	DirectRouting bool
}

// IPIP is the backend.
type IPIP struct {
	opts options
	pool subnet.Pool
}

// New reads the options of the network, which has IPv4 only.
func New(n subnet.Network) (backend.Backend, []string, error) {
	var opts options
	warnings, err := backend.DecodeOptions(n.Backend, &opts)
	if err != nil {
		return nil, nil, err
	}
	if n.Pools.V6.Network.IsValid() || !n.Pools.V4.Network.IsValid() {
		return nil, nil, errors.New("Backend.Type ipip carries IPv4 only: leave IPv6 out of the network, or choose vxlan or host-gw")
	}
	return &IPIP{opts: opts, pool: n.Pools.V4}, warnings, nil
}

// Scope names the device, and the peers' addresses if direct routes depend on how they are reached.
func (i *IPIP) Scope(leases []*subnet.Lease) ip.Scope {
	s := ip.Scope{Links: []string{device}, Kinds: []string{ip.IPIP{}.Type()}}
	if i.opts.DirectRouting {
		s.Paths = backend.Publics(leases, ip.IPv4)
	}
	return s
}

// MTU is the device's.
func (i *IPIP) MTU(uplink ip.Uplink) (int, error) {
	if mtu, least := uplink.MTU-overhead, backend.LeastMTU(ip.IPv4); mtu < least {
		return 0, fmt.Errorf("an underlay MTU of %d leaves %d bytes for packets, which need %d: raise the MTU of %s", uplink.MTU, mtu, least, uplink.Narrowest())
	}
	return uplink.MTU - overhead, nil
}

// Advertise publishes the address to send to, which is all that peers need.
func (i *IPIP) Advertise(host backend.Host, _ subnet.Attrs) (subnet.Attrs, error) {
	if err := host.Makes(ip.IPIP{}.Type()); err != nil {
		return subnet.Attrs{}, err
	}
	return subnet.Attrs{Public: host.Uplink.Public, BackendType: Name}, nil
}

// Plan wants the device, guarded against strangers, and for each peer a route over it or, if the peer is a neighbour, around it.
func (i *IPIP) Plan(host backend.Host, self subnet.Lease, peers []*subnet.Lease) (ip.State, []subnet.Problem) {
	own := self.Subnets.V4
	if !own.IsValid() {
		return ip.State{}, []subnet.Problem{{Key: subnet.KeyOf(self.Subnets), Reason: "this host's lease lacks ipv4"}}
	}
	link := ip.Link{Name: device, MTU: host.Uplink.MTU - overhead, Up: true, Kind: ip.IPIP{Local: host.Uplink.Addr.V4}}
	s := ip.State{
		Links:  []ip.Link{link},
		Addrs:  []ip.Addr{{Link: device, Prefix: ip.Host(own.Addr())}},
		Routes: make([]ip.Route, 0, len(peers)),
	}
	admitted := backend.NewAdmission(ip.IPv4, i.pool, len(peers))
	var problems []subnet.Problem
	for _, peer := range peers {
		dst := peer.Subnets.V4
		if !dst.IsValid() {
			continue
		}
		public, err := backend.Reach(host, *peer, ip.IPv4, Name)
		if err != nil {
			problems = append(problems, subnet.Problem{Key: subnet.KeyOf(peer.Subnets), Reason: err.Error()})
			continue
		}
		admitted.Admit(public, dst) // also of a neighbour, whose own route may lead through the tunnel
		s.Routes = append(s.Routes, i.route(host, dst, public))
	}
	s.Guards = []ip.Guard{admitted.Guard(link, host.Uplink)}
	return s, problems
}

func (i *IPIP) route(host backend.Host, dst netip.Prefix, public netip.Addr) ip.Route {
	if i.opts.DirectRouting {
		if direct, ok := host.DirectRoute(dst, public); ok {
			return direct
		}
	}
	return backend.RouteOver(device, dst, public)
}
