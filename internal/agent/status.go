package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"tulle/internal/trouble"
	"tulle/ip"
	"tulle/subnet"
)

// Status is how things stand after a pass. The API, the health checks and the operator's tool all read this value.
type Status struct {
	Ready     bool           `json:"ready"`
	Reason    string         `json:"reason,omitempty"`   // why not ready
	Degraded  string         `json:"degraded,omitempty"` // what the store does not confirm: forwarding is as right as it can be without
	Node      string         `json:"node"`
	Network   *NetworkStatus `json:"network,omitempty"`
	Lease     *LeaseStatus   `json:"lease,omitempty"`
	Uplink    *UplinkStatus  `json:"uplink,omitempty"`
	MTU       int            `json:"mtu,omitempty"` // bytes, for containers
	PeerCount int            `json:"peerCount"`
	Peers     []PeerStatus   `json:"peers"` // what Agent.Status tells; Config.Changed is told without
	Dropped                  // packets
	Troubles  trouble.List   `json:"troubles"`           // all that is wrong
	Violated  uint64         `json:"violated,omitempty"` // how often something was that should never be, since the start: trouble.Fault

	Work     Work      `json:"work"`
	Revision int64     `json:"revision"` // of the store's view
	Time     time.Time `json:"time"`     // of the pass

	peers []peerView
	found findings
}

// Dropped counts the packets that Tulle's rules have dropped. It only grows while the agent runs.
type Dropped struct {
	Strangers uint64 `json:"strangers,omitempty"` // tunnelled: they came from the address of no peer
	Forged    uint64 `json:"forged,omitempty"`    // tunnelled: they came from a peer, with a source inside that is not in its subnet
	Injected  uint64 `json:"injected,omitempty"`  // tunnelled: something behind this host made them, for the tunnel of a host
	Spoofed   uint64 `json:"spoofed,omitempty"`   // from containers of this host, with a source that is not theirs
}

// Work is what the agent has done since it started.
type Work struct {
	Passes      uint64        `json:"passes"`      // full ones
	Incremental uint64        `json:"incremental"` // passes over the leases that changed
	Changes     uint64        `json:"changes"`     // operations applied to the kernel
	Applied     time.Duration `json:"applied"`     // time that these took, nanoseconds
	Calls       uint64        `json:"calls"`       // system calls for reading and applying routes, neighbours and forwarding entries
}

// NetworkStatus is the configuration in force.
type NetworkStatus struct {
	Prefixes []netip.Prefix `json:"prefixes"`
	Backend  string         `json:"backend"`
	Revision int64          `json:"revision"`
}

// LeaseStatus is this host's lease.
type LeaseStatus struct {
	Subnets  []netip.Prefix `json:"subnets"`
	Held     bool           `json:"held"` // false: lost or not confirmed, and in force until there is another
	Reserved bool           `json:"reserved"`
	Revision int64          `json:"revision"`
}

// UplinkStatus is the interface that carries the traffic between hosts.
type UplinkStatus struct {
	Link   string       `json:"link"`
	MTU    int          `json:"mtu"`
	Addr   []netip.Addr `json:"addresses"`
	Public []netip.Addr `json:"public"`
}

// PeerStatus is a host whose subnets are routed to.
type PeerStatus struct {
	Node    string         `json:"node,omitempty"`
	Subnets []netip.Prefix `json:"subnets"`
	Public  []netip.Addr   `json:"public"`
	Via     string         `json:"via"` // "direct", "vxlan", "mixed" or "none"
}

// published is the newest status.
type published struct {
	mu sync.Mutex
	st Status
}

func (p *published) set(st Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.st = st
}

func (p *published) get() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.st
}

// Status returns how things stood after the last pass, except for what is told at once: a lease that is no longer held, and
// the store's troubles, which come and go between passes.
func (a *Agent) Status() Status {
	st := a.Summary()
	st.Peers = peerStatus(st.peers)
	return st
}

// Summary is Status without the list of peers.
func (a *Agent) Summary() Status {
	st := a.status.get()
	st.Troubles = a.storeTrouble(st.Troubles)
	if a.cfg.Calls != nil {
		st.Work.Calls = a.cfg.Calls()
	}
	if st.Lease == nil || !st.Lease.Held {
		return st
	}
	switch _, held, err := a.keeper.state(); {
	case held:
		return st
	case errors.Is(err, errRanOut):
		st.Degraded = err.Error()
		st.Troubles = st.Troubles.With(trouble.New(trouble.StoreUnconfirmed, "", st.Degraded))
	default:
		st.Ready, st.Reason = false, fmt.Sprint(err)
		st.Troubles = st.Troubles.With(trouble.Of(trouble.Wrap(leaseCode(err), "", err))...)
	}
	lease := *st.Lease
	lease.Held = false
	st.Lease = &lease
	return st
}

// publish makes st the status and logs what is new in it.
func (a *Agent) publish(st Status) {
	last := a.status.get()
	st.Time, st.Violated = time.Now(), last.Violated+uint64(len(st.found.violations))
	a.journal.passed(last, st)
	a.status.set(st)
	if a.cfg.Changed != nil {
		a.cfg.Changed(st)
	}
}

func networkStatus(n subnet.Network) *NetworkStatus {
	return &NetworkStatus{Prefixes: n.Prefixes(), Backend: n.Backend.Type, Revision: n.Revision}
}

func leaseStatus(l subnet.Lease, held bool) *LeaseStatus {
	return &LeaseStatus{Subnets: prefixes(l.Subnets), Held: held, Reserved: l.Reserved, Revision: l.Revision}
}

func uplinkStatus(u ip.Uplink) *UplinkStatus {
	return &UplinkStatus{Link: u.Link, MTU: u.MTU, Addr: addrs(u.Addr), Public: addrs(u.Public)}
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

func addrs(d ip.Dual[netip.Addr]) []netip.Addr {
	var out []netip.Addr
	for _, f := range ip.Families() {
		if a := d.Of(f); a.IsValid() && !a.IsUnspecified() {
			out = append(out, a)
		}
	}
	return out
}
