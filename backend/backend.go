// Package backend says how traffic reaches the owner of a subnet: leases in, the wanted state of the kernel out.
//
// Backends are pure. internal/decision adds the host's part to what they want, and internal/agent compares that with the kernel.
package backend

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"tulle/ip"
	"tulle/subnet"
)

// Backend turns leases into the state that a host should have.
type Backend interface {
	// Scope names the links that the backend owns, their types and settings, and the underlay addresses whose route it must know.
	Scope(leases []*subnet.Lease) ip.Scope
	// MTU is the size in bytes of the largest packet that a container may send between hosts. An error that wraps ErrOversize
	// comes with the size all the same.
	MTU(uplink ip.Uplink) (int, error)
	// Advertise returns what peers must know of this host. What the host's earlier lease or existing links say is kept,
	// so that a restart changes nothing for peers, unless whoever has not seen this host before would take it for another's:
	// then something else is announced, as long as there is anything. An error that wraps ErrOutranked tells that there is
	// nothing, and comes with attributes all the same. Any other tells that the backend cannot work on this host or uplink.
	Advertise(host Host, earlier subnet.Attrs) (subnet.Attrs, error)
	// Plan returns the wanted state, and the peers that cannot be served, each with the reason.
	Plan(host Host, self subnet.Lease, peers []*subnet.Lease) (ip.State, []subnet.Problem)
}

// ErrOutranked tells that an older lease announces what this host does, so that hosts without memory of both leave it out.
var ErrOutranked = errors.New("hosts that see the store for the first time leave this one out")

// ErrOversize tells that packets of the configured size are more than the uplink takes as they are.
var ErrOversize = errors.New("larger packets are cut up or lost")

// New makes the backend of a network. Warnings are oddities that an operator should know and that stop nothing.
type New func(network subnet.Network) (b Backend, warnings []string, err error)

// Open makes the backend that the network names, one of the given ones.
func Open(all map[string]New, n subnet.Network) (Backend, []string, error) {
	newBackend, ok := all[n.Backend.Type]
	if !ok {
		return nil, nil, fmt.Errorf("Backend.Type is %.64q: choose one of %s", n.Backend.Type, strings.Join(slices.Sorted(maps.Keys(all)), ", "))
	}
	return newBackend(n)
}

// Host is what a backend knows of the host it plans for.
type Host struct {
	Node   string
	Uplink ip.Uplink
	Own    map[netip.Addr]bool // every address of the host
	Shared map[netip.Addr]bool // broadcast addresses of the networks that it is in
	Links  []ip.Link           // those of the backend's links that exist
	Lacks  map[string]bool     // types of links in the backend's scope that the kernel cannot make
	Paths  map[netip.Addr]ip.Path

	// For Advertise alone: all leases in the store, and this host's own among them; nil while it has none, which counts as the youngest.
	Leases []*subnet.Lease
	Self   *subnet.Lease
	Stored *subnet.Network // the configuration in the store, which need not be the one in force
}

// Makes returns an error if the host's kernel cannot make links of a type.
func (h Host) Makes(kind string) error {
	if h.Lacks[kind] {
		return fmt.Errorf("this kernel lacks %s: load the module %[1]s (modprobe %[1]s)", kind)
	}
	return nil
}

// Owns reports whether a link is Tulle's.
func (h Host) Owns(link string) bool {
	return slices.ContainsFunc(h.Links, func(l ip.Link) bool { return l.Name == link })
}

// DirectRoute routes dst through the peer at public, if that is a neighbour on the underlay.
func (h Host) DirectRoute(dst netip.Prefix, public netip.Addr) (r ip.Route, ok bool) {
	path := h.Paths[public]
	return ip.Route{Dst: dst, Via: public, Link: path.Link, Metric: Metric(dst), Protocol: ip.Protocol}, path.OnLink()
}

// RouteOver routes dst over a link of the backend's, through an address there that needs no route of its own.
func RouteOver(link string, dst netip.Prefix, via netip.Addr) ip.Route {
	return ip.Route{Dst: dst, Via: via, Link: link, Metric: Metric(dst), Protocol: ip.Protocol, OnLink: true}
}

// Metric is a number of its own for the routes towards a subnet. The kernel hashes a route's nexthop by device and
// scope but not by gateway, and by the metric: with one metric for all, adding n routes through one device costs n² steps.
func Metric(dst netip.Prefix) uint32 {
	const (
		offset = 2166136261 // FNV-1a
		prime  = 16777619
		bits   = 24
	)
	h := uint32(offset)
	for _, b := range dst.Masked().Addr().AsSlice() {
		h = (h ^ uint32(b)) * prime
	}
	h = (h ^ uint32(dst.Bits())) * prime
	return 1<<bits + (h>>bits^h)&(1<<bits-1)
}
