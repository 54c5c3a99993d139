// Package alloc leases a subnet and leaves the traffic to others.
package alloc

import (
	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

// Name is the backend's name in the network configuration. Leases do not carry it, as in flannel.
const Name = "alloc"

// Alloc is the backend.
type Alloc struct{}

// New makes the backend; it has no options.
func New(n subnet.Network) (backend.Backend, []string, error) {
	warnings, err := backend.DecodeOptions(n.Backend, &struct{}{})
	if err != nil {
		return nil, nil, err
	}
	return Alloc{}, warnings, nil
}

// Scope owns nothing.
func (Alloc) Scope([]*subnet.Lease) ip.Scope { return ip.Scope{} }

// MTU is the uplink's.
func (Alloc) MTU(uplink ip.Uplink) (int, error) { return uplink.MTU, nil }

// Advertise publishes the addresses only.
func (Alloc) Advertise(host backend.Host, _ subnet.Attrs) (subnet.Attrs, error) {
	return subnet.Attrs{Public: host.Uplink.Public}, nil
}

// Plan wants nothing.
func (Alloc) Plan(backend.Host, subnet.Lease, []*subnet.Lease) (ip.State, []subnet.Problem) {
	return ip.State{}, nil
}
