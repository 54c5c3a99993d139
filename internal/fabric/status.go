package fabric

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// Status is how things stand with a network after a pass.
type Status struct {
	Name      string          `json:"name,omitempty"` // of the network on this host; the only one has none
	Ready     bool            `json:"ready"`
	Reason    string          `json:"reason,omitempty"`   // why not ready, as far as it is not the host
	Degraded  string          `json:"degraded,omitempty"` // what the store does not confirm: forwarding is as right as it can be without
	Network   *NetworkStatus  `json:"network,omitempty"`
	Lease     *LeaseStatus    `json:"lease,omitempty"`
	MTU       int             `json:"mtu,omitempty"` // bytes, for containers
	PeerCount int             `json:"peerCount"`
	Peers     []PeerStatus    `json:"peers"` // only where they are asked for
	Leases    LeaseCounts     `json:"leases"`
	Revision  subnet.Revision `json:"revision"`                   // of the store's view
	FullOnly  *FullOnly       `json:"fullOnly,omitempty"`         // why every change takes a full pass; nil: incremental ones do
	Expiry    time.Time       `json:"certificateExpiry,omitzero"` // of the certificate that the store is shown, as it is in its file now

	Troubles trouble.List `json:"-"` // they are in the host's, too

	peers []routedPeer
}

// LeaseCounts count the leases with which something is the matter. One may be of several kinds.
type LeaseCounts struct {
	Refused  int `json:"refused,omitempty"`  // that may not be used, or not in one family
	Unserved int `json:"unserved,omitempty"` // that the backend cannot serve, or not in one family
	Odd      int `json:"odd,omitempty"`      // a change of which takes a full pass, while others do not
	HeldBack int `json:"heldBack,omitempty"` // that the store has no longer, and that stay in force until a second look
}

// NetworkStatus is the configuration in force.
type NetworkStatus struct {
	Prefixes []netip.Prefix  `json:"prefixes"`
	Backend  string          `json:"backend"`
	Revision subnet.Revision `json:"revision"`
}

// LeaseStatus is this host's lease.
type LeaseStatus struct {
	Subnets  []netip.Prefix `json:"subnets"`
	Held     bool           `json:"held"` // false: lost or not confirmed, and in force until there is another
	Reserved bool           `json:"reserved"`
	// Remaining is for how long it is held without another word from the store, in nanoseconds; zero if it has no end.
	Remaining time.Duration   `json:"remaining,omitempty"`
	Revision  subnet.Revision `json:"revision"`
}

// PeerStatus is a host whose subnets are routed to.
type PeerStatus struct {
	Node    string         `json:"node,omitempty"`
	Subnets []netip.Prefix `json:"subnets"`
	Public  []netip.Addr   `json:"public"`
	Via     string         `json:"via"` // "direct", a kind of tunnel such as "vxlan", "mixed" or "none"
}

// Lease is the text of the peer's lease.
func (p PeerStatus) Lease() string {
	var s subnet.Subnets
	for _, prefix := range p.Subnets {
		s.Set(ip.FamilyOf(prefix.Addr()), prefix)
	}
	return subnet.KeyOf(s)
}

// WithPeers returns the status with the list of peers.
func (st Status) WithPeers() Status {
	st.Peers = peerStatus(st.peers)
	return st
}

// Now returns a status of the last pass with what is told at once: a lease that is no longer held. The troubles are those that come with it.
func (f *Fabric) Now(st Status) (Status, []trouble.Trouble) {
	if f.cfg.Expiry != nil {
		st.Expiry = f.cfg.Expiry()
	}
	if st.Lease == nil || !st.Lease.Held {
		return st, nil
	}
	var ts []trouble.Trouble
	switch _, held, err := f.keeper.state(); {
	case held:
		lease := *st.Lease
		lease.Remaining = f.keeper.remaining()
		st.Lease = &lease
		return st, nil
	case errors.Is(err, ErrUnconfirmed):
		st.Degraded = err.Error()
		ts = []trouble.Trouble{trouble.New(trouble.StoreUnconfirmed, "", st.Degraded)}
	default:
		st.Ready, st.Reason = false, fmt.Sprint(err)
		ts = trouble.Of(trouble.Wrap(leaseCode(err), "", err))
	}
	lease := *st.Lease
	lease.Held = false
	st.Lease = &lease
	return st, f.ours(ts)
}

func heldBack(leases []*subnet.Lease) (n int) {
	for _, l := range leases {
		if l.HeldBack {
			n++
		}
	}
	return n
}

func networkStatus(n subnet.Network) *NetworkStatus {
	return &NetworkStatus{Prefixes: n.Prefixes(), Backend: n.Backend.Type, Revision: n.Revision}
}

func leaseStatus(l subnet.Lease, held bool) *LeaseStatus {
	return &LeaseStatus{Subnets: prefixes(l.Subnets), Held: held, Reserved: l.Reserved, Revision: l.Revision}
}

func prefixes(s subnet.Subnets) []netip.Prefix {
	var out []netip.Prefix
	for _, f := range ip.Families() {
		if p := s.Of(f); p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}
