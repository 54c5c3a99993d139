package agent

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"tulle/internal/fabric"
	"tulle/internal/trouble"
	"tulle/ip"
)

// Status is how things stand after a pass. The API, the health checks and the operator's tool all read this value.
type Status struct {
	Ready    bool            `json:"ready"`
	Reason   string          `json:"reason,omitempty"`   // why not ready
	Degraded string          `json:"degraded,omitempty"` // what the store does not confirm: forwarding is as right as it can be without
	Node     string          `json:"node"`
	Version  string          `json:"version,omitempty"` // of tulled
	Networks []fabric.Status `json:"networks"`          // of the host, always the same
	Uplink   *UplinkStatus   `json:"uplink,omitempty"`
	FastPath *FastPathStatus `json:"fastPath,omitempty"`
	Probes   *ProbeStatus    `json:"probes,omitempty"` // nil: hosts do not ask each other
	Dropped                  // packets
	Troubles trouble.List    `json:"troubles"`           // all that is wrong
	Violated uint64          `json:"violated,omitempty"` // how often something was that should never be, since the start: trouble.Fault
	Work     Work            `json:"work"`
	Time     time.Time       `json:"time"` // of the pass

	host  string // what of Reason is the host's own
	found findings
}

// Of returns the status of the network of that name; the only one has none. It is zero if the host has no such network.
func (st Status) Of(network string) fabric.Status {
	for _, n := range st.Networks {
		if n.Name == network {
			return n
		}
	}
	return fabric.Status{}
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
	Passes          uint64        `json:"passes"`          // full ones
	Incremental     uint64        `json:"incremental"`     // passes over the leases that changed
	Changes         uint64        `json:"changes"`         // operations applied to the kernel
	Applied         time.Duration `json:"applied"`         // time that these took, nanoseconds
	TookFull        Durations     `json:"tookFull"`        // of full passes
	TookIncremental Durations     `json:"tookIncremental"` // of incremental ones
	Calls           uint64        `json:"calls"`           // system calls for reading and applying routes, neighbours and forwarding entries
}

// UplinkStatus is the interface that carries the traffic between hosts.
type UplinkStatus struct {
	Link   string       `json:"link"`
	MTU    int          `json:"mtu"`
	Route  netip.Prefix `json:"mtuRoute,omitzero"` // the destination of the route over it that names the MTU, if that is less than its own
	Addr   []netip.Addr `json:"addresses"`
	Public []netip.Addr `json:"public"`
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
// troubles that come and go between passes.
func (a *Agent) Status() Status {
	st := a.Summary()
	for i, n := range st.Networks {
		st.Networks[i] = n.WithPeers()
	}
	return st
}

// Summary is Status without the lists of peers.
func (a *Agent) Summary() Status {
	st := a.status.get()
	st.Networks = slices.Clone(st.Networks)
	for _, code := range slices.Concat(fabric.MomentaryCodes(), fastPathCodes()) {
		st.Troubles = st.Troubles.Without(code)
	}
	st.FastPath = a.fast.status()
	st.Troubles = st.Troubles.With(a.fast.troubles(st.FastPath)...)
	st.Probes = a.probes.status()
	st.Troubles = a.probes.told(st.Troubles)
	changed := false
	for i, f := range a.fabrics {
		now, troubles := f.Now(st.Networks[i])
		changed = changed || len(troubles) > 0
		st.Networks[i] = now
		st.Troubles = st.Troubles.With(append(troubles, f.MomentaryTroubles()...)...)
	}
	if changed {
		st.conclude()
	}
	if a.cfg.Calls != nil {
		st.Work.Calls = a.cfg.Calls()
	}
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

func uplinkStatus(u ip.Uplink) *UplinkStatus {
	return &UplinkStatus{Link: u.Link, MTU: u.MTU, Route: u.MTURoute, Addr: ip.Addrs(u.Addr), Public: ip.Addrs(u.Public)}
}
