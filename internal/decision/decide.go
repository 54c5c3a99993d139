// Package decision joins what a backend wants for peers with what the host needs besides: settings, masquerading, source checks, openings in
// the filters of others. It goes from values to values.
package decision

import (
	"net/netip"

	"tulle/backend"
	"tulle/ip"
	"tulle/subnet"
)

// Inputs is everything that a decision depends on.
type Inputs struct {
	Net     string // name of the network on this host; the only one has none
	Network *subnet.Network
	Backend backend.Backend
	Options Options
	Host    backend.Host
	Self    subnet.Lease    // of this host
	Leases  []*subnet.Lease // of all hosts
	Usable  []*subnet.Lease // those of them that may be programmed, as subnet.Judge says
	Kernel  ip.Snapshot     // what else is on the host

	Precious  []netip.Addr         // that no lease may capture
	RouteMTUs map[netip.Prefix]int // bytes of the largest packets that arrive in some of the peers' subnets; routes there name them
}

// Options are the operator's.
type Options struct {
	IPMasq      bool // masquerade what leaves the network
	PeerFilter  bool // drop tunnelled packets that come from no peer, or are not made by this host
	SourceCheck bool // drop packets whose source is not of the subnet that they come from
	FastPath    bool // the host has a fast path: what that needs of the kernel is wanted

	FastPathExclude []netip.Prefix // whose packets never take it
}

// Decision is what is wanted, and what is in its way.
type Decision struct {
	Want      ip.State         // sorted
	Unserved  []subnet.Problem // usable leases that the backend cannot serve
	Abandoned []ip.Route       // that a flanneld left behind
	Blocked   []ip.Blockade    // where packets between containers are dropped all the same
	Closed    []ip.Blockade    // where packets to and from the world outside are
	Tunnels   []ip.Blockade    // where those that hosts exchange through a tunnel are
}

// Decide says what is wanted for all usable leases and for the host itself.
func Decide(in Inputs) Decision {
	var d Decision
	d.Want, d.Unserved = peers(in)
	d.Want.Add(host(in))
	if in.Options.SourceCheck {
		checkSources(in, &d.Want)
	}
	var passage ip.Passage
	passage, d.Closed = forwarded(in, d.Want)
	d.Want.Openings = passage.Openings
	d.Blocked = passage.Blockades
	d.Tunnels = tunnels(in, d.Want)
	mark(d.Want.Tables, passage.Marked)
	d.Abandoned = abandoned(in.Kernel.Foreign, d.Want, in.Leases)
	d.Want.Sort()
	return d
}

// Peers is the part of Decide that depends on the usable leases. For some of them alone it is their part of what is wanted for all, and
// beside it what the backend wants for any.
func Peers(in Inputs) (ip.State, []subnet.Problem) {
	want, unserved := peers(in)
	want.Sort()
	return want, unserved
}

// peers is Peers, unsorted: Decide has more to put in order.
func peers(in Inputs) (ip.State, []subnet.Problem) {
	want, unserved := in.Backend.Plan(in.Host, in.Self, in.Usable)
	for i := range want.Guards {
		want.Guards[i].Net = in.Net
	}
	applyFilters(&want, in.Options)
	for i := range want.Routes {
		want.Routes[i].MTU = in.RouteMTUs[want.Routes[i].Dst]
	}
	return want, unserved
}
